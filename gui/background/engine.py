"""The window's access to the engine: a client with its own thread, and a bridge to Qt signals.

`EngineClient` does not use Qt. It makes all blocking calls to the engine process on its thread, so
the window never waits. `EngineBridge` turns its callbacks into signals in the window's thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from msgspec import structs
from PySide6.QtCore import QObject, Signal

from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import CogVLM2LiteError, EngineError
from cogvlm2_lite.events import Finished
from cogvlm2_lite.text import Text
from cogvlm2_lite.worker.client import (
    EngineProcess,
    EngineState,
    News,
    Outcome,
    WorkerEngine,
    ignore_news,
)
from cogvlm2_lite.worker.protocol import Ask, Loaded

_CLOSE_S = 0.4
"""The engine's process has this long to end when the window closes: it has nothing to save."""


def start_process(options: LoadOptions) -> WorkerEngine:
    """Return the real engine process, not started yet."""
    return EngineProcess(options)


class EngineClient:
    """Calls to the engine process, made one after the other on a thread of this class.

    on_state    called after every change of state, from any thread
    on_news     called with news of the process (loaded, died), from any thread
    on_outcome  called with (request, event or error) of answers, from any thread
    """

    def __init__(self, make: Callable[[LoadOptions], WorkerEngine] = start_process) -> None:
        self.on_state: Callable[[], None] = lambda: None
        self.on_news: Callable[[News], None] = ignore_news
        self.on_outcome: Callable[[int, Outcome], None] = lambda request, outcome: None
        self._make = make
        self._process: WorkerEngine | None = None
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._numbers = 0
        self._running: dict[int, int] = {}
        self._start_error = Text()

    @property
    def state(self) -> EngineState:
        return self._process.state if self._process else EngineState.STOPPED

    @property
    def loaded(self) -> Loaded | None:
        return self._process.loaded if self._process else None

    @property
    def reason(self) -> str:
        return self._start_error or (self._process.reason if self._process else "")

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def answering(self) -> bool:
        """True while an answer is being generated."""
        return bool(self._running)

    @property
    def options(self) -> LoadOptions | None:
        """The options of the last `open`; None before the first one."""
        return self._process.options if self._process else None

    def open(self, options: LoadOptions) -> None:
        """Open a model in a new process; the old process is stopped first."""

        def call() -> None:
            self._end()
            self._process = self._make(options)
            self._process.on_news = self._note
            self._process.start()

        self._do(call)

    def restart(self) -> None:
        """Start again after a crash or an unload. Does nothing before the first `open`."""

        def call() -> None:
            process = self._process
            if process is None:
                return
            if process.state is EngineState.EMPTY:
                process.reload()
            elif process.state in (EngineState.DEAD, EngineState.STOPPED):
                process.start()

        self._do(call)

    def unload(self) -> None:
        """Free the model's memory; `restart` loads again."""

        def call() -> None:
            if self._process is not None and self._process.state is EngineState.READY:
                self._process.unload()

        self._do(call)

    def ask(self, ask: Ask) -> int:
        """Send a question and return its number for `on_outcome`. `ask.request` is replaced."""
        self._numbers += 1
        number = self._numbers
        self._do(lambda: self._submit(number, ask))
        return number

    def cancel(self, number: int) -> None:
        """Stop an answer within one token; it still ends with Finished."""

        def call() -> None:
            request = self._running.get(number)
            if request is not None and self._process is not None:
                self._process.cancel(request)

        self._do(call)

    def close(self) -> None:
        """Stop the process and the thread, and wait for both. A busy process is killed."""
        if self._thread is None:
            return
        self._do(partial(self._end, timeout_s=_CLOSE_S))
        self._calls.put(None)
        self._thread.join()
        self._thread = None

    def _submit(self, number: int, ask: Ask) -> None:
        process = self._process
        if process is None:
            self.on_outcome(number, EngineError("No model is open.", hint="Open one first."))
            return
        request = process.new_request()
        self._running[number] = request

        def deliver(outcome: Outcome) -> None:
            if isinstance(outcome, Finished | CogVLM2LiteError):
                self._running.pop(number, None)
            self.on_outcome(number, outcome)

        try:
            process.submit(structs.replace(ask, request=request), deliver)
        except CogVLM2LiteError as error:
            deliver(error)

    def _note(self, news: News) -> None:
        self.on_news(news)
        self.on_state()

    def _end(self, timeout_s: float = 5.0) -> None:
        if self._process is not None:
            self._process.on_news = ignore_news
            self._process.stop(timeout_s)

    def _do(self, call: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="engine calls", daemon=True)
            self._thread.start()
        self._calls.put(call)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            self._start_error = Text()
            try:
                with suppress(CogVLM2LiteError):  # on_state reports the state and its reason
                    call()
            except OSError as error:
                self._start_error = Text(
                    "The engine can't be started: {why}.", why=error.strerror or error
                )
            self.on_state()


class EngineBridge(QObject):
    """The callbacks of EngineClient as signals, which arrive in the window's thread.

    state_changed  `client.state` has changed
    news           (Loaded, LoadFailed, Unloaded or Died)
    outcome        (number, event or error) of an answer
    """

    state_changed = Signal()
    news = Signal(object)
    outcome = Signal(int, object)

    def __init__(self, client: EngineClient, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.client = client
        client.on_state = self.state_changed.emit
        client.on_news = self.news.emit
        client.on_outcome = self.outcome.emit
