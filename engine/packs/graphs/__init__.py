"""Follow the networks of a pack from their files alone: what they are, and what they take."""
