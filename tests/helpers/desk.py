"""A window with an engine that answers what a test wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytestqt.qtbot import QtBot

from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import CogVLM2LiteError, EngineError
from cogvlm2_lite.events import Event, Finished, FinishReason, TextDelta
from cogvlm2_lite.worker.client import EngineState, Outcome
from cogvlm2_lite.worker.protocol import Ask, Loaded, LoadFailed, Loading
from gui.app import Program
from gui.chat.page import ChatPage
from tests.helpers.worker_engine import FakeEngine


def finished(
    text: str, reason: FinishReason = FinishReason.EOS, token_ids: tuple[int, ...] = ()
) -> Finished:
    return Finished(
        text=text, reason=reason, prompt_tokens=30, image_tokens=18, completion_tokens=5,
        encode_s=0.5, prefill_s=0.25, decode_s=1.0, token_ids=token_ids,
    )  # fmt: skip


@dataclass
class Script:
    """What the engines of a test do with every question; a test may change it at any time.

    events  delivered at once
    hold    keep answers open after their events, until `let_go` or a cancel
    ends    the reason with which an answer finishes
    starts  False: the process can't be started
    loads   False: a model stays loading until `end_load` or `fail_load` of its process
    """

    events: Sequence[Event] = (TextDelta(text="It is "), TextDelta(text="**red**."))
    hold: bool = False
    ends: FinishReason = FinishReason.EOS
    starts: bool = True
    loads: bool = True


class ScriptedProcess(FakeEngine):
    """An engine's process without a process: every question gets what the script says."""

    def __init__(self, options: LoadOptions, script: Script | None = None) -> None:
        super().__init__(options)
        self.script = script or Script()
        self._open: dict[int, Callable[[Outcome], None]] = {}

    def start(self) -> None:
        if not self.script.starts:
            raise FileNotFoundError(2, "No such file or directory")
        if self.script.loads:
            super().start()
        else:
            self.starts, self.state = self.starts + 1, EngineState.LOADING

    def reload(self) -> None:
        if self.script.loads:
            super().reload()
        else:
            self.state = EngineState.LOADING

    def report_load(self, done_bytes: int, total_bytes: int) -> None:
        """Report how much of the model is loaded."""
        self.on_news(Loading(done_bytes=done_bytes, total_bytes=total_bytes))

    def end_load(self) -> None:
        """End a load that `loads` keeps open."""
        self.loaded = Loaded(plan={}, compute="cpu, float32: because", context=64, image_tokens=9)
        self.become_ready()
        self.on_news(self.loaded)

    def fail_load(self, error: CogVLM2LiteError) -> None:
        """Let the model not be opened."""
        self.state, self.reason = EngineState.EMPTY, error.message
        self.on_news(LoadFailed(kind=type(error).__name__, message=error.message, hint=error.hint))

    def become_ready(self) -> None:
        self.state, self.reason = EngineState.READY, ""  # nothing is reported about the model

    def submit(self, ask: Ask, deliver: Callable[[Outcome], None]) -> int:
        self.asked.append(ask)
        for event in self.script.events:
            deliver(event)
        self._open[ask.request] = deliver
        if not self.script.hold:
            self.let_go()
        return ask.request

    @property
    def open_answers(self) -> int:
        return len(self._open)

    def cancel(self, request: int) -> None:
        text = self._text()
        self._open.pop(request)(finished(text, FinishReason.CANCELLED, token_ids=(7, 8, 9)))

    def let_go(self) -> None:
        for request in list(self._open):
            self._open.pop(request)(finished(self._text(), self.script.ends))

    def die(self, why: str) -> None:
        self.state, self.reason = EngineState.DEAD, why
        for request in list(self._open):
            self._open.pop(request)(EngineError(why, hint="Start it again."))

    def _text(self) -> str:
        return "".join(e.text for e in self.script.events if isinstance(e, TextDelta))


class Desk:
    """A window with its scripted engine."""

    def __init__(self, program: Program, made: list[ScriptedProcess], qtbot: QtBot) -> None:
        self.program, self._made, self.qtbot = program, made, qtbot

    @property
    def chat(self) -> ChatPage:
        page = self.program.window.page("chat")
        assert isinstance(page, ChatPage)
        return page

    @property
    def engine(self) -> ScriptedProcess:
        return self._made[-1]

    def open_demo(self) -> None:
        self.chat.open_demo()
        self._wait(lambda: bool(self._made) and self.engine.state is EngineState.READY)
        self._wait(lambda: self.chat.status.text() == "Ready")

    def engine_says_all(self) -> None:
        """End the answers that `hold` keeps open."""
        self.qtbot.waitUntil(lambda: self.engine.open_answers > 0)
        self.engine.let_go()

    def ask(self, question: str) -> None:
        self.chat.composer.setPlainText(question)
        self.chat.send()
        self._wait(lambda: not self.chat.busy and not self.chat.waiting)

    def _wait(self, until: Callable[[], bool]) -> None:
        # Long, for machines on which much else runs.
        self.qtbot.waitUntil(until, timeout=20_000)
