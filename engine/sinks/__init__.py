"""What a run leaves: everything that takes results and writes files."""
