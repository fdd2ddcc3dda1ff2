"""The engine: from a question about a picture to a stream of events."""
