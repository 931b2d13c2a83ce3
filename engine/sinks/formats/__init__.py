"""What a run can write beside its tables: one file a format."""
