"""4-bit matrices on an NVIDIA GPU, multiplied by bitsandbytes' CUDA kernels.

Tolerance against the reference, as relative Frobenius error of the result: 0.004 in bfloat16, 0.001
in float16, 1e-5 in float32 (the same weights, summed in another order).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cogvlm2_lite.weights.kernels.nf4 import SCALE_GROUP
from cogvlm2_lite.weights.storage.nf4 import FourBitArrays

FUSED_MAX_ROWS = 1536
"""Above it bitsandbytes makes the whole matrix plain: 1 GiB of scratch for the 19B's lm_head."""

CHUNK_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True, eq=False)
class CudaFourBitWeight:
    """A 4-bit matrix on a GPU; the pieces stay as they are stored, nothing is packed."""

    arrays: FourBitArrays
    offset: Tensor
    """nested_offset as a float32 scalar on the device."""

    @property
    def kind(self) -> str:
        return self.arrays.quant_type

    @property
    def nbytes(self) -> int:
        return self.arrays.nbytes

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Give x @ weight.T + bias; see StoredWeight and the tolerance above."""
        arrays = self.arrays
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

    def dequantize(self, to: torch.dtype) -> Tensor:
        """Give the plain matrix [out_features, in_features]."""
        return self._dequantize_rows(self._scales(), 0, self.arrays.rows, to)

    def _multiply_in_chunks(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Make some rows plain at a time, so that scratch stays near CHUNK_BYTES."""
        arrays, scales = self.arrays, self._scales()
        multiple = arrays.row_multiple
        step = CHUNK_BYTES // (arrays.columns * x.dtype.itemsize)
        step = max(1, step // multiple) * multiple
        out = x.new_empty(*x.shape[:-1], arrays.rows)
        for start in range(0, arrays.rows, step):
            end = min(start + step, arrays.rows)
            plain = self._dequantize_rows(scales, start, end, x.dtype)
            out[..., start:end] = F.linear(x, plain, None if bias is None else bias[start:end])
        return out

    def _scales(self) -> Tensor:
        arrays = self.arrays
        if arrays.nested_absmax is None:
            return arrays.absmax
        scales: Tensor = torch.ops.bitsandbytes.dequantize_blockwise(
            arrays.absmax, arrays.nested_absmax, arrays.nested_map, SCALE_GROUP, torch.float32
        )
        return scales + self.offset

    def _dequantize_rows(self, scales: Tensor, start: int, end: int, to: torch.dtype) -> Tensor:
        arrays = self.arrays
        first, last = start * arrays.columns, end * arrays.columns
        plain: Tensor = torch.ops.bitsandbytes.dequantize_4bit(
            arrays.codes[first // 2 : -(-last // 2)].view(-1, 1),
            scales[first // arrays.group : -(-last // arrays.group)],
            arrays.group,
            arrays.quant_type,
            [end - start, arrays.columns],
            to,
        )
        return plain


def place_on_cuda(arrays: FourBitArrays) -> CudaFourBitWeight:
    """Make a matrix ready whose tensors are on a GPU already."""
    offset = torch.tensor(arrays.nested_offset, dtype=torch.float32, device=arrays.codes.device)
    return CudaFourBitWeight(arrays=arrays, offset=offset)
