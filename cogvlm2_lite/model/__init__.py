"""The mathematics of CogVLM2, and nothing else: no files, no memory management, no sampling."""
