"""Asks an engine's process a question and reads the answer as an iterator of events."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from io import BytesIO

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.events import Event, Finished
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.worker.client import Outcome, WorkerEngine
from cogvlm2_lite.worker.protocol import Ask


class SilentAfter(BytesIO):
    """An owner that says no more and stays: without it the process would end at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if not (data := super().read(size)):
            threading.Event().wait()
        return data


class Answer(Iterator[Event]):
    """The events of one answer; raises the error that ends it."""

    def __init__(self, engine: WorkerEngine, ask: Ask) -> None:
        self._engine = engine
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._over = False
        self._request = engine.submit(ask, self._outcomes.put)

    def __next__(self) -> Event:
        if self._over:
            raise StopIteration
        outcome = self._outcomes.get()
        self._over = isinstance(outcome, Finished | CogVLM2LiteError)
        if isinstance(outcome, CogVLM2LiteError):
            raise outcome
        return outcome

    def cancel(self) -> None:
        self._engine.cancel(self._request)


def ask(
    engine: WorkerEngine,
    question: str,
    image: bytes | None = None,
    *,
    sampling: Sampling | None = None,
) -> Answer:
    """Ask a question. Raises EngineError when the engine can't take it now."""
    request = engine.new_request()
    asked = Ask(request=request, question=question, image=image, sampling=sampling or Sampling())
    return Answer(engine, asked)
