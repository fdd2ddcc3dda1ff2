"""The page people talk on: conversations, transcript, composer and picture."""
