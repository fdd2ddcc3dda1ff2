"""What the window keeps on disk: conversations, settings, exports. No Qt here."""
