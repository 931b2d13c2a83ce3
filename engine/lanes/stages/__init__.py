"""Process a frame within a lane: one file per stage."""
