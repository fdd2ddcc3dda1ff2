"""The window's access to the engine: a client with its own thread, and a bridge to Qt signals.

`EngineClient` does not use Qt. It makes all blocking calls to the engine process on its thread, so
the window never waits. `EngineBridge` turns its callbacks into signals in the window's thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from msgspec import structs
from PySide6.QtCore import QObject, Signal

from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import (
    AdapterError,
    CheckpointError,
    CogVLM2LiteError,
    EngineError,
    NoFolderError,
)
from cogvlm2_lite.events import Finished
from cogvlm2_lite.worker.client import (
    EngineProcess,
    EngineState,
    News,
    Outcome,
    WorkerEngine,
    error_of,
    ignore_news,
)
from cogvlm2_lite.worker.protocol import Ask, Died, Loaded, LoadFailed, Loading


@dataclass(frozen=True, kw_only=True)
class LoadError:
    """A model that could not be loaded, and why.

    kept  the model before, which is used instead; None without one
    """

    options: LoadOptions
    error: CogVLM2LiteError
    kept: LoadOptions | None = None


_CLOSE_S = 0.4
"""The engine's process has this long to end when the window closes: it has nothing to save."""


def start_process(options: LoadOptions) -> WorkerEngine:
    """Return the real engine process, not started yet. It loads the weights before it is ready."""
    return EngineProcess(options, warm_up=True)


def check_folder(folder: Path) -> None:
    """Read the headers of a model folder and its tokenizer. Raises CheckpointError."""
    from cogvlm2_lite.config import read_config
    from cogvlm2_lite.demo.shipped import model_folder
    from cogvlm2_lite.inputs.tokenizer import Tokenizer
    from cogvlm2_lite.weights.catalog import Catalog

    if not folder.exists():
        raise NoFolderError(
            "There is no folder {name!r}.",
            hint="It was moved or deleted, or its disk is not connected. Choose another folder.",
            name=str(folder),
        )
    model_folder(str(folder))
    try:
        Catalog.open(folder, read_config(folder))
        Tokenizer.from_folder(folder)
    except OSError as error:
        raise CheckpointError(
            "{folder} can't be read: {why}.",
            hint="Check that the disk is connected and that you may read the folder.",
            folder=folder,
            why=error.strerror or error,
        ) from error


def _check_adapters(options: LoadOptions) -> None:
    """Raise AdapterError if a folder is gone, before the model that is used now is released."""
    for choice in options.adapters:
        if not choice.folder.is_dir():
            raise AdapterError(
                "There is no adapter folder {folder}.",
                hint="It was moved or deleted, or its disk is not connected. Choose another one.",
                folder=choice.folder,
            )


