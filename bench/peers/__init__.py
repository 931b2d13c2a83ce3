"""Run the same pipeline with the same weights by other means, to compare the engine with."""
