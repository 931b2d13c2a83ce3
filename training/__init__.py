"""From labelled smears to a model pack. Needs the extra `train`."""
