"""The path of the library of C kernels. No torch here: the memory plan needs it, too."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_NAME = "_kernels_7"
"""The module's name in pyproject.toml. Its number increases with every change of a function's
arguments: an editable installation keeps the old library until the package is installed again, and
the old library must not be called with the new arguments."""


@cache
def built_kernel() -> Path | None:
    """Return the library built from gemv.c, attention.c and gemm_amx.c.

    None if there was no C compiler, or if the built library has another number.
    """
    return next(iter(sorted(Path(__file__).parent.glob(f"{_NAME}.*so"))), None)
