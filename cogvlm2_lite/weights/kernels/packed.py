"""bitsandbytes' AVX512-BF16 multiplication, and the layout that it needs.

The layout is created here without bitsandbytes' scratch. Rows are in blocks of 32. A block has 32
bytes for every pair of columns (k, k + 1): byte 2r + c holds the code of row r, column k + c in its
low half and that of row r + 16 in its high half. Scales are rounded to bfloat16 and transposed to
[in_features / group, out_features]. footprint.can_pack returns which matrices fit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cogvlm2_lite.weights.footprint import PACKED_BLOCK
from cogvlm2_lite.weights.kernels.bitsandbytes_cpu import BitsandbytesCpu
from cogvlm2_lite.weights.kernels.interface import as_rows, as_single
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix
from cogvlm2_lite.weights.kernels.scales import float_scales
from cogvlm2_lite.weights.kernels.scratch import Scratch

PACKED_MAX_ROWS = 48
"""Up to this many rows the packed kernel is faster than dequantizing and multiplying; at 64 rows
both are equally fast (measured)."""

_CHUNK_BYTES = 1 << 20


class PackedKernel:
    """Few rows of bfloat16 times one 4-bit matrix, of which it holds a second, packed copy.

    It belongs to that matrix and is the first kernel in its list. Levels and scales are rounded to
    bfloat16: relative Frobenius error against the reference below 0.006.
    """

    name = "packed"

    def __init__(self, library: BitsandbytesCpu, matrix: FourBitMatrix) -> None:
        # Not in the scratch: weights are loaded on one thread while another one multiplies.
        scales = float_scales(matrix, library.expand_scales, None)
        self._library = library
        self._codes = pack(matrix.codes, matrix.rows, matrix.columns)
        self._scales = pack_scales(scales, matrix.rows)

    @property
    def nbytes(self) -> int:
        return self._codes.nbytes + self._scales.nbytes

    def takes(
        self, rows: int, *, height: int, columns: int, group: int, dtype: torch.dtype
    ) -> bool:
        """Return True for few rows of bfloat16; see Kernel."""
        return rows <= PACKED_MAX_ROWS and dtype == torch.bfloat16

    def multiply(
        self, x: Tensor, matrix: FourBitMatrix, bias: Tensor | None, scratch: Scratch
    ) -> Tensor:
        """Return x @ matrix.T + bias; see Kernel."""
        flat = x.reshape(-1, x.shape[-1]).contiguous()
        out = torch.empty(flat.shape[0], matrix.rows, dtype=x.dtype)
        self._library.multiply_packed(
            flat, self._codes, self._scales, out, quant_type=matrix.quant_type, group=matrix.group
        )
        if bias is not None:
            out += bias
        return out.view(*x.shape[:-1], matrix.rows)

    def multiply_each(
        self, xs: Sequence[Tensor], matrix: FourBitMatrix, bias: Tensor | None, scratch: Scratch
    ) -> list[Tensor]:
        """Multiply all rows in one call: they do not depend on each other."""
        return as_single(self.multiply(as_rows(xs), matrix, bias, scratch))


def pack(codes: Tensor, rows: int, columns: int) -> Tensor:
    """Return a matrix's codes in the packed layout, converted some blocks of rows at a time.

    codes    [rows * columns / 2] uint8 in the file's layout; not changed
    Returns  [rows, columns / 2] uint8. Scratch: about 4 MiB.
    """
    half, pairs = PACKED_BLOCK // 2, columns // 2
    blocks = rows // PACKED_BLOCK
    source = codes.view(blocks, 2, half, pairs)
    packed = torch.empty(blocks, pairs, half, dtype=torch.int16)
    step = max(1, _CHUNK_BYTES // (PACKED_BLOCK * pairs))
    for start in range(0, blocks, step):
        upper, lower = source[start : start + step].unbind(1)
        first = (upper >> 4) | (lower & 0xF0)
        second = (upper & 0x0F) | (lower << 4)
        pair = first.to(torch.int16).bitwise_or_(second.to(torch.int16) << 8)
        packed[start : start + step] = pair.transpose(1, 2)
    return packed.view(torch.uint8).view(rows, pairs)


def pack_scales(absmax: Tensor, rows: int) -> Tensor:
    """Return the scales rounded and transposed for the packed layout.

    absmax   [groups] float32
    Returns  [in_features / group, out_features] bfloat16
    """
    return absmax.view(rows, -1).to(torch.bfloat16).t().contiguous()
