"""Loads the library of our C kernels (integer.c, gemv.c, gemm_amx.c, attention.c, ...).

It is built when the package is installed, if there is a C compiler. Without it everything works,
but slower.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.weights.kernels.built import built_kernel

CPU_LEVEL = "COGVLM2_LITE_CPU_LEVEL"
"""The environment variable that names the highest level of instructions to use."""

AVX2, AVX_VNNI, AVX512, AMX = 1, 2, 3, 4
"""Levels of instructions as in matrix.h; the plain C functions for tests are level 0."""

LEVEL_NAMES: Mapping[str, int] = MappingProxyType(
    {"avx2": AVX2, "avx-vnni": AVX_VNNI, "avx512": AVX512, "amx": AMX}
)


@dataclass(frozen=True, kw_only=True)
class Library:
    """The functions of the library, and the instruction set that this CPU supports.

    level  AVX2; AVX_VNNI; AVX512 if the CPU has AVX512 with VBMI, VNNI and BF16; AMX if it also
           has AMX for int8 and bfloat16. The environment variable CPU_LEVEL lowers it.
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


def highest_level() -> int:
    """Return the level that the environment variable CPU_LEVEL names; the highest if not set."""
    name = os.environ.get(CPU_LEVEL) or "amx"
    if name not in LEVEL_NAMES:
        raise UsageError(
            "Unknown level of instructions {name!r} in {variable}.",
            hint="Use one of {names}.",
            name=name,
            variable=CPU_LEVEL,
            names=", ".join(LEVEL_NAMES),
        )
    return LEVEL_NAMES[name]
