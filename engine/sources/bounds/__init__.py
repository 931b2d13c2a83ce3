"""What a file may make the program do: open, read, allocate and decode."""
