"""Read datasets, one module per format of labels."""
