"""Fit the rounding of 4-bit weights to the inputs that the layers get on samples."""
