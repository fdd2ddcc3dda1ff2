"""Packages that only some commands need, and that pip installs as an extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cogvlm2_lite.errors import UsageError


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Raise UsageError with what to install if an import inside finds no package."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(
            "This command needs the package {package}, which is not installed.",
            hint='Install it: pip install "cogvlm2-lite[{extra}]"',
            package=error.name,
            extra=extra,
        ) from None
