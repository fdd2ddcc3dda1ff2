"""Measures this CPU for forecast/rates.py, in less than a second."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from cogvlm2_lite.weights.catalog import NF4_GROUP
from cogvlm2_lite.weights.kernels.choice import choose_kernels
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix
from cogvlm2_lite.weights.kernels.nf4 import NF4_LEVELS
from cogvlm2_lite.weights.kernels.scratch import Scratch
from cogvlm2_lite.weights.storage.nf4 import place_four_bit

_WIDTH = 4096
_ROWS = 512
_MOST_S = 0.25


def matmul_rate(itemsize: int) -> float:
    """Return the operations per second of a large matrix product.

    itemsize  2: bfloat16, 4: float32
    """
    dtype = torch.bfloat16 if itemsize == 2 else torch.float32
    x, weight = torch.ones(_ROWS, _WIDTH, dtype=dtype), torch.ones(_WIDTH, _WIDTH, dtype=dtype)
    return 2 * _ROWS * _WIDTH**2 / _shortest_s(lambda: F.linear(x, weight))


def decode_rate(*, itemsize: int, packed: bool) -> float:
    """Return the bytes per second at which one row is multiplied with NF4 matrices.

    itemsize  as for matmul_rate: the dtype of the row
    packed    measure a bfloat16 matrix larger than the caches instead: the packed kernel is as
              fast as memory, and packing such a matrix would take longer than measuring
    """
    if packed:
        matrix = torch.ones(4 * _WIDTH, _WIDTH, dtype=torch.bfloat16)
        row = torch.ones(1, _WIDTH, dtype=torch.bfloat16)
        return matrix.nbytes / _shortest_s(lambda: F.linear(row, matrix))
    count = _WIDTH**2
    stored = FourBitMatrix(
        rows=_WIDTH,
        columns=_WIDTH,
        group=NF4_GROUP,
        quant_type="nf4",
        codes=torch.zeros(count // 2, dtype=torch.uint8),
        absmax=torch.ones(count // NF4_GROUP),
        levels=torch.tensor(NF4_LEVELS),
    )
    cpu = torch.device("cpu")
    dtype = torch.bfloat16 if itemsize == 2 else torch.float32
    kernels = choose_kernels(cpu, dtype)
    weight = place_four_bit(stored, kernels, Scratch(cpu))
    single = torch.ones(1, _WIDTH, dtype=dtype)
    return stored.nbytes / _shortest_s(lambda: weight.multiply(single, None))


def _shortest_s(work: Callable[[], object]) -> float:
    """Return the seconds of the fastest run; other programs slow down some runs."""
    began, shortest = time.perf_counter(), float("inf")
    with torch.inference_mode():
        work()
        while True:
            start = time.perf_counter()
            work()
            now = time.perf_counter()
            shortest = min(shortest, now - start)
            if now - began > _MOST_S:
                return shortest
