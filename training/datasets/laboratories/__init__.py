"""Fields of several laboratories, with their single cells, as one collection."""
