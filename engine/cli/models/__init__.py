"""Provide the commands that train, calibrate and evaluate packs, and reproduce the paper."""
