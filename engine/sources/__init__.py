"""Read frames from files, slides and cameras."""
