"""The kernels by name: their text, their arguments, and how many threads run them."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

FILES: Final = ("product", "attention", "rows")
_TABLE_BYTES: Final = 1024 * 8
"""The table of 256 pairs of levels, in 8 copies."""

_pointer, _int, _float = ctypes.c_void_p, ctypes.c_int, ctypes.c_float


class Matrix(ctypes.Structure):
    """`Matrix` in product.cu."""

    _fields_ = [(name, _pointer) for name in ("codes", "scales", "outer")]


class Product(ctypes.Structure):
    """`Product` in product.cu."""

    _fields_ = [
        ("x", _pointer),
        ("first", Matrix),
        ("second", Matrix),
        *((name, _pointer) for name in ("levels", "scale_map", "second_map", "bias", "out")),
        *((name, _float) for name in ("offset", "second_offset")),
        *((name, _int) for name in ("inputs", "rows", "columns")),
    ]


class Attention(ctypes.Structure):
    """`Attention` in attention.cu."""

    _fields_ = [
        *(
            (name, _pointer)
            for name in (
                "qkv", "cosines", "sines", "keys", "values", "key_scales", "value_scales", "slot",
                "partial", "out",
            )
        ),
        *((name, _int) for name in ("kv_heads", "capacity", "exact")),
    ]  # fmt: skip


class AddNorm(ctypes.Structure):
    """`AddNorm` in rows.cu."""

    _fields_ = [
        *((name, _pointer) for name in ("x", "added", "weight", "sum", "out")),
        ("columns", _int),
        ("epsilon", _float),
    ]


@dataclass(frozen=True, kw_only=True)
class KernelSource:
    """One kernel.

    file          its file, without the ending
    arguments     the class of its argument
    threads       of a block
    shared_bytes  of a block
    """

    file: str
    arguments: type[ctypes.Structure]
    threads: int
    shared_bytes: int


_PRODUCTS: Final = (
    "product_nested", "product_flat", "product_int8", "product_dense",
    "gated_nested", "gated_flat", "gated_int8",
)  # fmt: skip

KERNELS: Final = MappingProxyType(
    {
        **{
            name: KernelSource(
                file="product", arguments=Product, threads=256, shared_bytes=_TABLE_BYTES + 2 * 1024
            )
            for name in _PRODUCTS
        },
        "attend": KernelSource(
            file="attention", arguments=Attention, threads=256, shared_bytes=10 * 1024
        ),
        "merge": KernelSource(file="attention", arguments=Attention, threads=128, shared_bytes=0),
        "add_norm": KernelSource(file="rows", arguments=AddNorm, threads=256, shared_bytes=1024),
    }
)
"""By name."""


@cache
def text(file: str) -> str:
    """Return the text of a file of this folder."""
    return (Path(__file__).parent / file).read_text(encoding="utf-8")


def source(file: str, *, primitives: str | None = None) -> str:
    """Return a file's complete text for the compiler.

    primitives  replaces primitives.cuh: tests compile the kernels for the CPU
    """
    return (text("primitives.cuh") if primitives is None else primitives) + text(f"{file}.cu")
