"""The owner's side of the engine's process: start it, send requests, detect a crash or a hang.

If the GPU driver crashes, a call never returns, or the system kills the process because memory ran
out, only the engine ends, not the window or server that uses it. This side imports no torch.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from cogvlm2_lite import errors
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import CogVLM2LiteError, EngineError
from cogvlm2_lite.events import Cancel, Event, Finished, Progress
from cogvlm2_lite.inputs.image import OpenedImage
from cogvlm2_lite.memory.plan import MemoryPlan
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.text import Text
from cogvlm2_lite.worker.heartbeat import Patience
from cogvlm2_lite.worker.protocol import (
    Ask,
    CancelRequest,
    Command,
    CutOffError,
    Died,
    Emitted,
    Failed,
    Heartbeat,
    Load,
    Loaded,
    LoadFailed,
    Loading,
    Shutdown,
    Unload,
    Unloaded,
    read_message,
    write_message,
)

Outcome = Event | CogVLM2LiteError
"""What is delivered for an answer: events, then Finished or an error as the last one."""

News = Loading | Loaded | LoadFailed | Unloaded | Died
"""What the engine reports that belongs to no answer."""

_TICK_S = 0.5
"""Seconds between two checks of the watchdog."""

_COMMAND = (sys.executable, "-P", "-m", "cogvlm2_lite.worker.main")


class EngineState(Enum):
    """What the engine can do now."""

    STOPPED = "stopped"
    LOADING = "loading"
    READY = "ready"
    EMPTY = "empty"  # alive, with no model
    DEAD = "dead"


def ignore_news(news: News) -> None:
    """Do nothing."""


class LocalEngine(Protocol):
    """A model loaded in this process: what `ask`, `chat`, `demo` and `doctor` use of a Model.

    adapter  name of the adapter that acts on the next answers; None: none does
    """

    adapter: str | None

    @property
    def adapters(self) -> Sequence[str]:
        """The names of the loaded adapters."""
        ...

    @property
    def plan(self) -> MemoryPlan:
        """The memory plan; see Model.plan."""
        ...

    @property
    def remarks(self) -> Sequence[str]:
        """Sentences about the chosen devices and budgets, for the user."""
        ...

    def warm_up(self) -> Iterator[Progress]:
        """Load the weights that every token needs; see Model.warm_up."""
        ...

    def answer(
        self,
        question: str,
        image: OpenedImage | None = None,
        history: Sequence[tuple[str, str]] = (),
        *,
        sampling: Sampling | None = None,
        template: str | None = None,
        cancel: Cancel | None = None,
        draft_text: str = "",
    ) -> Iterator[Event]:
        """Answer a question; see Model.answer."""
        ...


class WorkerEngine(Protocol):
    """A model in a worker process: what `serve`, `batch` and the window use of EngineProcess.

    on_news  called from another thread with Loading, Loaded, LoadFailed, Unloaded and Died
    """

    options: LoadOptions
    on_news: Callable[[News], None]

    @property
    def state(self) -> EngineState:
        """What the engine can do now."""
        ...

    @property
    def loaded(self) -> Loaded | None:
        """What the engine reported about the model; None while no model is loaded."""
        ...

    @property
    def reason(self) -> str:
        """Why the engine can't answer; "" if nothing went wrong."""
        ...

    @property
    def pid(self) -> int | None:
        """The process id; None while there is no process."""
        ...

    def start(self) -> None:
        """Start the process and the loading of the model; returns immediately."""
        ...

    def wait_ready(self, timeout_s: float | None = None) -> Loaded:
        """Wait until the model is loaded; raises the error of a failed load."""
        ...

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the process; unfinished answers end with EngineError."""
        ...

    def restart(self) -> None:
        """Start a new process; end the current one first if there is one."""
        ...

    def unload(self) -> None:
        """Free the model's memory; the process keeps running."""
        ...

    def reload(self) -> None:
        """Load the model again after `unload`."""
        ...

    def new_request(self) -> int:
        """Return a number for a new Ask."""
        ...

    def submit(self, ask: Ask, deliver: Callable[[Outcome], None]) -> int:
        """Send a question; its outcomes are delivered from another thread, in order.

        Raises EngineError when the engine can't take questions now.
        """
        ...

    def cancel(self, request: int) -> None:
        """Stop an answer within one token; does nothing if it has already ended."""
        ...


_STATES = {
    EngineState.READY: Text("The engine can't answer now."),
    EngineState.STOPPED: Text("The engine is not started."),
    EngineState.LOADING: Text("The engine is loading the model."),
    EngineState.EMPTY: Text("The engine has no model loaded."),
    EngineState.DEAD: Text("The engine has stopped."),
}


