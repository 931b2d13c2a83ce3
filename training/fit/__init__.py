"""Training loops, and what they fit."""
