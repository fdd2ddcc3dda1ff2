"""How fast an answer comes on this computer, measured on real or on made-up weights."""
