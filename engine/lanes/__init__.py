"""Analyse batches in flight: the lanes of an engine, and the stages of one."""
