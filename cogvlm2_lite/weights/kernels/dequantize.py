"""Multiplies by a quantized matrix that is dequantized a few rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm
from typing import Generic

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.interface import (
    Dequantizers,
    Fill,
    Kernel,
    KernelList,
    Q,
    as_rows,
    as_single,
)
from cogvlm2_lite.weights.kernels.scratch import Scratch

_GPU_HEIGHT = 128
_GPU_BYTES = 24 << 20
_GPU_CACHE_SHARE = 3
_GPU_LEAST_BYTES = 2 << 20


@dataclass(frozen=True, kw_only=True)
class ChunkBytes:
    """Bytes of weights that are dequantized at a time; on a CPU, 1 to 32 MiB were measured.

    With few rows of x they should stay in the cache; with many, each chunk needs another pass over
    x (4 MiB was 25 % slower than 16 MiB for 14336 columns). The plan reserves no more than these
    defaults, and than those of `gpu_chunks` (memory/work.py).

    few     the most rows of x that count as few
    height  a chunk has a multiple of this many rows, if `many_rows` has room for them
    """

    few_rows: int = 4 << 20
    many_rows: int = 16 << 20
    few: int = 48
    height: int = 1

    def rows(self, count: int, *, columns: int, itemsize: int, multiple: int) -> int:
        """Return the number of weight rows to dequantize at a time.

        count     rows of x
        multiple  the number returned is a multiple of this, see Quantized.row_multiple
        """
        row_bytes = columns * itemsize
        most = self.many_rows // row_bytes
        fitting = self.few_rows // row_bytes if count <= self.few else most
        aligned = lcm(self.height, multiple)
        if aligned <= most:
            return max(1, fitting // aligned) * aligned
        return max(1, fitting // multiple) * multiple

    def most_rows(self, *, columns: int, itemsize: int, multiple: int) -> int:
        """Return the rows of the largest chunk, for any number of rows of x."""
        return max(
            self.rows(count, columns=columns, itemsize=itemsize, multiple=multiple)
            for count in (1, self.few + 1)
        )


def gpu_chunks(cache_bytes: int) -> ChunkBytes:
    """Return the chunks for a GPU.

    cache_bytes  the size of its L2 cache; 0 if unknown

    They have a multiple of 128 rows, so every slice of the output starts at a multiple of 16 bytes:
    cuBLAS' fast kernels need that. A product with few rows only reads weights. If a chunk stays in
    the cache between writing and reading it, the memory is read for the codes alone.
    """
    share = cache_bytes // _GPU_CACHE_SHARE
    few = min(max(share, _GPU_LEAST_BYTES), _GPU_BYTES)
    return ChunkBytes(few_rows=few, many_rows=_GPU_BYTES, few=4, height=_GPU_HEIGHT)


_CHUNK_BYTES = ChunkBytes()


class DequantizeKernel(Generic[Q]):
    """Dequantizes rows into a buffer and lets torch multiply; any matrix, any number of rows.

    The weights are those of the reference, so results differ from it only by the order of
    summation: relative Frobenius error below 0.003 in bfloat16, 1e-5 in float32.
    """

    name = "dequantize"

    def __init__(
        self, dequantizers: Dequantizers[Q], chunk_bytes: ChunkBytes = _CHUNK_BYTES
    ) -> None:
        self._dequantizers, self._chunk_bytes = dequantizers, chunk_bytes

    def takes(
        self, rows: int, *, height: int, columns: int, group: int, dtype: torch.dtype
    ) -> bool:
        """Return True: it supports everything that no faster kernel supports."""
        return True

    def multiply(self, x: Tensor, matrix: Q, bias: Tensor | None, scratch: Scratch) -> Tensor:
        """Return x @ matrix.T + bias; see Kernel."""
        return self._multiply(x, matrix, bias, scratch, each=False)

    def multiply_each(
        self, xs: Sequence[Tensor], matrix: Q, bias: Tensor | None, scratch: Scratch
    ) -> list[Tensor]:
        """Dequantize each chunk once for all rows, and multiply row by row; see Kernel."""
        return as_single(self._multiply(as_rows(xs), matrix, bias, scratch, each=True))

    def _multiply(
        self, x: Tensor, matrix: Q, bias: Tensor | None, scratch: Scratch, *, each: bool
    ) -> Tensor:
        return multiply_in_chunks(
            x,
            bias,
            out_features=matrix.rows,
            multiple=matrix.row_multiple,
            fill=self._dequantizers.filler(matrix, x.dtype, scratch),
            scratch=scratch,
            each=each,
            chunk_bytes=self._chunk_bytes,
        )


class QuantizedKernels(KernelList[Q]):
    """The kernels for one kind of quantized matrices; DequantizeKernel comes last.

    dequantizers  those that DequantizeKernel uses, in order of preference
    chunk_bytes   how much DequantizeKernel dequantizes at a time
    in_bytes      multiplies where inputs of 8 bits were asked for; None: nothing here does
    """

    def __init__(
        self,
        *kernels: Kernel[Q],
        dequantizers: Dequantizers[Q],
        chunk_bytes: ChunkBytes = _CHUNK_BYTES,
        in_bytes: Kernel[Q] | None = None,
    ) -> None:
        super().__init__(*kernels, DequantizeKernel(dequantizers, chunk_bytes))
        self.dequantizers, self.chunk_bytes = dequantizers, chunk_bytes
        self.in_bytes = in_bytes

    def preferring(self, kernel: Kernel[Q]) -> QuantizedKernels[Q]:
        """Return the list with another kernel in front."""
        return QuantizedKernels(
            kernel,
            *self.kernels[:-1],
            dequantizers=self.dequantizers,
            chunk_bytes=self.chunk_bytes,
            in_bytes=self.in_bytes,
        )

    def with_bytes(self, kernel: Kernel[Q]) -> QuantizedKernels[Q]:
        """Return the list with a kernel for inputs of 8 bits."""
        return QuantizedKernels(
            *self.kernels[:-1],
            dequantizers=self.dequantizers,
            chunk_bytes=self.chunk_bytes,
            in_bytes=kernel,
        )


def multiply_in_chunks(
    x: Tensor,
    bias: Tensor | None,
    *,
    out_features: int,
    multiple: int,
    fill: Fill,
    scratch: Scratch,
    each: bool = False,
    chunk_bytes: ChunkBytes = _CHUNK_BYTES,
) -> Tensor:
    """Return x @ weight.T + bias for a weight whose rows `fill` dequantizes.

    x         [..., in_features]
    multiple  every chunk of weight rows starts at a multiple of this
    fill      see Fill; its tensor is [rows, in_features]
    each      multiply x row by row: torch's product of several rows may have other last bits
    """
    columns = x.shape[-1]
    flat = x.reshape(-1, columns)
    out = x.new_empty(flat.shape[0], out_features)
    step = chunk_bytes.rows(
        1 if each else flat.shape[0], columns=columns, itemsize=x.itemsize, multiple=multiple
    )
    for start in range(0, out_features, step):
        end = min(start + step, out_features)
        weights = scratch.take("weights", (end - start, columns), x.dtype)
        fill(start, end, weights)
        part = out[:, start:end]
        height = 1 if each else max(1, flat.shape[0])
        for row in range(0, flat.shape[0], height):
            rows, target = flat[row : row + height], part[row : row + height]
            if bias is None:
                torch.mm(rows, weights.t(), out=target)
            else:
                torch.addmm(bias[start:end], rows, weights.t(), out=target)
    return out.view(*x.shape[:-1], out_features)
