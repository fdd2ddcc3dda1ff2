"""Continuous batching: prompts are computed one at a time, and all answers are decoded together.

Prefill pauses after every block of the model, so that other answers continue while a picture is
encoded; prefill and decode get about the same time. A decode step takes one token of every answer,
and drafts of the tokens that may follow, which needs one pass over the weights.

If weights are streamed, prompts go side by side: each goes through a block, one after another,
before the next block's weights are loaded. So they are loaded once for all prompts.

An answer never depends on the others: prompts go through the model alone, and in a decode step each
answer gets the same logits as alone, bit for bit (`Runtime.decode_each`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from cogvlm2_lite.engine.answer import Answers, AnswerSteps, Request
from cogvlm2_lite.engine.draft_length import PassTimes, draft_lengths
from cogvlm2_lite.engine.overflow import OverflowedError
from cogvlm2_lite.engine.prefix_cache import CacheSlot, PictureCache
from cogvlm2_lite.engine.replan import DEVICE_ERROR, MISSING, device_lost, missing_operation
from cogvlm2_lite.engine.runtime import Runtime, Token
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.events import (
    TOO_LARGE_FOR_FLOAT16,
    Cancel,
    Event,
    ImageEncoded,
    Notice,
    PictureOpened,
    Progress,
    Replanned,
    TurnsDropped,
)
from cogvlm2_lite.inputs.tokenizer import Tokenizer

PREFILL_S = 0.5
"""How long prefill runs before decode gets its turn; at least one block. A change of phase may move
weights, so it must not happen after every block."""

_ONCE = (PictureOpened, TurnsDropped)
"""Events that an answer does not repeat when it begins for the second time."""

EventOrError = Event | Exception
"""An event of an answer (Finished is the last one), or the error that ended it."""


class _Place(NamedTuple):
    """How far a prefill is: phases to come, and blocks of this one; smaller is further.

    Blocks are counted from the end, because prompts whose picture is already in a cache have fewer.
    """

    phases: int
    blocks: int


_BEGINNING = _Place(2, 0)
_PHASES = {"encode": 1, "prefill": 0}


@dataclass(kw_only=True, eq=False)
class _Live:
    """An answer in progress.

    restarted  it begins for the second time, in float32
    token    the input of its next decode step; None during its prefill
    picture  what identifies the picture's keys and values
    place    how far its prefill is
    """

    number: int
    request: Request
    work: AnswerSteps[None]
    slot: CacheSlot
    cancel: Cancel
    restarted: bool = False
    token: Token | None = None
    picture: str | None = None
    place: _Place = field(default_factory=lambda: _BEGINNING)


class Engine:
    """Answers as many questions at a time as the memory plan has room for.

    slots      one for each conversation that may be in progress
    prefill_s  how long prefill runs before decode gets its turn
    clock      returns seconds; prefill and decode are measured with it
    in_float32 replaces a model whose numbers are too large for float16, and returns the answers of
               the new one; called at most once. None: there is no other one
    """

    def __init__(
        self,
        answers: Answers,
        *,
        prefill_s: float = PREFILL_S,
        clock: Callable[[], float] = time.perf_counter,
        in_float32: Callable[[], Answers] | None = None,
    ) -> None:
        self._answers = answers
        self._in_float32 = in_float32
        self._restarting: list[_Live] = []
        self.prefill_s, self.clock = prefill_s, clock
        self.slots = self._new_slots()
        self._live: dict[int, _Live] = {}
        self._started = 0
        self._times, self._prefilled = PassTimes(), False

    @property
    def runtime(self) -> Runtime:
        return self._answers.runtime

    @property
    def tokenizer(self) -> Tokenizer:
        return self._answers.tokenizer

    @property
    def pictures(self) -> PictureCache:
        return self._answers.pictures

    @property
    def busy(self) -> bool:
        """Whether any answer is in progress."""
        return bool(self._live or self._restarting)

    @property
    def full(self) -> bool:
        """Whether no other answer can start now.

        While answers wait for float32 none starts: the model is replaced when the others have
        ended.
        """
        if self._restarting and self._in_float32 is not None:
            return True
        return len(self._live) + len(self._restarting) >= len(self.slots)

    def answer(self, request: Request, cancel: Cancel) -> Iterator[Event]:
        """Answer one question; the last event is Finished, also after a cancel.

        Raises what the inputs raise (PromptTooLongError, ...), UsageError while another answer is
        in progress, and DeviceError when the GPU is lost.
        """
        if self.busy:
            raise UsageError(
                "The model is answering another question.", hint="Wait, or cancel that answer."
            )
        self.begin(0, request, cancel)
        try:
            while self._live or self._restarting:
                for _, outcome in self.turn():
                    if isinstance(outcome, Exception):
                        raise outcome
                    yield outcome
        finally:
            self.close()

    def begin(self, number: int, request: Request, cancel: Cancel) -> None:
        """Start an answer; `turn` continues it.

        number  identifies the answer in what `turn` yields
        Raises what the inputs raise, and UsageError when all slots are taken.
        """
        if self.full:
            raise UsageError(
                "The model is answering other questions.", hint="Wait, or cancel one of them."
            )
        self._begin(number, request, cancel)

    def _begin(
        self, number: int, request: Request, cancel: Cancel, *, restarted: bool = False
    ) -> None:
        prepared = self._answers.prepare(request)
        taken = [live.slot for live in self._live.values()]
        free = [slot for slot in self.slots if slot not in taken]
        # 1. Take the slot that holds most of this conversation, else the least recently used one.
        slot = max(
            free,
            key=lambda slot: (
                slot.holds(
                    prepared.prompt, prepared.picture, prepared.continue_ids, prepared.adapter
                ),
                -slot.used,
            ),
        )
        self._started += 1
        slot.used, slot.replans = self._started, 0
        # 2. The work is a generator: nothing runs before the first turn.
        work = self._answers.steps(prepared, slot, cancel)
        self._live[number] = _Live(
            number=number,
            request=request,
            work=work,
            slot=slot,
            cancel=cancel,
            restarted=restarted,
            picture=prepared.picture_key,
        )

    def _new_slots(self) -> tuple[CacheSlot, ...]:
        runtime = self._answers.runtime
        caches = (runtime.new_cache(lasting=True) for _ in range(runtime.plan.parallel))
        return tuple(CacheSlot(cache) for cache in caches)

    def turn(self) -> Iterator[tuple[int, EventOrError]]:
        """Run prefill of one prompt for a while, then decode all answers for about as long.

        Yields (number, outcome). An answer ends with Finished or an exception.
        """
        yield from self._restart()
        # 1. Prefill of the oldest prompt, for prefill_s or to its end.
        began = self.clock()
        yield from self._prefill(began + self.prefill_s)
        # 2. Decode all answers for as long as prefill took, but at least one step: so a long
        #    prompt halves the speed of the others and does not stop them.
        now = self.clock()
        until = now + (now - began)
        while any(live.token for live in self._live.values()):
            yield from self._decode()
            if self.clock() >= until:
                return

    def close(self) -> None:
        """End all answers; their slots become free."""
        for live in self._live.values():
            live.work.close()
        self._live.clear()
        self._restarting.clear()

    def _restart(self) -> Iterator[tuple[int, EventOrError]]:
        """Begin the answers again that float16 could not hold, as many as there are slots.

        The model is replaced when no answer needs the old one any more.
        """
        if not self._restarting or (self._live and self._in_float32 is not None):
            return
        if self._in_float32 is not None:
            replace, self._in_float32 = self._in_float32, None
            for slot in self.slots:
                slot.clear()
                self.runtime.free_cache(slot.cache)
            try:
                self._answers = replace()
            except Exception as error:  # noqa: BLE001 - passed on
                waiting, self._restarting = self._restarting, []
                self._in_float32 = replace
                for live in waiting:
                    yield live.number, error
                return
            self.slots = self._new_slots()
            self._times.forget()
        while self._restarting and len(self._live) < len(self.slots):
            again = self._restarting.pop(0)
            try:
                self._begin(again.number, again.request, again.cancel, restarted=True)
            except Exception as error:  # noqa: BLE001 - passed on
                yield again.number, error
            else:
                yield again.number, Notice(text=TOO_LARGE_FOR_FLOAT16)

    def _prefill(self, until: float) -> Iterator[tuple[int, EventOrError]]:
        """Continue the oldest prompt; a cancelled one goes first, because it ends at once."""
        waiting = [live for live in self._live.values() if live.token is None]
        live = min(waiting, key=lambda live: not live.cancel.is_set, default=None)
        if live is None:
            return
        self._prefilled = True
        if len(waiting) > 1 and self.runtime.plan.streams and not live.cancel.is_set:
            yield from self._prefill_side_by_side(until)
            return
        for number, outcome in self._run(live, None):
            yield number, outcome
            if isinstance(outcome, Progress):
                live.place = _place_of(outcome)
                if self.clock() >= until:
                    return

    def _prefill_side_by_side(self, until: float) -> Iterator[tuple[int, EventOrError]]:
        """Continue all prompts, a block of each in turn, so that its weights are loaded once.

        They pause for decode only where all of them are at the same block.
        """
        while going := self._side_by_side():
            # The one that is furthest behind: all of them soon need the same block.
            live = max(going, key=lambda live: live.place)
            for number, outcome in self._run(live, None):
                yield number, outcome
                if isinstance(outcome, Progress):
                    live.place = _place_of(outcome)
                    break
                if isinstance(outcome, ImageEncoded):
                    # A picture of the cache leaves only the text, one chunk in most cases.
                    blocks = self.runtime.config.num_hidden_layers
                    live.place = _Place(0, blocks if outcome.reused else 2 * blocks)
                    break
            places = {live.place for live in self._side_by_side()}
            if len(places) == 1 and self.clock() >= until:
                return

    def _side_by_side(self) -> list[_Live]:
        """Return the prompts to continue; of those about one picture only the oldest.

        The others find the picture in the cache when it is there.
        """
        waiting = [live for live in self._live.values() if live.token is None]
        pictures = [live.picture for live in waiting]
        return [
            live
            for place, live in enumerate(waiting)
            if live.picture is None or live.picture not in pictures[:place]
        ]

    def _decode(self) -> Iterator[tuple[int, EventOrError]]:
        """Run one decode step for all answers whose prompt is done."""
        # 1. Cancelled answers end without a step.
        decoding = [live for live in self._live.values() if live.token]
        stopped = [live for live in decoding if live.cancel.is_set]
        going = [live for live in decoding if live not in stopped]
        for live in stopped:
            yield from self._run(live, None)
        if not going:
            return
        # 2. One pass over the weights for the tokens and drafts of all others. It may replan on the
        #    way.
        tokens = self._cut_drafts([live.token for live in going if live.token])
        steps = self._answers.decode(tokens, [live.slot for live in going])
        seconds = 0.0
        while True:
            began = self.clock()
            try:
                event = next(steps)  # progress of a long step, or a new plan
            except StopIteration as done:
                logits: list[list[Tensor]] = done.value
                self._note_pass(tokens, seconds + self.clock() - began)
                break
            except Exception as error:  # noqa: BLE001 - passed on; other answers continue
                yield from self._fail(going, error)
                return
            seconds += self.clock() - began
            if isinstance(event, Replanned):
                self._times.forget()
            for live in going:
                yield live.number, event
        # 3. Each answer takes its logits, emits its text, and names its next token.
        for live, each in zip(going, logits, strict=True):
            yield from self._run(live, each)

    def _cut_drafts(self, tokens: Sequence[Token]) -> list[Token]:
        """Return the tokens with drafts of the lengths that probably save most time."""
        if not self.runtime.takes_drafts:
            return [token.cut(0) for token in tokens]
        chances = [token.chances for token in tokens]
        lengths = draft_lengths(chances, self._times.seconds)
        return [token.cut(length) for token, length in zip(tokens, lengths, strict=True)]

    def _note_pass(self, tokens: Sequence[Token], seconds: float) -> None:
        """Remember how long a pass took; not the first one after a prefill, which moves weights."""
        if not self._prefilled:
            self._times.note(sum(1 + len(token.draft) for token in tokens), seconds)
        self._prefilled = False

    def _run(
        self, live: _Live, logits: Sequence[Tensor] | None
    ) -> Iterator[tuple[int, EventOrError]]:
        """Continue an answer until it needs a decode step or ends."""
        live.token = None
        try:
            emitted = live.work.send(logits)
            while not isinstance(emitted, Token):
                if not (live.restarted and isinstance(emitted, _ONCE)):
                    yield live.number, emitted
                emitted = next(live.work)
            live.token = emitted
        except StopIteration:
            del self._live[live.number]
        except Exception as error:  # noqa: BLE001 - passed on; other answers continue
            yield from self._fail([live], error)

    def _fail(self, lives: Sequence[_Live], error: Exception) -> Iterator[tuple[int, EventOrError]]:
        """End answers with an error; a lost GPU ends all of them.

        What float16 could not hold is no error yet: the answer begins again in float32.
        """
        if isinstance(error, OverflowedError) and self._in_float32 is not None:
            for live in lives:
                del self._live[live.number]
                live.work.close()
                self._restarting.append(live)
            return
        if isinstance(error, DEVICE_ERROR):
            lost = device_lost(error)
            lost.__cause__ = error
            lives, error = list(self._live.values()), lost
        elif isinstance(error, MISSING) and not self.runtime.plan.devices[0].budget.in_ram:
            missing = missing_operation(error)
            missing.__cause__ = error
            lives, error = list(self._live.values()), missing
        for live in lives:
            del self._live[live.number]
            live.work.close()
        for live in lives:
            yield live.number, error


def _place_of(progress: Progress) -> _Place:
    return _Place(_PHASES[progress.phase], progress.total - progress.done)
