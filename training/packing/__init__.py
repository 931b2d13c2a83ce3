"""Turn fitted networks into a pack."""
