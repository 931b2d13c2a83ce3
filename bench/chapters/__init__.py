"""Hold the chapters of `rbc-engine bench`."""
