"""Doubt a field: unlike the training, or with foreground that no box covers."""