class EngineProcess:
    """The engine in its own process. All methods may be called from any thread.

    options   the model folder to open at every start
    on_news   called from a thread of this class with Loading, Loaded, LoadFailed, Unloaded, Died
    warm_up   load the weights that every token needs before the model counts as loaded, and
              report the progress with Loading; False: the first answer loads them
    patience  a process without any message for longer is considered hung, and is ended
    command   starts the process; tests pass others
    """

    def __init__(
        self,
        options: LoadOptions,
        *,
        on_news: Callable[[News], None] = ignore_news,
        warm_up: bool = False,
        patience: Patience | None = None,
        command: Sequence[str] = _COMMAND,
    ) -> None:
        self.options = options
        self.on_news = on_news
        self._warm_up = warm_up
        self._patience = patience or Patience()
        self._command = tuple(command)
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._changed = threading.Condition(self._lock)
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._open: dict[int, Callable[[Outcome], None]] = {}
        self._state = EngineState.STOPPED
        self._stopping = False
        self._loaded: Loaded | None = None
        self._why: CogVLM2LiteError | None = None
        self._messages = 0
        self._last_heartbeat = Heartbeat()

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def loaded(self) -> Loaded | None:
        """What the engine reported about the model; None while no model is loaded."""
        return self._loaded

    @property
    def reason(self) -> Text:
        """Why the engine can't answer, in one sentence; empty if nothing went wrong."""
        return self._why.message if self._why else Text()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process and the loading of the model; returns immediately."""
        with self._lock:
            if self._process is not None:
                raise EngineError("The engine is already started.")
            self._stopping = False
            self._why = None
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=_environment(os.environ),
            )
            self._set_state(EngineState.LOADING)
            self._last_heartbeat = Heartbeat()
            watch = _Watch()
            self._reader = threading.Thread(
                target=self._listen, args=(self._process, watch), name="engine", daemon=True
            )
            self._reader.start()
            threading.Thread(
                target=self._watch_for_hang,
                args=(self._process, watch),
                name="watchdog",
                daemon=True,
            ).start()
            self._send(Load(options=self.options, warm_up=self._warm_up))

    def wait_ready(self, timeout_s: float | None = None) -> Loaded:
        """Wait until the model is loaded.

        Raises the error of a failed load, and EngineError if the process died or time ran out.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._state is not EngineState.LOADING, timeout_s)
            if self._loaded is not None and self._state is EngineState.READY:
                return self._loaded
            raise self._unavailable_error()

    def new_request(self) -> int:
        """Return a number for a new Ask."""
        return next(self._numbers)

    def submit(self, ask: Ask, deliver: Callable[[Outcome], None]) -> int:
        """Send a question; every outcome is delivered from a thread of this class, in order.

        Raises EngineError when the engine can't take questions now.
        """
        with self._lock:
            if self._state is not EngineState.READY:
                raise self._unavailable_error()
            self._open[ask.request] = deliver
            self._send(ask)
        return ask.request

    def cancel(self, request: int) -> None:
        """Stop an answer within one token; does nothing if it has already ended."""
        with self._lock:
            if request in self._open:
                self._send(CancelRequest(request=request))

    def unload(self) -> None:
        """Free the model's memory; the process keeps running. `reload` loads the model again."""
        with self._lock:
            self._send(Unload())

    def reload(self) -> None:
        """Load the model again after `unload`."""
        with self._lock:
            self._set_state(EngineState.LOADING)
            self._send(Load(options=self.options, warm_up=self._warm_up))

    def restart(self) -> None:
        """Start a new process; end the current one first if there is one."""
        self.stop()
        self.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the process; unfinished answers end with EngineError. Does nothing when stopped."""
        with self._lock:
            process, reader = self._process, self._reader
            if process is None:
                return
            self._stopping = True
            for request in list(self._open):
                self.cancel(request)
            self._send(Shutdown())
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if reader is not None and reader is not threading.current_thread():
            reader.join()

    def __enter__(self) -> EngineProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _send(self, command: Command) -> None:
        """Write a command. A broken pipe is ignored here: the reader thread reports it."""
        assert self._process is not None or isinstance(command, Unload | Load)
        if self._process is None:
            raise self._unavailable_error()
        try:
            write_message(cast(BinaryIO, self._process.stdin), command)
        except OSError:
            return

    def _watch_for_hang(self, process: subprocess.Popen[bytes], watch: _Watch) -> None:
        """End the process if it hangs; the reader thread then reports it.

        Silence is counted in checks, not by the clock: while a computer sleeps nothing is checked,
        so waking up is not taken for a hang.
        """
        messages, silent_s = -1, 0.0
        while not watch.over.wait(_TICK_S):
            silent_s = silent_s + _TICK_S if messages == self._messages else 0.0
            messages = self._messages
            watch.hang = self._hang_reason(silent_s)
            if watch.hang:
                process.kill()
                return

    def _hang_reason(self, silent_s: float) -> Text:
        """Return why the process is considered hung; empty if it is not."""
        loading = self._state is EngineState.LOADING
        patience_s = self._patience.loading_s if loading else self._patience.silence_s
        if silent_s > patience_s:
            return Text(
                "The engine stopped responding (no message for {seconds} s) and was ended.",
                seconds=round(silent_s),
            )
        heartbeat = self._last_heartbeat
        if heartbeat.stalled_s > heartbeat.plausible_s:
            return Text(
                "The engine stopped responding (one step took more than {seconds} s) and was "
                "ended.",
                seconds=round(heartbeat.stalled_s),
            )
        return Text()

    def _listen(self, process: subprocess.Popen[bytes], watch: _Watch) -> None:
        """Read reports until the process has ended."""
        stream = cast(BinaryIO, process.stdout)
        broken = Text()
        try:
            while (message := read_message(stream)) is not None:
                self._messages += 1
                match message:
                    case Heartbeat():
                        self._last_heartbeat = message
                    case Emitted() | Failed():
                        self._deliver(message)
                    case Loading():
                        self.on_news(message)
                    case Loaded() | LoadFailed() | Unloaded():
                        self._handle_news(message)
        except CutOffError:
            process.kill()  # it is ending anyway; its exit code says why
        except EngineError as error:
            broken = error.message
            process.kill()
        watch.over.set()
        self._report_exit(process, watch.hang or broken)

    def _deliver(self, message: Emitted | Failed) -> None:
        outcome = message.event if isinstance(message, Emitted) else error_of(message)
        last = isinstance(outcome, Finished | CogVLM2LiteError)
        with self._lock:
            deliver = self._open.get(message.request)
            if last:
                self._open.pop(message.request, None)
        if deliver is not None:
            deliver(outcome)

    def _handle_news(self, news: Loaded | LoadFailed | Unloaded) -> None:
        with self._lock:
            self._loaded = news if isinstance(news, Loaded) else None
            self._why = error_of(news) if isinstance(news, LoadFailed) else None
            self._set_state(EngineState.READY if self._loaded else EngineState.EMPTY)
        self.on_news(news)

    def _report_exit(self, process: subprocess.Popen[bytes], broken: Text) -> None:
        """Report the end of the process and its reason to all open requests and to on_news."""
        code = process.wait()
        for stream in (process.stdout, process.stdin):
            _close(stream)
        with self._lock:
            expected = self._stopping
            stopped = Text("The engine was stopped.")
            reason = stopped if expected else broken or describe_exit(code)
            why = EngineError(reason, hint="" if expected else "It can be started again.")
            waiting = list(self._open.values())
            self._open.clear()
            self._process = None
            self._loaded = None
            self._why = why
            self._set_state(EngineState.STOPPED if expected else EngineState.DEAD)
        for deliver in waiting:
            deliver(why)
        if not expected:
            self.on_news(Died(reason=reason))

    def _set_state(self, state: EngineState) -> None:
        with self._changed:
            self._state = state
            self._changed.notify_all()

    def _unavailable_error(self) -> CogVLM2LiteError:
        if self._why is not None:
            return self._why
        return EngineError(_STATES[self._state], hint="Wait until it is ready.")


class _Watch:
    """What the watchdog and the reader of one process share.

    over  set by the reader when the process has ended
    hang  set by the watchdog: why it killed the process; empty if it did not
    """

    def __init__(self) -> None:
        self.over = threading.Event()
        self.hang = Text()


def error_of(failure: Failed | LoadFailed) -> CogVLM2LiteError:
    """Return the error that the engine's process raised; EngineError for an unknown kind."""
    kind = getattr(errors, failure.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, CogVLM2LiteError)):
        kind = EngineError
    return kind(failure.message, hint=failure.hint, param=failure.param)


def describe_exit(code: int) -> Text:
    """Return one sentence on how a process ended. code: as subprocess returns it."""
    if code >= 0:
        return Text("The engine's process ended by itself with exit code {code}.", code=code)
    name = _signal_name(-code)
    if -code == getattr(signal, "SIGKILL", 9):
        return Text(
            "The engine's process was killed ({signal}). Most often the system does this when "
            "memory runs out.",
            signal=name,
        )
    return Text("The engine's process crashed ({signal}).", signal=name)


def _signal_name(number: int) -> str:
    try:
        return f"signal {number}, {signal.Signals(number).name}"
    except ValueError:
        return f"signal {number}"


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which the process imports this package, in any working folder."""
    home = str(Path(__file__).parents[2])
    paths = [home, *filter(None, own.get("PYTHONPATH", "").split(os.pathsep))]
    return {**own, "PYTHONPATH": os.pathsep.join(paths)}


def _close(stream: object) -> None:
    try:
        cast(BinaryIO, stream).close()
    except OSError:
        return
