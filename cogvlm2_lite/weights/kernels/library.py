"""Loads the library of our C kernels (integer.c, gemv.c, gemm_amx.c, attention.c, ...).

It is built when the package is installed, if there is a C compiler. Without it everything works,
but slower.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from cogvlm2_lite.backends.cpu_level import (
    AMX,
    AVX2,
    AVX512,
    AVX512_VNNI,
    AVX_VNNI,
    CPU_LEVEL,
    LEVEL_NAMES,
    highest_level,
)
from cogvlm2_lite.weights.kernels.built import built_kernel

__all__ = [
    "AMX",
    "AVX2",
    "AVX512",
    "AVX512_VNNI",
    "AVX_VNNI",
    "CPU_LEVEL",
    "LEVEL_NAMES",
    "Library",
    "open_library",
]


@dataclass(frozen=True, kw_only=True)
class Library:
    """The functions of the library, and the instruction set that this CPU supports.

    level  AVX2; AVX_VNNI; AVX512_VNNI if the CPU has AVX512 with VBMI and VNNI; AVX512 if it also
           has AVX512-BF16; AMX if it also has AMX for int8 and bfloat16. The environment variable
           CPU_LEVEL lowers it.
    """

    functions: ctypes.CDLL
    level: int


def open_library() -> Library:
    """Return the library that was built with the package.

    Raises OSError with the reason if it is missing or does not support this CPU, and UsageError if
    CPU_LEVEL names no level.
    """
    file = built_kernel()
    if file is None:
        raise OSError(
            "our C kernel was not built: no C compiler when the package was installed, or its "
            "sources changed since (then install it again)"
        )
    functions = ctypes.CDLL(str(file))
    level = int(functions.cpu_level(highest_level()))
    if level == 0:
        raise OSError("our C kernel needs a processor with AVX2")
    return Library(functions=functions, level=level)
