"""The path of a frame within a lane: one file a stage."""
