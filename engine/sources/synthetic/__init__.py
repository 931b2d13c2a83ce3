"""Render fields, with the truth about every cell."""
