"""What commands share: options, and what they show on a terminal."""
