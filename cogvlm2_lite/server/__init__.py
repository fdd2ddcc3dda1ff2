"""The local server: OpenAI's API and a web page over the engine's process."""
