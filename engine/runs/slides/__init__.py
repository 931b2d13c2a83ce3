"""Analyze whole slides: their tiles, merged, and what their tiles doubt."""
