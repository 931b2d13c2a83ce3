"""Train a model pack from labelled smears. Needs the extra `train`."""
