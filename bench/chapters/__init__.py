"""The chapters of `rbc-engine bench`."""
