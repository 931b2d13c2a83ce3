"""Define model packs and hold the shipped ones, one folder each."""
