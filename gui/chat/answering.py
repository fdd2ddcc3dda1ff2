"""The answer that is being generated: receives the engine's events and saves the text."""

from __future__ import annotations

import time

from PySide6.QtCore import QObject, QTimer, Signal

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.events import (
    Finished,
    Notice,
    Progress,
    Replanned,
    Streaming,
    TextDelta,
    TurnsDropped,
)
from cogvlm2_lite.units import format_bytes
from cogvlm2_lite.worker.client import Outcome
from cogvlm2_lite.worker.protocol import Ask
from gui.background.engine import EngineBridge
from gui.chat.progress import Estimate
from gui.data.history import History, HistoryError
from gui.data.state import Conversation
from gui.translation import error_text, translate

_DRAW_MS = 40
_SLOWEST_DRAW_MS = 500
_DRAW_SHARE = 0.25
"""New text is drawn so rarely that drawing takes at most this share of the time."""
_REPORT_S = 0.25
_WRITE_S = 0.5
"""A running answer is saved at least this often."""


class Answering(QObject):
    """The running answer. There is at most one.

    changed   its turn must be drawn again
    progress  (Phase) how far it is; again and again, because the time left changes
    ended     the answer ended and was saved
    failed    (message) it could not be saved
    """

    changed = Signal()
    progress = Signal(object)
    ended = Signal()
    failed = Signal(str)

    def __init__(self, engine: EngineBridge, history: History, parent: QObject) -> None:
        super().__init__(parent)
        self._engine, self._history = engine, history
        self._request: int | None = None
        self._written = 0.0
        self._unwritten = False
        self._closed = False
        self.conversation: Conversation | None = None
        self.turn = 0
        self._clock = QTimer(self)
        self._clock.setInterval(_DRAW_MS)
        self._drawn = QTimer(self)
        self._drawn.setSingleShot(True)
        self._drawn.timeout.connect(self._adapt)
        self._began_drawing = 0.0
        self._estimate = Estimate(1)
        self._reported = 0.0
        self._clock.timeout.connect(self._tick)
        engine.outcome.connect(self._on_outcome)

    @property
    def busy(self) -> bool:
        """True while an answer is being generated."""
        return self._request is not None

    def begin(self, conversation: Conversation, turn: int, ask: Ask) -> None:
        """Ask the engine for the answer to a turn that is already saved."""
        self.conversation, self.turn = conversation, turn
        self._written = time.monotonic()
        self._estimate = Estimate(ask.sampling.max_new_tokens)
        self._request = self._engine.client.ask(ask)
        self._clock.start()
        self._report()

    def stop(self) -> None:
        """Stop the answer within one token."""
        if self._request is not None:
            self._engine.client.cancel(self._request)

    def shut_down(self) -> None:
        """Save the text so far, and ignore later events."""
        self._clock.stop()
        if self.conversation is not None:
            self._write()
        self._closed = True

    def _on_outcome(self, number: int, outcome: Outcome) -> None:
        conversation = self.conversation
        if self._closed or number != self._request or conversation is None:
            return
        self._estimate.see(outcome)
        if isinstance(outcome, TextDelta):
            conversation.append(self.turn, outcome.text)
            self._unwritten = True
        elif isinstance(outcome, Progress):
            self._report()
        elif isinstance(outcome, Notice | Replanned | Streaming | TurnsDropped):
            conversation.note(self.turn, self._note(outcome))
        elif isinstance(outcome, Finished):
            conversation.finish(self.turn, outcome)
            self._end()
        elif isinstance(outcome, CogVLM2LiteError):
            conversation.fail(self.turn, error_text(outcome))
            self._end()

    def _note(self, event: Notice | Replanned | Streaming | TurnsDropped) -> str:
        if isinstance(event, Streaming):
            needs = max(event.picture_bytes, event.prompt_bytes, event.token_bytes)
            return self.tr(
                "Memory is short: up to {size} of weights are read from RAM or disk."
            ).format(size=format_bytes(needs))
        if isinstance(event, TurnsDropped):
            return self.tr("The oldest {count} questions no longer fit and were left out.").format(
                count=event.count
            )
        return translate(event.text)

    def _end(self) -> None:
        self._write()
        self._clock.stop()
        self.changed.emit()
        self._request, self.conversation = None, None
        self.ended.emit()

    def _tick(self) -> None:
        """Draw and save new text. On a timer, because the next token may take long."""
        self._began_drawing = time.perf_counter()
        if time.monotonic() - self._reported > _REPORT_S:
            self._report()
        self.changed.emit()
        self._drawn.start(0)  # after the text is laid out and painted
        if self._unwritten and time.monotonic() - self._written > _WRITE_S:
            self._write()

    def _report(self) -> None:
        self._reported = time.monotonic()
        self.progress.emit(self._estimate.phase())

    def _adapt(self) -> None:
        self._clock.setInterval(draw_interval_ms(time.perf_counter() - self._began_drawing))

    def _write(self) -> None:
        conversation, self._written = self.conversation, time.monotonic()
        self._unwritten = False
        if conversation is not None:
            try:
                self._history.write(conversation.turns[self.turn])
            except HistoryError as error:
                self.failed.emit(error_text(error))


def draw_interval_ms(took_s: float) -> int:
    """Return the time to the next drawing of the answer, from how long the last one took."""
    return round(min(max(_DRAW_MS, 1000 * took_s / _DRAW_SHARE), _SLOWEST_DRAW_MS))
