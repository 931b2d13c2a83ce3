"""From finished trainings to a pack."""
