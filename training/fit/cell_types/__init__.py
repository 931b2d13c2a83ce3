"""The classifier of cell types, over several laboratories."""
