"""Blockwise int8 matrices (layout: weights/catalog.py)."""

from __future__ import annotations

from cogvlm2_lite.weights.kernels.choice import KernelChoice
from cogvlm2_lite.weights.kernels.matrix import Int8Matrix
from cogvlm2_lite.weights.kernels.scratch import Scratch
from cogvlm2_lite.weights.storage.quantized import QuantizedWeight

Int8Weight = QuantizedWeight[Int8Matrix]


def place_int8(matrix: Int8Matrix, kernels: KernelChoice, scratch: Scratch) -> Int8Weight:
    """Return a weight around a matrix."""
    return QuantizedWeight(kind="int8", matrix=matrix, kernels=kernels.int8, scratch=scratch)
