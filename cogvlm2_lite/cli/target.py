"""Imports a command's function by its name, so that nothing is imported before it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence


def import_target(target: str) -> Callable[[Sequence[str]], int]:
    """Return the function that "module:function" names: arguments in, exit code out."""
    module, _, function = target.partition(":")
    found: Callable[[Sequence[str]], int] = getattr(importlib.import_module(module), function)
    return found
