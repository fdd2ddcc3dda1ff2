"""Fits the rounding of 4-bit weights to what the layers see on sample inputs."""
