"""Read back finished runs."""
