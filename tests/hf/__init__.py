"""Tests of CogVLM2 in transformers."""
