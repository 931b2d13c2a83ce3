"""Take the results of a run and write its files."""
