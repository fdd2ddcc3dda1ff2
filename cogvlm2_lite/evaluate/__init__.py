"""Comparing two models on pictures and questions: divergence of their next words, and answers."""