class EngineClient:
    """Calls to the engine process, made one after the other on a thread of this class.

    A model is opened in three steps: its folder is checked while the model before goes on, then
    that model is released, then the new one is loaded. If a step fails or is cancelled, the model
    before is used again.

    on_state    called after every change of state, from any thread
    on_news     called with news of the process (loading, loaded, died), from any thread
    on_outcome  called with (request, event or error) of answers, from any thread
    """

    def __init__(
        self,
        make: Callable[[LoadOptions], WorkerEngine] = start_process,
        check: Callable[[Path], None] = check_folder,
    ) -> None:
        self.on_state: Callable[[], None] = lambda: None
        self.on_news: Callable[[News], None] = ignore_news
        self.on_outcome: Callable[[int, Outcome], None] = lambda request, outcome: None
        self._make, self._check = make, check
        self._process: WorkerEngine | None = None
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._numbers = 0
        self._running: dict[int, int] = {}
        self._opening: LoadOptions | None = None
        self._opens = 0
        self._proven = False  # the model of the process was loaded once
        self._before: LoadOptions | None = None  # the model that is used again if loading fails
        self._failure: LoadError | None = None
        self._lent = False
        self._wanted = False  # `restart` was called while the memory was lent

    @property
    def state(self) -> EngineState:
        if self._opening is not None:
            return EngineState.LOADING
        return self._process.state if self._process else EngineState.STOPPED

    @property
    def loaded(self) -> Loaded | None:
        return self._process.loaded if self._process else None

    @property
    def reason(self) -> str:
        """Why the process can't answer, in one sentence; "" if nothing went wrong."""
        return self._process.reason if self._process else ""

    @property
    def failure(self) -> LoadError | None:
        """The model that could not be loaded; None after the next one was loaded or is loading."""
        return self._failure

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def answering(self) -> bool:
        """True while an answer is being generated."""
        return bool(self._running)

    @property
    def lent(self) -> bool:
        """True while another program uses the model's memory."""
        return self._lent

    @property
    def opening(self) -> LoadOptions | None:
        """The model that is being opened; None if there is none."""
        return self._opening

    @property
    def options(self) -> LoadOptions | None:
        """The model that is used, which may be unloaded; None before one was loaded."""
        return self._process.options if self._process else self._before

    def open(self, options: LoadOptions) -> None:
        """Open a model in a new process. If that fails, the model before is kept."""
        self._opening, self._failure = options, None
        self._opens += 1
        self._do(partial(self._open, options, self._opens))
        self.on_state()

    def cancel_open(self) -> None:
        """Stop loading. The model before is used again."""
        self._opens += 1

        def call() -> None:
            if self.state is EngineState.LOADING:
                self._go_back()

        self._do(call)

    def restart(self, options: LoadOptions | None = None) -> None:
        """Start again after a crash, an unload or a failed load. Does nothing before `open`.

        options  of now, which may have changed; None: as before

        While the memory is lent, the model is loaded when it is taken back.
        """
        if self._lent:
            self._wanted = True
            return
        if self.state in (EngineState.READY, EngineState.LOADING):
            return
        if self._process is None and self._failure is not None:
            self.open(options or self._failure.options)
            return
        if self._process is not None and options not in (None, self._process.options):
            self.open(options)
            return

        def call() -> None:
            process = self._process
            if process is None or self._opening is not None:
                return
            self._failure = None
            if process.state is EngineState.EMPTY:
                process.reload()
            elif process.state in (EngineState.DEAD, EngineState.STOPPED):
                self._start(process)

        self._do(call)

    def unload(self) -> None:
        """Free the model's memory; `restart` loads again."""

        def call() -> None:
            if self._process is not None and self._process.state is EngineState.READY:
                self._process.unload()

        self._do(call)

    def lend(self) -> None:
        """Free the memory for another program. No model is loaded until `take_back`."""
        self._lent, self._wanted = True, self.state is EngineState.READY
        self.unload()

    def take_back(self) -> None:
        """Load the model again if it was loaded before `lend`, or was wanted since."""
        if self._lent:
            self._lent = False
            if self._wanted:
                self.restart()

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

    def _open(self, options: LoadOptions, number: int) -> None:
        """Check the folder, release the model before, and start to load the new one."""
        if number != self._opens:  # cancelled, or another one was chosen since
            return
        process = self._process
        try:
            self._check(options.folder)
            _check_adapters(options)
        except CogVLM2LiteError as error:
            self._opening = process.options if process is not None and not self._proven else None
            self._failure = LoadError(options=options, error=error, kept=self.options)
            return
        if process is not None and self._proven:
            self._before = process.options
        self._end()
        self._process, self._proven = self._make(options), False
        self._start(self._process)

    def _start(self, process: WorkerEngine) -> None:
        """Start a process. If that fails, use the model before."""
        process.on_news = partial(self._note, process)
        try:
            process.start()
        except OSError as error:
            self._give_up(
                process,
                EngineError(
                    "The engine can't be started: {why}.",
                    hint="Free some memory, or install the program again.",
                    why=error.strerror or error,
                ),
            )
            return
        if process.state is EngineState.READY:
            self._opened()

    def _opened(self) -> None:
        self._opening = self._before = None
        self._proven = True

    def _note(self, process: WorkerEngine, news: News) -> None:
        """Take news of a process into account, on its own thread."""
        if process is not self._process:
            return
        if isinstance(news, Loaded):
            self._opened()
        elif isinstance(news, LoadFailed):
            self._do(partial(self._give_up, process, error_of(news)))
        elif isinstance(news, Died) and self._opening is not None:
            error = EngineError(
                "The engine ended while it loaded the model: {why}",
                hint="Close other programs, or plan with less memory.",
                why=news.reason,
            )
            self._do(partial(self._give_up, process, error))
        self.on_news(news)
        if not isinstance(news, Loading):
            self.on_state()

    def _give_up(self, process: WorkerEngine, error: CogVLM2LiteError) -> None:
        """Note why a model could not be loaded, and use the one before."""
        if process is not self._process:
            return
        failure = self._failure
        if failure is not None and failure.kept is not None:  # the one before fails, too
            failure = replace(failure, kept=None)
        else:
            failure = LoadError(options=process.options, error=error, kept=self._before)
        self._failure = failure
        if self._opening is not None:
            self._go_back()

    def _go_back(self) -> None:
        """End the process that loads. Start the model before, or be ready to."""
        opened, before = self._opening, self._before
        process = self._process
        self._opening = self._before = None
        if opened is not None and (process is None or process.options is not opened):
            return  # the model before is still there
        self._end(timeout_s=0.0)  # a process that loads reads no command
        if before is not None:
            self._process, self._proven = self._make(before), True
            self._start(self._process)
        elif opened is None and process is not None:
            self._process = self._make(process.options)  # it was loaded again after an unload
        else:
            self._process = None

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
            with suppress(CogVLM2LiteError):  # on_state reports the state and its reason
                call()
            self.on_state()


class EngineBridge(QObject):
    """The callbacks of EngineClient as signals, which arrive in the window's thread.

    state_changed  `client.state` has changed
    news           (Loading, Loaded, LoadFailed, Unloaded or Died)
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
