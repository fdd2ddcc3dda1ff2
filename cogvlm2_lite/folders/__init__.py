"""Explains folders and files that are not a model, or not yet: what they are, and what to do."""
