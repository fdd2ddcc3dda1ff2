"""The tools of `cogvlm2-lite mcp`, for programs that speak the Model Context Protocol."""
