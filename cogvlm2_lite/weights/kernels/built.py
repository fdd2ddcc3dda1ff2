"""The path of the library of C kernels. No torch here: the memory plan needs it, too."""

from __future__ import annotations

from functools import cache
from pathlib import Path

NAME = "_kernels_15"
"""The module's name in pyproject.toml. Its number increases with every change of a function's
arguments: an editable installation keeps the old library until the package is installed again, and
the old library must not be called with the new arguments."""


@cache
def built_kernel(folder: Path = Path(__file__).parent) -> Path | None:
    """Return the library built from the C files into the package's folder.

    None if there was no C compiler, or if the built library has another number.
    """
    return next(iter(sorted(folder.glob(f"{NAME}.*so"))), None)
