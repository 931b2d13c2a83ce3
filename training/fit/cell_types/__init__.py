"""Train the classifier of cell types on several laboratories."""
