"""The same pipeline, with the same weights, by other means: what the engine is compared with."""
