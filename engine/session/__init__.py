"""Serve a microscope: frames in from any thread, outcomes out in time."""
