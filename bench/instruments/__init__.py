"""What measures, and what is measured with."""
