"""The microscope's loop: frames in from any thread, ends out in time."""
