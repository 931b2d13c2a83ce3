"""What counts say: intervals, grades, which regions are the same."""
