"""Where the library of C kernels is. No torch here: the memory plan asks, too."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_NAME = "_kernels_7"
"""The module's name in pyproject.toml. Its number grows with every change of what a function takes:
in an editable installation the library stays the old one until the package is installed again, and
must not be called like the new one."""


@cache
def built_kernel() -> Path | None:
    """Return the library built from gemv.c, attention.c and gemm_amx.c.

    None where there was no C compiler, or the sources have changed too much since.
    """
    return next(iter(sorted(Path(__file__).parent.glob(f"{_NAME}.*so"))), None)
