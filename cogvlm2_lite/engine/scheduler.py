"""Several answers at once: prompts are read one at a time, and all answers are written together.

A prompt gives way after every block of the model. So while a picture is looked at the others go on,
and reading and writing get about as much time each. A decode step takes one token of every answer
that is being written, which costs one pass over the weights.

An answer never depends on what else is under way: prompts go through the model alone, and in a
decode step each gets the scores that it would get alone, to the bit (`Runtime.decode_each`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from cogvlm2_lite.engine.answer import Answers, Asking, Request
from cogvlm2_lite.engine.prefix_cache import PictureCache, Seat
from cogvlm2_lite.engine.replan import DEVICE_ERROR, device_lost
from cogvlm2_lite.engine.runtime import Runtime, Token
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.events import Cancel, Event, Progress
from cogvlm2_lite.inputs.tokenizer import Tokenizer

READING_S = 0.5
"""How long a prompt is read before the others go on, at least one block. Weights may have to make
room when the phase changes; a change must not happen for every block."""

Outcome = Event | Exception
"""What becomes of an answer: events, Finished as the last one, or what it failed with."""


@dataclass(kw_only=True, eq=False)
class _Live:
    """An answer under way.

    token  that its next decode step runs; None while its prompt is read
    """

    number: int
    work: Asking[None]
    seat: Seat
    cancel: Cancel
    token: Token | None = None


class Engine:
    """Answers as many questions at once as the memory plan has room for.

    seats  one for each conversation that may be under way
    clock  seconds that reading and writing are measured by
    """

    def __init__(self, answers: Answers, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._answers = answers
        self._clock = clock
        runtime = answers.runtime
        self.seats = tuple(Seat(runtime.new_cache()) for _ in range(runtime.plan.parallel))
        self._live: dict[int, _Live] = {}
        self._begun = 0

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
        """Whether any answer is under way."""
        return bool(self._live)

    @property
    def full(self) -> bool:
        """Whether no other answer can begin now."""
        return len(self._live) == len(self.seats)

    def answer(self, request: Request, cancel: Cancel) -> Iterator[Event]:
        """Answer one question; the last event is Finished, also after a cancel.

        Raises what the inputs raise (PromptTooLongError, ...), UsageError while another answer is
        under way, and DeviceError when the GPU is lost.
        """
        if self.busy:
            raise UsageError("The model is answering another question.", hint="Wait, or cancel it.")
        self.begin(0, request, cancel)
        try:
            while self._live:
                for _, outcome in self.turn():
                    if isinstance(outcome, Exception):
                        raise outcome
                    yield outcome
        finally:
            self.close()

    def begin(self, number: int, request: Request, cancel: Cancel) -> None:
        """Begin an answer; `turn` goes on with it.

        number  names the answer in what `turn` gives
        Raises  what the inputs raise, and UsageError when all seats are taken
        """
        if self.full:
            raise UsageError("The model is answering other questions.", hint="Wait, or cancel one.")
        asked = self._answers.prepare(request)
        taken = [live.seat for live in self._live.values()]
        free = [seat for seat in self.seats if seat not in taken]
        # Where most of the conversation is known; else where one sat longest ago.
        seat = max(
            free,
            key=lambda seat: (seat.holds(asked.prompt, asked.picture, asked.begun), -seat.used),
        )
        self._begun += 1
        seat.used, seat.tightened = self._begun, 0
        work = self._answers.steps(asked, seat, cancel)
        self._live[number] = _Live(number=number, work=work, seat=seat, cancel=cancel)

    def turn(self) -> Iterator[tuple[int, Outcome]]:
        """Read one prompt for a while, then write all answers for about as long.

        Yields (number, outcome). An answer is over with Finished or an exception.
        """
        began = self._clock()
        yield from self._read(began + READING_S)
        now = self._clock()
        until = now + (now - began)
        while any(live.token for live in self._live.values()):
            yield from self._write()
            if self._clock() >= until:
                return

    def close(self) -> None:
        """Let go of all answers; their seats are free."""
        for live in self._live.values():
            live.work.close()
        self._live.clear()

    def _read(self, until: float) -> Iterator[tuple[int, Outcome]]:
        """Go on with the oldest prompt, but first with one that is cancelled, and ends at once."""
        reading = [live for live in self._live.values() if live.token is None]
        live = min(reading, key=lambda live: not live.cancel.is_set, default=None)
        if live is None:
            return
        for number, outcome in self._run(live, None):
            yield number, outcome
            if isinstance(outcome, Progress) and self._clock() >= until:
                return

    def _write(self) -> Iterator[tuple[int, Outcome]]:
        """Run a decode step of all answers that are being written."""
        writing = [live for live in self._live.values() if live.token]
        stopped = [live for live in writing if live.cancel.is_set]
        going = [live for live in writing if live not in stopped]
        for live in stopped:
            yield from self._run(live, None)
        if not going:
            return
        steps = self._answers.decode(
            [live.token for live in going if live.token], [live.seat for live in going]
        )
        while True:
            try:
                replanned = next(steps)
            except StopIteration as done:
                scores: list[Tensor] = done.value
                break
            except Exception as error:  # noqa: BLE001 - handed on; other answers go on
                yield from self._fail(going, error)
                return
            for live in going:
                yield live.number, replanned
        for live, each in zip(going, scores, strict=True):
            yield from self._run(live, each)

    def _run(self, live: _Live, scores: Tensor | None) -> Iterator[tuple[int, Outcome]]:
        """Let an answer work until it needs a decode step, or is over."""
        live.token = None
        try:
            told = live.work.send(scores)
            while not isinstance(told, Token):
                yield live.number, told
                told = next(live.work)
            live.token = told
        except StopIteration:
            del self._live[live.number]
        except Exception as error:  # noqa: BLE001 - handed on; other answers go on
            yield from self._fail([live], error)

    def _fail(self, lives: Sequence[_Live], error: Exception) -> Iterator[tuple[int, Outcome]]:
        """End answers with an error; a lost GPU is lost to all of them."""
        if isinstance(error, DEVICE_ERROR):
            lost = device_lost(error)
            lost.__cause__ = error
            lives, error = list(self._live.values()), lost
        for live in lives:
            del self._live[live.number]
            live.work.close()
        for live in lives:
            yield live.number, error
