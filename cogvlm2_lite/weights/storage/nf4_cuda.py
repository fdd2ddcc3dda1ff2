"""4-bit matrices on an NVIDIA GPU, multiplied by bitsandbytes' CUDA kernels.

Tolerance against the reference, as relative Frobenius error of the result: 0.004 in bfloat16, 0.001
in float16, 1e-5 in float32 (the same weights, summed in another order).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.nf4 import SCALE_GROUP
from cogvlm2_lite.weights.kernels.scratch import Scratch
from cogvlm2_lite.weights.storage.chunks import multiply_in_chunks
from cogvlm2_lite.weights.storage.nf4 import FourBitArrays

FUSED_MAX_ROWS = 1536
"""Above it bitsandbytes makes the whole matrix plain: 1 GiB of scratch for the 19B's lm_head."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CudaFourBitWeight:
    """A 4-bit matrix on a GPU; the pieces stay as they are stored, nothing is packed."""

    arrays: FourBitArrays
    offset: Tensor
    """nested_offset as a float32 scalar on the device."""
    scratch: Scratch

    @property
    def kind(self) -> str:
        return self.arrays.quant_type

    @property
    def nbytes(self) -> int:
        return self.arrays.nbytes

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Give x @ weight.T + bias; see StoredWeight and the tolerance above."""
        arrays = self.arrays
        # bitsandbytes warns and takes its slow path when groups cross rows.
        if x.numel() // x.shape[-1] > FUSED_MAX_ROWS or arrays.columns % arrays.group:
            return self._multiply_in_chunks(x, bias)
        nested = arrays.nested_absmax
        out: Tensor = torch.ops.bitsandbytes.gemm_4bit(
            x,
            arrays.codes.view(-1, 1),
            [arrays.rows, arrays.columns],
            arrays.absmax if nested is None else nested,
            arrays.group,
            arrays.quant_type,
            bias,
            None if nested is None else arrays.absmax,
            None if nested is None else arrays.nested_map,
            None if nested is None else self.offset,
        )
        return out

    def multiply_each(self, xs: Sequence[Tensor], bias: Tensor | None) -> list[Tensor]:
        """Multiply one by one: bitsandbytes has another kernel for several rows than for one."""
        return [self.multiply(x, bias) for x in xs]

    def dequantize(self, to: torch.dtype) -> Tensor:
        """Give the plain matrix [out_features, in_features]."""
        arrays = self.arrays
        out = torch.empty(arrays.rows, arrays.columns, dtype=to, device=arrays.codes.device)
        self._dequantize_rows(self._scales(), 0, arrays.rows, out)
        return out

    def _multiply_in_chunks(self, x: Tensor, bias: Tensor | None) -> Tensor:
        scales = self._scales()

        def fill(start: int, end: int, out: Tensor) -> None:
            self._dequantize_rows(scales, start, end, out)

        return multiply_in_chunks(
            x,
            bias,
            out_features=self.arrays.rows,
            multiple=self.arrays.row_multiple,
            fill=fill,
            scratch=self.scratch,
        )

    def _scales(self) -> Tensor:
        arrays = self.arrays
        if arrays.nested_absmax is None:
            return arrays.absmax
        scales: Tensor = torch.ops.bitsandbytes.dequantize_blockwise(
            arrays.absmax, arrays.nested_absmax, arrays.nested_map, SCALE_GROUP, torch.float32
        )
        return scales + self.offset

    def _dequantize_rows(self, scales: Tensor, start: int, end: int, out: Tensor) -> None:
        """Fill `out` [end - start, in_features]; start is a multiple of row_multiple."""
        arrays = self.arrays
        first, last = start * arrays.columns, end * arrays.columns
        torch.ops.bitsandbytes.dequantize_4bit.out(
            arrays.codes[first // 2 : -(-last // 2)].view(-1, 1),
            scales[first // arrays.group : -(-last // arrays.group)],
            arrays.group,
            arrays.quant_type,
            list(out.shape),
            out.dtype,
            out=out,
        )


def place_on_cuda(arrays: FourBitArrays, scratch: Scratch) -> CudaFourBitWeight:
    """Make a matrix ready whose tensors are on a GPU already."""
    offset = torch.tensor(arrays.nested_offset, dtype=torch.float32, device=arrays.codes.device)
    return CudaFourBitWeight(arrays=arrays, offset=offset, scratch=scratch)
