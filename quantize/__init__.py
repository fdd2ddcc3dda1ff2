"""Convert a 16-bit checkpoint into a 4-bit folder, and check the result."""
