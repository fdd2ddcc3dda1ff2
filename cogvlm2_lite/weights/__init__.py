"""Weights: catalog, storage kinds, kernels, readers and writers."""
