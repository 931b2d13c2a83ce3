"""Provide instruments, and what they measure with."""
