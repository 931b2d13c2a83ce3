"""Define what travels along the path, as all rooms above use it."""
