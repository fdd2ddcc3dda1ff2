"""The one-time conversion of a 16-bit checkpoint into a 4-bit folder, and its check."""
