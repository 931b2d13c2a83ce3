"""Run the program's main acts with an engine, from start to end."""
