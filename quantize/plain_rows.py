"""Reads rows of a tensor as floating-point numbers, whatever its storage kind."""

from __future__ import annotations

from math import gcd
from threading import Lock

import torch
from torch import Tensor

from cogvlm2_lite.weights.catalog import StoredTensor
from cogvlm2_lite.weights.header import DTYPE_BYTES
from cogvlm2_lite.weights.kernels.int8 import dequantize_int8
from cogvlm2_lite.weights.kernels.nf4 import dequantize_by_byte, expand_scales
from cogvlm2_lite.weights.reader import TORCH_DTYPES
from quantize.source import SourceFiles

_KEPT_SCALES = 3
"""Matrices whose scales are kept: threads work on neighbouring runs."""


def row_multiple(stored: StoredTensor) -> int:
    """Return the number of which the first row of a run must be a multiple."""
    if stored.quant is None:
        return 1
    return stored.quant.group // gcd(stored.quant.group, stored.spec.shape[1])


def row_bytes(stored: StoredTensor, rows: int) -> int:
    """Return the bytes of the first rows in the "weight" piece.

    rows  a multiple of row_multiple, or all rows
    """
    height = stored.spec.shape[0]
    if rows == height:
        return stored.pieces["weight"].nbytes
    numbers = rows * (stored.spec.numel // height)
    return numbers // 2 if stored.quant is not None else numbers * DTYPE_BYTES[stored.dtype]


class PlainRows:
    """Dequantizes rows; the scales of a matrix are read once. For any thread."""

    def __init__(self, files: SourceFiles) -> None:
        self._files, self._lock = files, Lock()
        self._scales: dict[str, tuple[Tensor, Tensor]] = {}

    def rows(self, stored: StoredTensor, data: bytearray, first: int, count: int) -> Tensor:
        """Return rows as [rows, columns]: a dense tensor's in its own type, others in float32.

        data   the bytes of these rows in the "weight" piece; the result may be a view of them
        first  a multiple of row_multiple
        """
        columns = stored.spec.numel // stored.spec.shape[0]
        if stored.kind == "dense":
            return torch.frombuffer(data, dtype=TORCH_DTYPES[stored.dtype]).view(count, columns)
        scales, levels = self._scales_of(stored)
        out = torch.empty(count, columns)
        if stored.quant is None:
            codes = torch.frombuffer(data, dtype=torch.int8).view(count, columns)
            return dequantize_int8(codes, scales[first : first + count], out)
        group = stored.quant.group
        begin, end = first * columns // group, -(-(first + count) * columns // group)
        codes = torch.frombuffer(data, dtype=torch.uint8)
        return dequantize_by_byte(codes, scales[begin:end], levels=levels, group=group, out=out)

    def _scales_of(self, stored: StoredTensor) -> tuple[Tensor, Tensor]:
        """Return the float32 scales and the levels of a quantized matrix."""
        name = stored.spec.name
        with self._lock:
            if name not in self._scales:
                while len(self._scales) >= _KEPT_SCALES:
                    del self._scales[next(iter(self._scales))]
                self._scales[name] = self._read_scales(stored)
            return self._scales[name]

    def _read_scales(self, stored: StoredTensor) -> tuple[Tensor, Tensor]:
        if stored.quant is None:
            return self._piece(stored, "scale"), torch.empty(0)
        scales, levels = self._piece(stored, "absmax"), self._piece(stored, "quant_map")
        if stored.quant.nested:
            outer, table = (self._piece(stored, f"nested_{n}") for n in ("absmax", "quant_map"))
            scales = expand_scales(scales, outer, table, stored.quant.nested_offset)
        return scales, levels

    def _piece(self, stored: StoredTensor, role: str) -> Tensor:
        piece = stored.pieces[role]
        data = self._files.read(stored.spec.name, piece, 0, piece.nbytes)
        return torch.frombuffer(data, dtype=TORCH_DTYPES[piece.dtype]).view(piece.shape)
