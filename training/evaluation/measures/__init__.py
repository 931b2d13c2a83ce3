"""Scores, and intervals over smears."""
