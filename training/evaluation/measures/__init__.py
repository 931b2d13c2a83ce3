"""Compute scores, and intervals over smears."""
