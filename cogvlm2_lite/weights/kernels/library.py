"""Loads the library of our C kernels (gemv.c, gemm_amx.c, attention.c).

It is built when the package is installed, if there is a C compiler. Without it everything works,
but slower.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from cogvlm2_lite.weights.kernels.built import built_kernel

AVX2, AVX512 = 1, 2


@dataclass(frozen=True, kw_only=True)
class Library:
    """The functions of the library, and the instruction set that this CPU supports.

    level  AVX2, or AVX512 if the CPU has AVX512 with VBMI, VNNI and BF16
    """

    functions: ctypes.CDLL
    level: int


def open_library() -> Library:
    """Return the library that was built with the package.

    Raises OSError with the reason if it is missing or does not support this CPU.
    """
    file = built_kernel()
    if file is None:
        raise OSError(
            "our C kernel was not built: no C compiler when the package was installed, or its "
            "sources changed since (then install it again)"
        )
    functions = ctypes.CDLL(str(file))
    level = int(functions.gemv_level())
    if level == 0:
        raise OSError("our C kernel needs a processor with AVX2")
    return Library(functions=functions, level=level)
