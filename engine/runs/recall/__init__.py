"""Rebuild a finished run with other rules."""
