"""Write an evaluation: files, tables and plots."""
