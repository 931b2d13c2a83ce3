"""Measure a pack laboratory by laboratory."""
