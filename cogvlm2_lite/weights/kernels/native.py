"""bitsandbytes' CPU library, called directly.

Calling it by hand lets results go into buffers that are used again. Through torch.ops each call
gets a fresh one, whose page faults cost eight times the arithmetic (58 against 7 ms for 59 M
weights). It also leaves out `import bitsandbytes` (2.6 s, and a warning in the log on every start).
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

from cogvlm2_lite.weights.kernels.nf4 import SCALE_GROUP

_LARGEST_GROUP = 1024  # bitsandbytes itself leaves its AVX512 code above this, for its accuracy
_TYPE_NAMES: Mapping[torch.dtype, str] = MappingProxyType(
    {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
)


class NativeKernels:
    """The functions of the library, with every size checked before it is called.

    has_packed   True where the CPU has AVX512-BF16, which multiply_packed needs
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self.has_packed = bool(library.has_avx512bf16_cpu())

    def can_dequantize(self, *, group: int, dtype: torch.dtype) -> bool:
        """Say whether `dequantize` takes this group size and output type."""
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
        _require(codes, torch.uint8, -(-total // 2))
        _require(absmax, torch.float32, -(-total // group))
        _require(out, out.dtype, total)
        if columns % group:
            # Given rows, the library restarts the groups in each of them; bitsandbytes' format
            # does not. One long row is right, though it runs on one thread.
            rows, columns = 1, total
        name = f"cdequantize_blockwise_cpu_{quant_type}_{_TYPE_NAMES[out.dtype]}"
        self._library[name](
            _pointer(codes), _pointer(absmax), _pointer(out), *_longs(group, rows, columns)
        )

    def expand_scales(
        self, absmax: Tensor, nested_absmax: Tensor, nested_map: Tensor, offset: float, out: Tensor
    ) -> None:
        """Fill `out` with float32 scales, bit-identical to nf4.expand_scales.

        absmax [groups] uint8, nested_absmax [groups / 256 rounded up] float32, nested_map [256]
        float32, out [groups] float32
        """
        total = out.numel()
        _require(absmax, torch.uint8, total)
        _require(nested_absmax, torch.float32, -(-total // SCALE_GROUP))
        _require(nested_map, torch.float32, 256)
        _require(out, torch.float32, total)
        self._library.cdequantize_blockwise_cpu_fp32(
            _pointer(nested_map), _pointer(absmax), _pointer(nested_absmax), _pointer(out),
            *_longs(SCALE_GROUP, total),
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
        _require(x, torch.bfloat16, rows * columns)
        _require(packed, torch.uint8, features * columns // 2)
        _require(scales, torch.bfloat16, features * columns // group)
        _require(out, torch.bfloat16, rows * features)
        call = self._library[f"gemv_4bit_inference_cpu_{quant_type}_bf16"]
        call(
            *_longs(rows, features, columns),
            _pointer(x), _pointer(packed), _pointer(scales), _pointer(out),
            *_longs(group, columns, features),
        )  # fmt: skip


def open_native() -> NativeKernels:
    """Load the library that lies in the bitsandbytes package.

    Raises OSError with the reason when there is none or it does not load.
    """
    spec = importlib.util.find_spec("bitsandbytes")
    if spec is None or not spec.submodule_search_locations:
        raise OSError("bitsandbytes is not installed")
    suffix = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
    file = Path(spec.submodule_search_locations[0], f"libbitsandbytes_cpu{suffix}")
    try:
        return NativeKernels(ctypes.CDLL(str(file)))
    except AttributeError as error:
        raise OSError(f"bitsandbytes' CPU library lacks a function: {error}") from error


def _require(tensor: Tensor, dtype: torch.dtype, count: int) -> None:
    """Assert what the C code takes on trust."""
    assert tensor.device.type == "cpu"
    assert tensor.dtype == dtype, f"{tensor.dtype} is not {dtype}"
    assert tensor.is_contiguous()
    assert tensor.numel() >= count, f"{tensor.numel()} elements, {count} needed"


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _longs(*numbers: int) -> tuple[ctypes.c_longlong, ...]:
    return tuple(ctypes.c_longlong(number) for number in numbers)
