"""Compute statistics of counts: intervals, grades, matches of regions."""
