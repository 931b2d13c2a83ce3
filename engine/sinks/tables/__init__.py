"""The tables that every run writes."""
