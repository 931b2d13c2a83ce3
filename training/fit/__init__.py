"""Training: what is drawn, the steps, their checkpoints."""
