"""What the program does with an engine, start to end."""
