"""Make fields of whatever a frame shows: more than one, or a part of it."""
