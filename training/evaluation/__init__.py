"""How good a pack is: what the engine says of labelled smears against their labels, with intervals over smears."""
