"""Write the tables of every run."""
