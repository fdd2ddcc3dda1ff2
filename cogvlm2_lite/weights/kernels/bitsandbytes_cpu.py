"""bitsandbytes' CPU library, called directly.

Direct calls can write results into reused buffers. Through torch.ops each call allocates a new
buffer, whose page faults take eight times as long as the arithmetic (58 ms versus 7 ms for 59 M
weights). They also avoid `import bitsandbytes` (2.6 s, and a warning in the log at every start).
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.calls import longs, pointer, require
from cogvlm2_lite.weights.kernels.interface import Fill
from cogvlm2_lite.weights.kernels.matrix import SCALE_GROUP, FourBitMatrix
from cogvlm2_lite.weights.kernels.scales import fill_in_windows
from cogvlm2_lite.weights.kernels.scratch import Scratch

_LARGEST_GROUP = 1024  # above this bitsandbytes does not use its AVX512 code, for accuracy
_TYPE_NAMES: Mapping[torch.dtype, str] = MappingProxyType(
    {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
)


class BitsandbytesCpu:
    """Calls the functions of the library after checking all sizes.

    has_packed   True if the CPU has AVX512-BF16, which multiply_packed needs
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self.has_packed = bool(library.has_avx512bf16_cpu())

    def can_dequantize(self, *, group: int, dtype: torch.dtype) -> bool:
        """Return True if `dequantize` supports this group size and output type."""
        return group <= _LARGEST_GROUP and dtype in _TYPE_NAMES

    def dequantize(
        self, codes: Tensor, absmax: Tensor, out: Tensor, *, quant_type: str, group: int
    ) -> None:
        """Fill `out` with the weights, bit-identical to dequantize_reference.

        codes   uint8, two per byte, high half first; at least out.numel() / 2 of them
        absmax  float32, one per group, counted from the first code
        out     contiguous float32, bfloat16 or float16 with whole rows of the matrix
        """
        rows, columns = out.shape
        total = rows * columns
        require(codes, torch.uint8, -(-total // 2))
        require(absmax, torch.float32, -(-total // group))
        require(out, out.dtype, total)
        if columns % group:
            # The library starts new groups in each row; bitsandbytes' format does not. Passing one
            # long row is correct, but runs on one thread.
            rows, columns = 1, total
        name = f"cdequantize_blockwise_cpu_{quant_type}_{_TYPE_NAMES[out.dtype]}"
        self._library[name](
            pointer(codes), pointer(absmax), pointer(out), *longs(group, rows, columns)
        )

    def expand_scales(
        self, absmax: Tensor, nested_absmax: Tensor, nested_map: Tensor, offset: float, out: Tensor
    ) -> None:
        """Fill `out` with float32 scales, bit-identical to nf4.expand_scales.

        absmax [groups] uint8, nested_absmax [groups / 256 rounded up] float32, nested_map [256]
        float32, out [groups] float32
        """
        total = out.numel()
        require(absmax, torch.uint8, total)
        require(nested_absmax, torch.float32, -(-total // SCALE_GROUP))
        require(nested_map, torch.float32, 256)
        require(out, torch.float32, total)
        self._library.cdequantize_blockwise_cpu_fp32(
            pointer(nested_map), pointer(absmax), pointer(nested_absmax), pointer(out),
            *longs(SCALE_GROUP, total),
        )  # fmt: skip
        out.add_(torch.tensor(offset, dtype=torch.float32))

    def multiply_packed(
        self, x: Tensor, packed: Tensor, scales: Tensor, out: Tensor, *, quant_type: str, group: int
    ) -> None:
        """Fill `out` with x @ weight.T, for a weight in the packed layout (see kernels/packed.py).

        x       [rows, in_features] bfloat16, contiguous
        packed  [out_features, in_features / 2] uint8
        scales  [in_features / group, out_features] bfloat16
        out     [rows, out_features] bfloat16, contiguous
        """
        (rows, columns), features = x.shape, out.shape[1]
        require(x, torch.bfloat16, rows * columns)
        require(packed, torch.uint8, features * columns // 2)
        require(scales, torch.bfloat16, features * columns // group)
        require(out, torch.bfloat16, rows * features)
        call = self._library[f"gemv_4bit_inference_cpu_{quant_type}_bf16"]
        call(
            *longs(rows, features, columns),
            pointer(x), pointer(packed), pointer(scales), pointer(out),
            *longs(group, columns, features),
        )  # fmt: skip


class BitsandbytesDequantizer:
    """Dequantizes through the library."""

    def __init__(self, library: BitsandbytesCpu) -> None:
        self._library = library

    def takes(self, *, columns: int, group: int, dtype: torch.dtype) -> bool:
        """Return True for the groups and dtypes that the library supports; see Dequantizer."""
        return self._library.can_dequantize(group=group, dtype=dtype)

    def filler(self, matrix: FourBitMatrix, scratch: Scratch) -> Fill:
        """Return a function that dequantizes rows; see Dequantizer."""

        def fill(codes: Tensor, absmax: Tensor, out: Tensor) -> None:
            self._library.dequantize(
                codes, absmax, out, quant_type=matrix.quant_type, group=matrix.group
            )

        return fill_in_windows(matrix, self._library.expand_scales, scratch, fill)


def open_bitsandbytes() -> BitsandbytesCpu:
    """Return the library from the bitsandbytes package.

    Raises OSError with the reason if it is missing or does not load.
    """
    spec = importlib.util.find_spec("bitsandbytes")
    if spec is None or not spec.submodule_search_locations:
        raise OSError("bitsandbytes is not installed")
    suffix = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
    file = Path(spec.submodule_search_locations[0], f"libbitsandbytes_cpu{suffix}")
    try:
        return BitsandbytesCpu(ctypes.CDLL(str(file)))
    except AttributeError as error:
        raise OSError(f"bitsandbytes' CPU library lacks a function: {error}") from error
