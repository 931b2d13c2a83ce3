"""Write the files of a run from a session: a live run, or a loop of one's own."""
