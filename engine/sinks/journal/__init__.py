"""Write journals, which survive a crash until the tables are in place."""
