"""The engine in a process of its own: its messages, its main loop, and its owner's side."""
