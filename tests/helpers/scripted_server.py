"""A server on a free port of this machine, over an engine that says what it was told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import CogVLM2LiteError, EngineError
from cogvlm2_lite.events import (
    CandidateToken,
    Event,
    Finished,
    FinishReason,
    Prefilled,
    TextDelta,
    TokenLogprobs,
)
from cogvlm2_lite.server.guard import Access
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.remote import RemotePictures
from cogvlm2_lite.server.run import LocalServer, Options
from cogvlm2_lite.text import Text
from cogvlm2_lite.weights.adapter_choice import AdapterChoice
from cogvlm2_lite.worker.client import EngineState, Outcome, WorkerEngine
from cogvlm2_lite.worker.protocol import Ask, Died, LoadFailed, Unloaded
from tests.helpers.waiting import PATIENCE_S
from tests.helpers.worker_engine import FakeEngine


class ScriptedEngine(FakeEngine):
    """Repeats the question word by word; "wait" in it waits for a cancel or for `go`.

    error  raised instead of an answer
    """

    def __init__(
        self, *, error: CogVLM2LiteError | None = None, loads: bool = True, parallel: int = 1
    ) -> None:
        super().__init__(parallel=parallel)
        self.error = error
        self.extra: list[Event] = []
        self.reloads = 0
        self.reload_error: str | None = None
        self.go = threading.Event()
        self.begun = threading.Event()
        self.over = threading.Event()
        self._loads = loads
        self._lock = threading.Lock()
        self._cancels: dict[int, threading.Event] = {}
        self._dying: EngineError | None = None

    def start(self) -> None:
        self.starts += 1
        self._dying = None
        self.state = EngineState.LOADING
        if self._loads:
            self.load()

    def load(self) -> None:
        self.become_ready()
        assert self.loaded is not None
        self.on_news(self.loaded)

    def stop(self, timeout_s: float = 5.0) -> None:
        super().stop(timeout_s)
        for flag in self._cancels.values():
            flag.set()

    def unload(self) -> None:
        super().unload()
        self.on_news(Unloaded())

    def reload(self) -> None:
        self.reloads += 1
        self.state = EngineState.LOADING
        if self.reload_error is None:
            self.load()
        else:
            self.state, self.reason = EngineState.EMPTY, self.reload_error
            self.on_news(
                LoadFailed(kind="EngineError", message=Text(self.reload_error), hint=Text())
            )

    def die(self) -> None:
        """End as a killed process does."""
        self.reason = "The engine's process was killed (signal 9, SIGKILL)."
        self._dying = EngineError(self.reason)
        self.state = EngineState.DEAD
        self.over.clear()
        self.go.set()
        assert self.over.wait(PATIENCE_S)
        self.go.clear()
        self.on_news(Died(reason=Text(self.reason)))

    def new_request(self) -> int:
        with self._lock:
            return super().new_request()

    def submit(self, ask: Ask, deliver: Callable[[Outcome], None]) -> int:
        self.asked.append(ask)
        self._cancels[ask.request] = threading.Event()
        threading.Thread(target=self._answer, args=(ask, deliver), daemon=True).start()
        return ask.request

    def cancel(self, request: int) -> None:
        self._cancels[request].set()

    def _answer(self, ask: Ask, deliver: Callable[[Outcome], None]) -> None:
        if self.error is not None:
            deliver(self.error)
            return
        for event in self.extra:
            deliver(event)
        deliver(Prefilled(tokens=5, reused_tokens=0, seconds=0.1))
        cancelled = self._cancels[ask.request]
        for word in ask.question.split():
            deliver(TextDelta(text=f" {word}", tokens=scores(f" {word}", ask)))
            self.begun.set()
            while word == "wait" and not (self.go.is_set() or cancelled.is_set()):
                cancelled.wait(0.01)
            if cancelled.is_set() or self._dying:
                break
        deliver(self._dying or finished(ask, cancelled=cancelled.is_set()))
        self.over.set()


def scores(word: str, ask: Ask) -> tuple[TokenLogprobs, ...]:
    """Score a word as one token, when that was asked for."""
    if ask.sampling.logprobs is None:
        return ()
    one = CandidateToken(token=word, data=tuple(word.encode(errors="replace")), logprob=-0.5)
    return (TokenLogprobs(chosen=one, top=(one,) * ask.sampling.logprobs),)


def finished(ask: Ask, *, cancelled: bool = False) -> Finished:
    count = len(ask.question.split())
    return Finished(
        text=ask.question,
        reason=FinishReason.CANCELLED if cancelled else FinishReason.EOS,
        prompt_tokens=5 + (9 if ask.image else 0),
        image_tokens=9 if ask.image else 0,
        completion_tokens=count + 1,
        encode_s=0.0,
        prefill_s=0.1,
        decode_s=0.1,
    )


@contextmanager
def running(
    engine: WorkerEngine | None = None,
    *,
    access: Access | None = None,
    limits: Limits | None = None,
    max_waiting: int = 8,
    grace_s: float = 0.1,
    pictures: RemotePictures | None = None,
    model: str = "scripted",
    adapters: Sequence[str] = (),
) -> Iterator[LocalServer]:
    """Run a server in a thread; it is stopped at the end."""
    options = Options(
        load=LoadOptions(
            folder=Path("nowhere"),
            adapters=tuple(AdapterChoice(name=name, folder=Path(name)) for name in adapters),
        ),
        model=model,
        access=access or Access(),
        port=0,
        limits=limits or Limits(strict=True),
        max_waiting=max_waiting,
        grace_s=grace_s,
    )
    server = LocalServer(options, engine or ScriptedEngine(), pictures)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
