"""The answer that is being generated: receives the engine's events and saves the text."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from msgspec import structs
from PySide6.QtCore import QCoreApplication, QObject, QTimer, Signal

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.events import (
    Finished,
    FinishReason,
    Notice,
    Progress,
    Replanned,
    Streaming,
    TextDelta,
    TurnsDropped,
)
from cogvlm2_lite.units import format_bytes
from cogvlm2_lite.worker.client import Outcome
from cogvlm2_lite.worker.protocol import Ask, DecodedImage
from gui.background.engine import EngineBridge
from gui.background.tasks import Tasks
from gui.chat.progress import Estimate
from gui.data.history import History, HistoryError
from gui.data.state import Conversation
from gui.translation import error_text, fill, translate

_DRAW_MS = 40
_SLOWEST_DRAW_MS = 500
_DRAW_SHARE = 0.25
"""New text is drawn so rarely that drawing takes at most this share of the time."""
_REPORT_S = 0.25
_WRITE_S = 0.5
"""A running answer is saved at least this often."""


Cut = Callable[[], tuple[bytes, DecodedImage]]
"""Returns the pixels of a part."""


@dataclass(eq=False, kw_only=True)
class _Series:
    """The parts that a question is asked about, one after the other.

    count   how many there are
    before  answers about the first parts, if the others are asked about now
    first   how many these are
    cuts    of the parts that are asked about
    ended   the answers about these
    """

    ask: Ask
    count: int
    before: str
    first: int
    cuts: tuple[Cut, ...]
    ended: list[Finished] = field(default_factory=list)

    @property
    def place(self) -> int:
        """The part that is asked about now, from 0."""
        return self.first + len(self.ended)


class Answering(QObject):
    """The running answer. There is at most one.

    changed   its turn must be drawn again
    progress  (Phase) how far it is; again and again, because the time left changes
    written   the text is on disk again, after `failed`
    ended     (turn) the answer ended and was saved
    failed    (message) it could not be saved
    """

    changed = Signal()
    progress = Signal(object)
    ended = Signal(object)
    failed = Signal(str)
    written = Signal()

    def __init__(
        self, engine: EngineBridge, history: History, tasks: Tasks, parent: QObject
    ) -> None:
        super().__init__(parent)
        self._engine, self._history, self._tasks = engine, history, tasks
        self._request: int | None = None
        self._series: _Series | None = None
        self._written = 0.0
        self._unwritten = False
        self._write_failed = False
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
        return self._request is not None or self._series is not None

    def begin(
        self, conversation: Conversation, turn: int, ask: Ask, cuts: Sequence[Cut] = ()
    ) -> None:
        """Ask the engine for the answer to a turn that is already saved.

        cuts  functions that return the pixels of the turn's parts; they are called on a thread, and
              asked about one after the other. Parts that were answered before are left out
        """
        self.conversation, self.turn = conversation, turn
        self._written = time.monotonic()
        self._estimate = Estimate(ask.sampling.max_new_tokens)
        self._clock.start()
        self._note_left_out(conversation)
        if cuts:
            asked = conversation.turns[turn]
            first = asked.ended or 0
            self._series = _Series(
                ask=ask,
                count=len(cuts),
                before=asked.answer[: asked.ended_length],
                first=first,
                cuts=tuple(cuts[first:]),
            )
            self._ask_part(self._series)
        else:
            self._request = self._engine.client.ask(ask)
        self._report()

    def stop(self) -> None:
        """Stop the answer within one token; no further part is asked about."""
        if self._request is not None:
            self._engine.client.cancel(self._request)
        elif self._series is not None:  # a part is being cut
            turn = self.conversation.turns[self.turn] if self.conversation is not None else None
            kept = turn.answer if turn is not None and len(turn.parts) < 2 else ""
            self._finish(_cancelled(kept))

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
            series = self._series
            stopped = outcome.reason is FinishReason.CANCELLED
            if series is None or stopped or len(series.ended) + 1 == len(series.cuts):
                self._finish(outcome)
            else:
                series.ended.append(outcome)
                conversation.end_part(self.turn, _text(series, series.ended))
                self._unwritten = True
                self._ask_part(series)
        elif isinstance(outcome, CogVLM2LiteError):
            conversation.fail(self.turn, error_text(outcome))
            self._end()

    def _ask_part(self, series: _Series) -> None:
        """Cut the next part on a thread, and ask about it."""
        conversation = self.conversation
        assert conversation is not None
        self._request = None
        self._estimate = Estimate(series.ask.sampling.max_new_tokens)
        if series.count > 1:
            space = "\n\n" if series.place else ""
            heading = _heading(series.place, series.count)
            conversation.append(self.turn, f"{space}{heading}\n\n")
        self._tasks.run(
            series.cuts[len(series.ended)],
            partial(self._part_ready, series),
            partial(self._part_failed, series),
            self,
        )

    def _part_ready(self, series: _Series, cut: tuple[bytes, DecodedImage]) -> None:
        if series is not self._series or self._closed:
            return
        conversation = self.conversation
        assert conversation is not None
        pixels, decoded = cut
        ask = structs.replace(series.ask, image=pixels, decoded=decoded, page=None)
        turn = conversation.turns[self.turn]
        if series.count > 1:
            part = turn.parts[series.place]
            ask = structs.replace(ask, history=conversation.before(turn, (part,)))
        self._request = self._engine.client.ask(ask)

    def _part_failed(self, series: _Series, error: CogVLM2LiteError) -> None:
        if series is self._series and not self._closed and self.conversation is not None:
            self.conversation.fail(self.turn, error_text(error))
            self._end()

    def _finish(self, outcome: Finished) -> None:
        """End the turn. The answers about several parts become one, each with its part."""
        conversation, series = self.conversation, self._series
        assert conversation is not None
        if series is not None and series.count > 1:
            if outcome.reason is not FinishReason.CANCELLED:
                conversation.end_part(self.turn, _text(series, [*series.ended, outcome]))
            outcome = _joined(series, outcome)
        conversation.finish(self.turn, outcome)
        self._end()

    def _note_left_out(self, conversation: Conversation) -> None:
        turn = conversation.turns[self.turn]
        count = conversation.left_out(turn)
        if count and not turn.answer:
            text = self.tr(
                "Earlier answers about other parts of the picture, which the model does not get: "
                "{count}."
            )
            conversation.note(self.turn, fill(text, count=count))

    def _note(self, event: Notice | Replanned | Streaming | TurnsDropped) -> str:
        if isinstance(event, Streaming):
            needs = max(event.picture_bytes, event.prompt_bytes, event.token_bytes)
            return fill(
                self.tr("Memory is short: up to {size} of weights are read from RAM or disk."),
                size=format_bytes(needs),
            )
        if isinstance(event, TurnsDropped):
            return fill(
                self.tr("The oldest {count} questions no longer fit and were left out."),
                count=event.count,
            )
        return translate(event.text)

    def _end(self) -> None:
        self._write()
        self._clock.stop()
        self.changed.emit()
        assert self.conversation is not None
        turn = self.conversation.turns[self.turn]
        self._request, self.conversation, self._series = None, None, None
        self.ended.emit(turn)

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
                self._write_failed = True
                self.failed.emit(error_text(error))
            else:
                if self._write_failed:
                    self._write_failed = False
                    self.written.emit()


def draw_interval_ms(took_s: float) -> int:
    """Return the time to the next drawing of the answer, from how long the last one took."""
    return round(min(max(_DRAW_MS, 1000 * took_s / _DRAW_SHARE), _SLOWEST_DRAW_MS))


def _heading(number: int, count: int) -> str:
    """Return the mark of the answer about a part. number: from 0."""
    text = QCoreApplication.translate("Answering", "Part {number} of {count}")
    return "**" + fill(text, number=number + 1, count=count) + "**"


def _text(series: _Series, ended: Sequence[Finished]) -> str:
    """Return the answers about all parts so far as one text, each with its part."""
    answers = [
        f"{_heading(number, series.count)}\n\n{end.text.strip()}"
        for number, end in enumerate(ended, start=series.first)
    ]
    return "\n\n".join(filter(None, [series.before, *answers]))


def _cancelled(text: str) -> Finished:
    """Return the end of an answer to which nothing was added."""
    return Finished(
        text=text, reason=FinishReason.CANCELLED, prompt_tokens=0, image_tokens=0,
        completion_tokens=0, encode_s=0.0, prefill_s=0.0, decode_s=0.0,
    )  # fmt: skip


def _joined(series: _Series, last: Finished) -> Finished:
    """Return one end for the answers about all parts, with the sums of counts and times.

    Its reason is that of the last answer, unless an earlier one reached the length limit.
    """
    ended = [*series.ended, last]
    reasons = {end.reason for end in ended}
    limited = FinishReason.LENGTH in reasons and last.reason is not FinishReason.CANCELLED
    return structs.replace(
        last,
        text=_text(series, ended),
        reason=FinishReason.LENGTH if limited else last.reason,
        prompt_tokens=sum(end.prompt_tokens for end in ended),
        image_tokens=sum(end.image_tokens for end in ended),
        completion_tokens=sum(end.completion_tokens for end in ended),
        encode_s=sum(end.encode_s for end in ended),
        prefill_s=sum(end.prefill_s for end in ended),
        decode_s=sum(end.decode_s for end in ended),
        token_ids=(),
    )
