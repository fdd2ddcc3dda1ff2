"""Imports the function of a command by its name, only when it is called."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence


def import_target(target: str) -> Callable[[Sequence[str]], int]:
    """Return the function "module:function", which takes arguments and returns an exit code."""
    module, _, function = target.partition(":")
    found: Callable[[Sequence[str]], int] = getattr(importlib.import_module(module), function)
    return found
