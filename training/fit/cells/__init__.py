"""The detector of single cells, by kind, over several laboratories."""
