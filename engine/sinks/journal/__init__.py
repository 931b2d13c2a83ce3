"""Journals: what outlives a crash until the tables are in place."""
