"""Fit networks: training loops, and what they fit."""
