"""The window's data on disk: conversations, settings, exports. No Qt here."""
