"""The levels of a CPU's instructions, and the highest one that may be used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType

from cogvlm2_lite.errors import UsageError

CPU_LEVEL = "COGVLM2_LITE_CPU_LEVEL"
"""The environment variable that names the highest level of instructions to use."""

AVX2, AVX_VNNI, AVX512_VNNI, AVX512, AMX = 1, 2, 3, 4, 5
"""Levels of instructions as in matrix.h; the plain C functions for tests are level 0."""

LEVEL_NAMES: Mapping[str, int] = MappingProxyType(
    {
        "avx2": AVX2,
        "avx-vnni": AVX_VNNI,
        "avx512-vnni": AVX512_VNNI,
        "avx512": AVX512,
        "amx": AMX,
    }
)


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
