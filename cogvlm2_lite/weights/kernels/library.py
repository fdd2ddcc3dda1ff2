"""The library of our C kernels (gemv.c, gemm_amx.c, attention.c), loaded.

Installing the package builds it if a C compiler is there; without one everything works, slower.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from cogvlm2_lite.weights.kernels.built import built_kernel

AVX2, AVX512 = 1, 2


@dataclass(frozen=True, kw_only=True)
class Library:
    """The functions of the library, and what this processor runs of them.

    level  AVX2, or AVX512 (with VBMI, VNNI and BF16) where the processor has these too
    """

    functions: ctypes.CDLL
    level: int


def open_library() -> Library:
    """Load the library that was built with the package.

    Raises OSError with the reason when there is none, or none for this processor.
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
