"""Whole slides: one file a reader."""
