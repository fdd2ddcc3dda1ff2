"""The engine in its own process: messages, main loop, and the owner's side."""
