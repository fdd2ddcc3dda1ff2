"""The mathematics of CogVLM2 only: no files, no memory management, no sampling."""
