"""The state of a conversation and its transitions, in plain Python: no Qt, no disk, no engine.

A conversation is a tree of turns. Asking again or editing a question adds a sibling, so no answer
is lost. `leaf` is the end of the branch that is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from cogvlm2_lite.events import Finished, FinishReason

TITLE_LENGTH = 60


class Status(Enum):
    """The state of a turn."""

    WAITING = "waiting"  # asked; no text of the answer yet
    STREAMING = "streaming"
    DONE = "done"
    STOPPED = "stopped"  # by the user
    FAILED = "failed"  # the engine reported an error or died; see `error`
    INTERRUPTED = "interrupted"  # the window ended during the answer

    @property
    def is_over(self) -> bool:
        return self not in (Status.WAITING, Status.STREAMING)


class TransitionError(Exception):
    """The state does not allow this transition: a bug of the caller."""


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Counts and times of an answer, summed over its runs if it was continued.

    encode_s, prefill_s, decode_s  seconds per phase
    reason     a value of FinishReason
    token_ids  of the text, to continue from
    """

    prompt_tokens: int
    image_tokens: int
    completion_tokens: int
    encode_s: float
    prefill_s: float
    decode_s: float
    reason: str
    token_ids: tuple[int, ...] = ()

    @property
    def tokens_per_s(self) -> float:
        """Decoding rate. The first token comes from the prefill and is not counted."""
        steps = self.completion_tokens - 1
        return steps / self.decode_s if steps > 0 and self.decode_s > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Part:
    """A rectangle of a picture, as the model gets it.

    x, y, width, height  in pixels of the upright page, before the rotation
    page                 as in Conversation
    rotation             quarter turns to the right
    """

    x: int
    y: int
    width: int
    height: int
    page: int | None = None
    rotation: int = 0


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A question with its answer.

    parent  the turn before it; None for a first one
    parts   what the question is about; () is the whole picture, as it is. With several, the model
            is asked about one after the other, and `answer` has all answers
    page    of the file, which has several, from 1; None: it has one, or an earlier version asked
    file    name of the picture's file, or where the picture came from; "" without a picture
    adapter the adapter that the answer uses; "": none
    ended   how many of several parts have their whole answer; None: not known, or not several
    ended_length  so many letters of `answer` are about these parts
    notes   notices of the engine: streaming, new plans, dropped turns
    error   why it failed: message and hint
    """

    id: int
    parent: int | None
    question: str
    parts: tuple[Part, ...] = ()
    page: int | None = None
    file: str = ""
    adapter: str = ""
    ended: int | None = None
    ended_length: int = 0
    answer: str = ""
    status: Status = Status.WAITING
    notes: tuple[str, ...] = ()
    error: str = ""
    stats: Stats | None = None
    created: float = 0.0

    def is_about(self, parts: tuple[Part, ...]) -> bool:
        """Return whether the model can take the answer for one about this picture."""
        whole_in_parts = not parts and len(self.parts) > 1 and not self.parts[0].rotation
        return self.parts == parts or whole_in_parts

    @property
    def is_cut(self) -> bool:
        """Whether the answer has text but no end, so that it can be continued.

        One about several parts can be continued if answers about some of them are missing.
        """
        if not self.status.is_over or not self.answer.strip():
            return False
        if len(self.parts) > 1:
            return self.ended is not None and self.ended < len(self.parts)
        return self.status is not Status.DONE or self.is_limited

    @property
    def is_limited(self) -> bool:
        """Whether the answer ended at the length limit."""
        return self.stats is not None and self.stats.reason == FinishReason.LENGTH.value


@dataclass
class Conversation:
    """A picture, a title and a tree of turns.

    picture   sha256 of the picture's bytes; "" for none
    page      the page or frame that the user chose, from 1; None: none was chosen
    rotation  quarter turns to the right by the user
    leaf      the last turn of the branch that is shown; None while there is none
    """

    id: int
    title: str = ""
    picture: str = ""
    page: int | None = None
    rotation: int = 0
    pinned: bool = False
    leaf: int | None = None
    created: float = 0.0
    changed: float = 0.0
    turns: dict[int, Turn] = field(default_factory=dict)

    def path(self) -> list[Turn]:
        """Return the turns that are shown, oldest first."""
        found: list[Turn] = []
        at = self.leaf
        while at is not None:
            found.append(self.turns[at])
            at = self.turns[at].parent
        return found[::-1]

    def before(
        self, turn: Turn, parts: tuple[Part, ...] | None = None
    ) -> tuple[tuple[str, str], ...]:
        """Return the (question, answer) pairs before a turn, as the model's history.

        The model gets one picture and takes all answers to be about it. So only turns about the
        same part go along, and answers about several parts with questions about the whole picture.
        Turns without an answer are left out: the prompt can't have an empty answer. The prompt adds
        a space before each answer, so the space that the model generated is removed.

        parts  what the question is about; None: the parts of the turn
        """
        about = turn.parts if parts is None else parts
        return tuple(
            (past.question, past.answer.strip())
            for past in self._answered_before(turn)
            if past.is_about(about)
        )

    def left_out(self, turn: Turn) -> int:
        """Return how many answered turns do not go along because they are about other parts."""
        before = self._answered_before(turn)
        abouts = [(part,) for part in turn.parts] if len(turn.parts) > 1 else [turn.parts]
        return sum(not any(map(past.is_about, abouts)) for past in before)

    def _answered_before(self, turn: Turn) -> list[Turn]:
        found: list[Turn] = []
        at = turn.parent
        while at is not None:
            past = self.turns[at]
            if past.answer.strip():
                found.append(past)
            at = past.parent
        return found[::-1]

    def siblings(self, turn: Turn) -> list[Turn]:
        """Return the turns with the same parent, including the turn itself, oldest first."""
        return sorted(
            (other for other in self.turns.values() if other.parent == turn.parent),
            key=lambda other: other.id,
        )

    def later(self, turn_id: int) -> int:
        """Return how many turns follow a turn in the branch that `choose` would show."""
        return len(self._newest_below(turn_id)) - 1

    @property
    def running(self) -> Turn | None:
        """The turn whose answer has not ended. There is at most one."""
        return next((turn for turn in self.turns.values() if not turn.status.is_over), None)

    def check_parent(self, parent: int | None) -> None:
        """Raise TransitionError if no turn can be added after `parent` now."""
        if self.running is not None:
            raise TransitionError("An answer is still being generated.")
        if parent is not None and parent not in self.turns:
            raise TransitionError("The parent turn is unknown.")

    def add(self, turn: Turn) -> None:
        """Add a new turn and show its branch."""
        self.check_parent(turn.parent)
        self.turns[turn.id] = turn
        self.leaf = turn.id
        self.changed = max(self.changed, turn.created)
        if not self.title:
            self.title = title_of(turn.question)

    def can_continue(self, turn: Turn) -> bool:
        """Return True if an answer stopped early and no question follows it."""
        return turn.is_cut and all(other.parent != turn.id for other in self.turns.values())

    def reopen(self, turn_id: int) -> Turn:
        """Wait for the rest of an answer that stopped early.

        Its text stays until the engine's first delta, which repeats the text so far. Of an answer
        about several parts, the whole answers stay, and the others are asked for again.
        """
        turn = self.turns[turn_id]
        if self.running is not None or not self.can_continue(turn):
            raise TransitionError("This answer can't be continued now.")
        return self._change(turn_id, status=Status.WAITING, error="")

    def append(self, turn_id: int, text: str) -> Turn:
        """Add text to the running answer."""
        answer = self._check_running(turn_id)
        if self.turns[turn_id].status is Status.WAITING:
            answer = answer[: self.turns[turn_id].ended_length]
        return self._change(turn_id, status=Status.STREAMING, answer=answer + text)

    def end_part(self, turn_id: int, text: str) -> Turn:
        """Note that the answer about one of several parts is whole. text: all answers so far"""
        self._check_running(turn_id)
        ended = (self.turns[turn_id].ended or 0) + 1
        return self._change(turn_id, answer=text, ended=ended, ended_length=len(text))

    def note(self, turn_id: int, text: str) -> Turn:
        """Add a notice of the engine to the turn."""
        self._check_running(turn_id)
        return self._change(turn_id, notes=(*self.turns[turn_id].notes, text))

    def finish(self, turn_id: int, end: Finished) -> Turn:
        """End an answer with its counts and the complete text of the engine."""
        self._check_running(turn_id)
        stopped = end.reason is FinishReason.CANCELLED
        return self._change(
            turn_id,
            answer=end.text,
            status=Status.STOPPED if stopped else Status.DONE,
            stats=_stats(end, self.turns[turn_id].stats),
        )

    def fail(self, turn_id: int, why: str) -> Turn:
        """End an answer with an error. Its text so far is kept."""
        self._check_running(turn_id)
        return self._change(turn_id, status=Status.FAILED, error=why)

    def choose(self, turn_id: int) -> None:
        """Show the branch of a turn, down to its newest leaf."""
        if self.running is not None:
            raise TransitionError("An answer is still being generated.")
        self.leaf = self._newest_below(turn_id)[-1]

    def _newest_below(self, turn_id: int) -> list[int]:
        """Return a turn and the newest ones that follow it."""
        newest: dict[int, int] = {}
        for turn in self.turns.values():
            if turn.parent is not None:
                newest[turn.parent] = max(turn.id, newest.get(turn.parent, turn.id))
        found = [turn_id]
        while found[-1] in newest:
            found.append(newest[found[-1]])
        return found

    def _check_running(self, turn_id: int) -> str:
        turn = self.turns[turn_id]
        if turn.status.is_over:
            raise TransitionError(f"The answer has ended: {turn.status.value}.")
        return turn.answer

    def _change(self, turn_id: int, **values: object) -> Turn:
        self.turns[turn_id] = replace(self.turns[turn_id], **values)  # type: ignore[arg-type]
        return self.turns[turn_id]


def _stats(end: Finished, before: Stats | None) -> Stats:
    """Return the counts of a run plus those of the earlier runs of the answer."""
    return Stats(
        prompt_tokens=end.prompt_tokens,
        image_tokens=end.image_tokens,
        completion_tokens=end.completion_tokens + (before.completion_tokens if before else 0),
        encode_s=end.encode_s + (before.encode_s if before else 0.0),
        prefill_s=end.prefill_s + (before.prefill_s if before else 0.0),
        decode_s=end.decode_s + (before.decode_s if before else 0.0),
        reason=end.reason.value,
        token_ids=end.token_ids,
    )


def title_of(question: str) -> str:
    """Return a title made from the first question: its first line, cut at a word."""
    line = next((line.strip() for line in question.splitlines() if line.strip()), "")
    if len(line) <= TITLE_LENGTH:
        return line
    cut = line[:TITLE_LENGTH]
    head = cut.rsplit(" ", 1)[0] if " " in cut[20:] else cut
    return head.rstrip() + "…"
