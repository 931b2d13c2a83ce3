"""Read whole slides: one file per reader."""
