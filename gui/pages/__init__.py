"""The pages beside the chat. Each module has a factory that takes the window's Context."""
