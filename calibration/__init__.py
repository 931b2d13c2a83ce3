"""Calibrate packs for lower precisions, and test that they keep the results."""
