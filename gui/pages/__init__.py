"""Smaller pages. Each page module has a function `make` that takes the window's Context."""
