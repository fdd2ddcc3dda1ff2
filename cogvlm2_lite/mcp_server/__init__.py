"""The tools of `cogvlm2-lite mcp`, for clients of the Model Context Protocol."""
