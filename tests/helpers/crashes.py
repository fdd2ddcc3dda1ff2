"""Conversions that end in the middle."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cogvlm2_lite.weights.writer import Data, ShardLayout, ShardWriter
from tests.helpers.conversion import CHECKPOINT, QUICK, quantize


class Crash(BaseException):
    """The end of a process, as far as the code can notice it."""


class Fuse:
    """Makes writers that do something at the n-th write."""

    def __init__(self, writes: int, action: Callable[[], None]) -> None:
        self.left, self.action = writes, action

    def __call__(self, file: Path, layout: ShardLayout, *, keep: int = 0) -> ShardWriter:
        return FusedWriter(file, layout, keep=keep, fuse=self)

    def burn(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.action()


class FusedWriter(ShardWriter):
    def __init__(self, file: Path, layout: ShardLayout, *, keep: int, fuse: Fuse) -> None:
        super().__init__(file, layout, keep=keep)
        self._fuse = fuse

    def write(self, data: Data) -> None:
        self._fuse.burn()
        super().write(data)


def crash() -> None:
    raise Crash


def disk_full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def crash_after(destination: Path, writes: int, action: Callable[[], None] = crash) -> None:
    """Start a conversion that ends early; every tensor is committed by itself."""
    fused = replace(QUICK, writer=Fuse(writes, action), sync_bytes=1)
    with pytest.raises(Crash):
        quantize(CHECKPOINT, destination, effort=fused)
