"""Measures the speed of an answer on this computer, with real or random weights."""
