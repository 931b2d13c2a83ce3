"""Lower precisions, and the proof that they keep the answer."""
