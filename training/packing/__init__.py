"""From fitted networks to a pack."""
