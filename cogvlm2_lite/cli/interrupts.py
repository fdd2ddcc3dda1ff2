"""What Ctrl-C does while work must not be cut off in the middle."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cogvlm2_lite.events import Cancel


@contextmanager
def stopped_by_interrupt(cancel: Cancel) -> Iterator[None]:
    """Let Ctrl-C set the cancel flag inside the block; a second Ctrl-C raises KeyboardInterrupt.

    The engine must finish its token, or the next question would find an incomplete key/value cache;
    a training run must finish its step, so that its state can be saved.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if cancel.is_set:
            raise KeyboardInterrupt
        cancel.set()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
