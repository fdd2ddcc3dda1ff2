"""Progress notifications of one tool call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from cogvlm2_lite.events import Event, Progress, TextDelta

Report = Callable[[float, float | None, str | None], Awaitable[None]]
"""Sends the progress, the total if it is known, and a message."""

_PHASES = {
    "load": "Loading weights",
    "encode": "Encoding the picture",
    "prefill": "Computing the prompt",
}
_WAITING = "Waiting for the model"
_PAUSE_S = 1.0
"""Seconds between two notifications about the answer's length."""
SILENT_S = 5.0
"""Seconds without a notification after which one is repeated, so that clients do not give up."""


class ProgressReport:
    """Converts the events of an answer to progress that only increases, as the protocol requires.

    The blocks of each phase are added to those of the phases before it.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._phase = ""
        self._before = 0
        self._total = 0
        self._tokens = 0
        self._sent = 0.0
        self._message = _WAITING
        self._sent_at = asyncio.get_running_loop().time()

    async def show(self, event: Event) -> None:
        """Send what an event means for the progress."""
        match event:
            case Progress(phase="decode"):
                if self._silence_s >= _PAUSE_S:
                    done = self._before + self._total + self._tokens + event.done / event.total
                    await self._send(done, None, f"Writing the answer ({self._tokens})")
            case Progress():
                if event.phase != self._phase:
                    self._before, self._phase = self._before + self._total, event.phase
                self._total = event.total
                message = _PHASES.get(event.phase, event.phase)
                await self._send(self._before + event.done, self._before + event.total, message)
            case TextDelta():
                self._tokens += 1
                if self._silence_s >= _PAUSE_S or self._tokens == 1:
                    message = f"Writing the answer ({self._tokens})"
                    await self._send(self._before + self._total + self._tokens, None, message)

    @asynccontextmanager
    async def repeated(self) -> AsyncIterator[None]:
        """Send notifications also while nothing happens."""
        task = asyncio.get_running_loop().create_task(self._repeat())
        try:
            yield
        finally:
            task.cancel()

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(max(SILENT_S - self._silence_s, 0.1))
            if self._silence_s >= SILENT_S:
                await self._send(self._sent + 0.001, None, self._message)

    @property
    def _silence_s(self) -> float:
        return asyncio.get_running_loop().time() - self._sent_at

    async def _send(self, progress: float, total: float | None, message: str) -> None:
        if progress <= self._sent:
            return
        self._sent, self._message = progress, message
        self._sent_at = asyncio.get_running_loop().time()
        await self._report(progress, total, message)
