"""Write pictures of fields with their regions."""
