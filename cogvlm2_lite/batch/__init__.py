"""Asks one question about every picture of a folder, and saves each answer at once."""
