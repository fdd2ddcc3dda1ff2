"""The page "Chat": conversations, transcript, composer and picture."""
