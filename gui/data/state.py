"""What a conversation is and what may happen to it, in plain Python: no Qt, no disk, no engine.

A conversation is a tree of turns. Asking again or editing a question makes a sibling, so nothing
that was answered is lost; `leaf` says which branch is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from cogvlm2_lite.events import Finished, FinishReason

TITLE_LENGTH = 60


class Status(Enum):
    """Where a turn stands."""

    WAITING = "waiting"  # asked; nothing of the answer came yet
    STREAMING = "streaming"
    DONE = "done"
    STOPPED = "stopped"  # by the person
    FAILED = "failed"  # the engine gave an error or died; `error` says which
    INTERRUPTED = "interrupted"  # the window ended while the answer came

    @property
    def is_over(self) -> bool:
        return self not in (Status.WAITING, Status.STREAMING)


class TransitionError(Exception):
    """A transition that the state does not allow: a bug of the caller."""


@dataclass(frozen=True, kw_only=True)
class Stats:
    """What an answer cost, all its runs together.

    Seconds per phase; reason: a value of FinishReason; token_ids: of the text, to go on from.
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
        """Decoding rate. The first token comes out of the prefill and is not counted."""
        steps = self.completion_tokens - 1
        return steps / self.decode_s if steps > 0 and self.decode_s > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A question and what came of it.

    parent  the turn before it; None for a first one
    notes   what the engine told beside the answer: offload, tighter plans, dropped turns
    error   why it failed, one sentence and a hint
    """

    id: int
    parent: int | None
    question: str
    answer: str = ""
    status: Status = Status.WAITING
    notes: tuple[str, ...] = ()
    error: str = ""
    stats: Stats | None = None
    created: float = 0.0

    @property
    def is_cut(self) -> bool:
        """Whether the answer has a beginning and not its end, so that it may go on."""
        if not self.status.is_over or not self.answer.strip():
            return False
        at_limit = self.stats is not None and self.stats.reason == FinishReason.LENGTH.value
        return self.status is not Status.DONE or at_limit


@dataclass
class Conversation:
    """A picture, a title and a tree of turns.

    picture   sha256 of the picture's bytes; "" for none
    rotation  quarter turns to the right that the person gave the picture
    leaf      the last turn of the branch that is shown; None while there is none
    """

    id: int
    title: str = ""
    picture: str = ""
    rotation: int = 0
    pinned: bool = False
    leaf: int | None = None
    created: float = 0.0
    changed: float = 0.0
    turns: dict[int, Turn] = field(default_factory=dict)

    def path(self) -> list[Turn]:
        """Give the turns that are shown, the first one first."""
        found: list[Turn] = []
        at = self.leaf
        while at is not None:
            found.append(self.turns[at])
            at = self.turns[at].parent
        return found[::-1]

    def before(self, turn: Turn) -> tuple[tuple[str, str], ...]:
        """Give the (question, answer) pairs that the model is shown before a turn.

        Turns without any answer are left out: the model can't have said nothing. The prompt puts a
        space before each answer, so the one that the model wrote itself is taken off.
        """
        pairs: list[tuple[str, str]] = []
        at = turn.parent
        while at is not None:
            past = self.turns[at]
            if past.answer.strip():
                pairs.append((past.question, past.answer.strip()))
            at = past.parent
        return tuple(pairs[::-1])

    def siblings(self, turn: Turn) -> list[Turn]:
        """Give all turns that stand in the same place, the turn itself among them, oldest first."""
        return sorted(
            (other for other in self.turns.values() if other.parent == turn.parent),
            key=lambda other: other.id,
        )

    @property
    def running(self) -> Turn | None:
        """The turn whose answer has not ended; there is never more than one."""
        return next((turn for turn in self.turns.values() if not turn.status.is_over), None)

    def check_parent(self, parent: int | None) -> None:
        """TransitionError when no turn can be added behind `parent` now."""
        if self.running is not None:
            raise TransitionError("An answer is still coming.")
        if parent is not None and parent not in self.turns:
            raise TransitionError("The turn before it is unknown.")

    def add(self, turn: Turn) -> None:
        """Take a new turn and show its branch."""
        self.check_parent(turn.parent)
        self.turns[turn.id] = turn
        self.leaf = turn.id
        self.changed = max(self.changed, turn.created)
        if not self.title:
            self.title = title_of(turn.question)

    def can_continue(self, turn: Turn) -> bool:
        """Whether an answer was cut and nothing was asked behind it."""
        return turn.is_cut and all(other.parent != turn.id for other in self.turns.values())

    def reopen(self, turn_id: int) -> Turn:
        """Open an answer that was cut. Its text stays until the engine's first word, which holds
        all that was said before."""
        turn = self.turns[turn_id]
        if self.running is not None or not self.can_continue(turn):
            raise TransitionError("This answer can't go on now.")
        return self._change(turn_id, status=Status.WAITING, error="")

    def append(self, turn_id: int, text: str) -> Turn:
        """Add to the answer that comes."""
        answer = self._check_running(turn_id)
        if self.turns[turn_id].status is Status.WAITING:
            answer = ""
        return self._change(turn_id, status=Status.STREAMING, answer=answer + text)

    def note(self, turn_id: int, text: str) -> Turn:
        """Keep what the engine told beside the answer."""
        self._check_running(turn_id)
        return self._change(turn_id, notes=(*self.turns[turn_id].notes, text))

    def finish(self, turn_id: int, end: Finished) -> Turn:
        """End an answer with its counts. The text is the engine's: it holds every character."""
        self._check_running(turn_id)
        stopped = end.reason is FinishReason.CANCELLED
        return self._change(
            turn_id,
            answer=end.text,
            status=Status.STOPPED if stopped else Status.DONE,
            stats=_stats(end, self.turns[turn_id].stats),
        )

    def fail(self, turn_id: int, why: str) -> Turn:
        """End an answer with an error; what came of it is kept."""
        self._check_running(turn_id)
        return self._change(turn_id, status=Status.FAILED, error=why)

    def choose(self, turn_id: int) -> None:
        """Show the branch of a turn, down to its newest end."""
        if self.running is not None:
            raise TransitionError("An answer is still coming.")
        at = turn_id
        while children := [t.id for t in self.turns.values() if t.parent == at]:
            at = max(children)
        self.leaf = at

    def _check_running(self, turn_id: int) -> str:
        turn = self.turns[turn_id]
        if turn.status.is_over:
            raise TransitionError(f"The answer has ended: {turn.status.value}.")
        return turn.answer

    def _change(self, turn_id: int, **values: object) -> Turn:
        self.turns[turn_id] = replace(self.turns[turn_id], **values)  # type: ignore[arg-type]
        return self.turns[turn_id]


def _stats(end: Finished, before: Stats | None) -> Stats:
    """Add what a run cost to what the answer had cost when it was cut."""
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
    """Make a title of a first question: its first line, shortened at a word."""
    line = next((line.strip() for line in question.splitlines() if line.strip()), "")
    if len(line) <= TITLE_LENGTH:
        return line
    cut = line[:TITLE_LENGTH]
    head = cut.rsplit(" ", 1)[0] if " " in cut[20:] else cut
    return head.rstrip() + "…"
