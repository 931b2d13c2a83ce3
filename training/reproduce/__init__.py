"""Reproduce the tables and figures of Qiu et al. 2019 on public data. One file per table or
figure.
"""
