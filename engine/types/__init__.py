"""What travels along the path, and what all rooms above speak of."""
