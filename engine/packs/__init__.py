"""Model packs: what a pack is, and the shipped ones, a folder each."""
