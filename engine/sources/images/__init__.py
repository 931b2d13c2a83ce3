"""Read image files and their pixels."""
