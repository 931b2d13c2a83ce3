"""Measure a pack: its results on labelled smears against the labels, with intervals over smears."""
