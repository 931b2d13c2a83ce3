"""Train the detector of single cells, by kind, on several laboratories."""
