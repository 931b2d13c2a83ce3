"""Share options and terminal output between commands."""
