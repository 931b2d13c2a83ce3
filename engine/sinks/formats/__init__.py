"""Write further outputs of a run, in addition to its tables: one file per format."""
