"""The tables and figures of Qiu et al. 2019 on data that anyone can get. One file a table or figure."""
