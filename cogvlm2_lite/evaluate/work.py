"""Asks the questions of a benchmark. Each picture is encoded once, and a kill loses no answer.

The questions about a picture are asked one after another, so that the engine has it in its cache.
Several pictures are in progress at once, as many as the engine answers in parallel. If weights are
streamed, a new wave of questions starts only when all of the last one are answered: then the engine
takes all of them through a block's weights each time these are loaded.
"""

from __future__ import annotations

import hashlib
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cogvlm2_lite.control import Control
from cogvlm2_lite.errors import CogVLM2LiteError, DeviceError, EngineError
from cogvlm2_lite.evaluate.answers import Answered, Key, SavedAnswers, query_hash
from cogvlm2_lite.evaluate.items import Data, Item, picture_key, plain_rgb
from cogvlm2_lite.evaluate.protocols import Query, query
from cogvlm2_lite.events import (
    TOO_LARGE_FOR_FLOAT16,
    Finished,
    ImageEncoded,
    Notice,
    Progress,
    PromptScored,
)
from cogvlm2_lite.inputs.image import OpenedImage, open_image, opened_image
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.worker.client import Outcome, WorkerEngine
from cogvlm2_lite.worker.protocol import Ask, DecodedImage

_MOST_DEATHS = 5
"""Deaths of the engine without an answer between them, after which it is not started again."""


@dataclass(frozen=True, kw_only=True)
class ScoredText:
    """A text whose last tokens are scored, after the question about the same picture is answered.

    name  texts of one name are summed
    ids   the tokens of the text, without the first one of a prompt and those of the picture
    last  how many of them are scored
    """

    name: str
    ids: tuple[int, ...]
    last: int


@dataclass(frozen=True, kw_only=True)
class Question:
    """An item, and what is sent for it.

    upright  whether the picture is turned by EXIF; it is then read as `ask` does, with transparency
             on white. None: it is read as benchmarks are
    scored   texts whose loss is measured
    column   of several models that are asked together, the one that answers; "" for one model
    adapter  as in Ask
    """

    item: Item
    query: Query
    upright: bool | None = None
    scored: tuple[ScoredText, ...] = ()
    column: str = ""
    adapter: str | None = None

    @property
    def picture(self) -> str:
        """A text that is equal for questions about the same picture; "" without one."""
        return picture_key(self.item)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """An answer was saved.

    done, total, failed  of all chosen items, those of earlier runs included
    seconds_left         expected time of the rest
    column               of the question
    """

    done: int
    total: int
    failed: int
    seconds_left: float
    answered: Answered
    column: str = ""


@dataclass(frozen=True, kw_only=True)
class Working:
    """The progress of one of the answers: a block of a phase ("encode" or "prefill")."""

    item: str
    phase: str
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Paused:
    """No question is in progress until the control is set to `resume` or `stop`."""


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """Questions are asked again after a pause."""


@dataclass(frozen=True, kw_only=True)
class Noticed:
    """A sentence about the model, for the user."""

    text: str


AskEvent = Asked | Working | Noticed | Paused | Resumed


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The expected seconds of a picture, and of a question about a picture that is encoded."""

    picture_s: float
    question_s: float

    def seconds(self, pictures: int, questions: int) -> float:
        """Return the time for so many pictures and questions, one after another."""
        return pictures * self.picture_s + questions * self.question_s


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What will be asked.

    questions  all that were chosen, in order
    known      the answers of earlier runs that stand, by item
    """

    questions: tuple[Question, ...]
    known: Mapping[str, Answered]

    @property
    def todo(self) -> tuple[Question, ...]:
        """The questions without an answer."""
        return tuple(each for each in self.questions if each.item.id not in self.known)

    @property
    def pictures(self) -> int:
        """How many pictures the questions without an answer are about."""
        return len({each.picture for each in self.todo} - {""})


def questions_of(data: Data, items: Iterable[Item], protocol: str) -> tuple[Question, ...]:
    """Return the questions for items, those about the same picture together."""
    found: dict[str, list[Question]] = {}
    for item in items:
        question = Question(item=item, query=query(data.benchmark, item, protocol))
        found.setdefault(question.picture or f"\n{item.id}", []).append(question)
    return tuple(question for group in found.values() for question in group)


def plan_questions(questions: Sequence[Question], saved: Mapping[str, Answered]) -> Planned:
    """Return what is left to ask. The pictures of saved answers are read and compared."""
    known, hashes = {}, dict[str, str]()
    for question in questions:
        answered = saved.get(question.item.id)
        if answered is None or answered.error:
            continue
        sent = query_hash(question.query.template, question.query.text)
        if answered.key.query != sent:
            continue
        if question.picture not in hashes:
            hashes[question.picture] = _picture_hash(question.item)
        if answered.key == Key(question.item.id, sent, hashes[question.picture]):
            known[question.item.id] = answered
    return Planned(questions=tuple(questions), known=known)


def _picture_hash(item: Item) -> str:
    """Return the sha256 of the shown picture's file; "" for an item without a picture."""
    with suppress(CogVLM2LiteError):
        if item.pictures:
            return hashlib.sha256(item.pictures[0].read()).hexdigest()
    return ""


def ask_all(
    engine: WorkerEngine,
    planned: Planned,
    saved: Callable[[Question], SavedAnswers],
    *,
    max_new_tokens: int,
    expected: Expected | None = None,
    control: Control | None = None,
) -> Iterator[AskEvent]:
    """Ask the questions that have no answer, and save each answer at once; yields AskEvents.

    engine    ready, see WorkerEngine.wait_ready
    saved     returns the file for the answer to a question
    expected  for the time that is left, until some answers are there

    Greedy, once per question, and without the repetition guard. A picture that can't be read is an
    error of its items. An engine that dies is restarted: the question that it died on counts as
    failed; if several were in progress, each is asked again alone to find out which one it was.

    Raises DoesNotFitError if an answer can't be saved, and EngineError if the engine can't be
    restarted or dies again and again.
    """
    control = control or Control()
    pace = _Pace(planned, expected)
    asking = _Asking(engine=engine, todo=planned.todo, max_new_tokens=max_new_tokens)
    done, failed = len(planned.known), 0
    while asking.left:
        if control.paused and not asking.in_progress:
            yield Paused()
            pace.pause(control)
            yield Resumed()
        if control.stopped:
            asking.cancel()
            return
        if not control.paused:
            asking.start()
        for step in asking.results():
            if isinstance(step, Working | Noticed):
                yield step
                continue
            question, answered = step
            saved(question).add(answered.as_dict())
            done, failed = done + 1, failed + bool(answered.error)
            pace.count(answered)
            yield Asked(
                done=done,
                total=len(planned.questions),
                failed=failed,
                seconds_left=round(pace.seconds_left, 1),
                answered=answered,
                column=question.column,
            )


class _Pace:
    """Estimates the time that is left from the answers so far, or from what is expected."""

    def __init__(self, planned: Planned, expected: Expected | None) -> None:
        self._expected = expected or Expected(picture_s=1.0, question_s=1.0)
        self._began = time.monotonic()
        self._left = [planned.pictures, len(planned.todo)]
        self._all = tuple(self._left)
        self._pictures: list[float] = []
        self._questions: list[float] = []

    def count(self, answered: Answered) -> None:
        """Count an answer. One with an error has no times."""
        self._left[1] -= 1
        if answered.picture_s:
            self._left[0] -= 1
            self._pictures.append(answered.picture_s)
        if not answered.error:
            self._questions.append(answered.seconds - answered.picture_s)

    def pause(self, control: Control) -> None:
        """Wait without counting the time."""
        began = time.monotonic()
        control.wait()
        self._began += time.monotonic() - began

    @property
    def seconds_left(self) -> float:
        each = Expected(
            picture_s=_mean(self._pictures, self._expected.picture_s),
            question_s=_mean(self._questions, self._expected.question_s),
        )
        pictures, questions = max(self._left[0], 0), self._left[1]
        behind = each.seconds(self._all[0] - pictures, self._all[1] - questions)
        rate = (time.monotonic() - self._began) / behind if behind else 1.0
        return rate * each.seconds(pictures, questions)


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


# --- in progress ----------------------------------------------------------------------------------

_Done = tuple[Question, Answered]


@dataclass(kw_only=True, eq=False)
class _Lane:
    """The questions about one picture, of which one at a time is asked.

    image    the decoded picture; read with the first question
    sha256   of its file
    """

    questions: deque[Question]
    image: OpenedImage | None = None
    sha256: str = ""
    is_read: bool = False


@dataclass(kw_only=True, eq=False)
class _UnderWay:
    """A question in progress, with the times of its picture.

    finished  its answer; None: not there yet
    scores    how many of its texts are scored or being scored
    losses    the sum of the loss, and the number of tokens, by name
    """

    question: Question
    lane: _Lane
    encode_s: float = 0.0
    reused: bool = True
    finished: Finished | None = None
    scores: int = 0
    score_s: float = 0.0
    losses: dict[str, tuple[float, int]] = field(default_factory=dict)

    def note(self, scored: PromptScored) -> None:
        """Add the loss of a text."""
        name = self.question.scored[self.scores - 1].name
        loss, tokens = self.losses.get(name, (0.0, 0))
        found = -sum(one.chosen.logprob for one in scored.tokens)
        self.losses[name] = (loss + found, tokens + len(scored.tokens))

    def finish(self, end: Finished) -> None:
        """Note the end of the answer, or of a score."""
        if self.finished is None:
            self.finished = end
        else:
            self.score_s += end.encode_s + end.prefill_s


@dataclass(kw_only=True, eq=False)
class _Asking:
    """Keeps as many questions in progress as the engine answers at once, one per picture.

    alone  questions to ask again one at a time, with no other in progress
    """

    engine: WorkerEngine
    todo: Sequence[Question]
    max_new_tokens: int
    _outcomes: queue.SimpleQueue[tuple[int, Outcome]] = field(default_factory=queue.SimpleQueue)
    _under_way: dict[int, _UnderWay] = field(default_factory=dict)
    _in_float32: bool = False
    _resting: list[_Lane] = field(default_factory=list)
    _alone: deque[_UnderWay] = field(default_factory=deque)
    _failed: list[_Done] = field(default_factory=list)
    _deaths: int = 0

    def __post_init__(self) -> None:
        lanes: dict[str, _Lane] = {}
        for question in self.todo:
            key = question.picture or f"\n{question.item.id}"
            lanes.setdefault(key, _Lane(questions=deque())).questions.append(question)
        self._waiting = deque(lanes.values())
        self.left = len(self.todo)

    @property
    def in_progress(self) -> bool:
        return bool(self._under_way)

    @property
    def _parallel(self) -> int:
        loaded = self.engine.loaded
        return loaded.parallel if loaded else 1

    def start(self) -> None:
        """Start as many questions as the engine has room for."""
        if self._alone:
            if not self._under_way:
                again = self._alone.popleft()
                self._submit(again.question, again.lane)
            return
        if self._under_way and self.engine.loaded and self.engine.loaded.streams:
            return  # the next wave begins when this one has ended
        # Pictures that the engine already has come first: a new one may take their place.
        while self._resting and len(self._under_way) < self._parallel:
            self._ask_next(self._resting.pop(0))
        while self._waiting and len(self._under_way) < self._parallel:
            self._ask_next(self._waiting.popleft())

    def _ask_next(self, lane: _Lane) -> None:
        """Ask the next question of a lane; all of them fail if the picture can't be read."""
        try:
            self._read(lane, lane.questions[0])
        except CogVLM2LiteError as error:
            why = str(error.text)
            self._failed += [(q, _failure(q, lane.sha256, why)) for q in lane.questions]
            return
        self._submit(lane.questions.popleft(), lane)

    def _read(self, lane: _Lane, question: Question) -> None:
        if lane.is_read or not question.item.pictures:
            return
        picture = question.item.pictures[0]
        data = picture.read()
        lane.sha256 = hashlib.sha256(data).hexdigest()
        if question.upright is not None:
            opened = open_image(data, upright=question.upright)
            lane.image = replace(opened, name=picture.name)
        else:
            rgb = plain_rgb(data, picture.name)
            lane.image = opened_image(
                np.array(rgb, dtype=np.uint8),
                format="memory",
                original_size=rgb.size,
                name=picture.name,
            )
        lane.is_read = True

    def _submit(self, question: Question, lane: _Lane) -> None:
        """Ask a question."""
        ask = Ask(
            request=self.engine.new_request(),
            question=question.query.text,
            sampling=Sampling(max_new_tokens=self.max_new_tokens, repetition_guard=False),
            template=question.query.template,
            adapter=question.adapter,
            **_pixels(lane.image),
        )
        self._send(ask, _UnderWay(question=question, lane=lane))

    def _score_next(self, asked: _UnderWay) -> None:
        """Ask for the loss of the next text of a question."""
        text = asked.question.scored[asked.scores]
        asked.scores += 1
        ask = Ask(
            request=self.engine.new_request(),
            question="",
            prompt_ids=text.ids,
            score_last=text.last,
            sampling=Sampling(max_new_tokens=1, repetition_guard=False),
            template="base",
            adapter=asked.question.adapter,
            **_pixels(asked.lane.image),
        )
        self._send(ask, asked)

    def _send(self, ask: Ask, asked: _UnderWay) -> None:
        number = ask.request
        self._under_way[number] = asked
        try:
            self.engine.submit(ask, lambda outcome: self._outcomes.put((number, outcome)))
        except CogVLM2LiteError as error:
            self._outcomes.put((number, error))

    def results(self) -> Iterator[Working | Noticed | _Done]:
        """Wait for outcomes if questions are in progress, and yield what is there."""
        while self._failed:
            self.left -= 1
            yield self._failed.pop(0)
        waits = bool(self._under_way)
        while waits or not self._outcomes.empty():
            waits = False
            number, outcome = self._outcomes.get()
            asked = self._under_way.get(number)
            if asked is None:  # from a process that has ended
                continue
            match outcome:
                case EngineError() | DeviceError():
                    self._recover(outcome)
                case CogVLM2LiteError():
                    self._end(number)
                    self.left -= 1
                    failure = _failure(asked.question, asked.lane.sha256, str(outcome.text))
                    yield asked.question, failure
                case Progress():
                    yield Working(
                        item=asked.question.item.id,
                        phase=outcome.phase,
                        done=outcome.done,
                        total=outcome.total,
                    )
                case Notice() if outcome.text == TOO_LARGE_FOR_FLOAT16 and not self._in_float32:
                    self._in_float32 = True  # all questions in progress begin again
                    yield Noticed(text=outcome.text)
                case ImageEncoded() if asked.finished is None:
                    asked.encode_s, asked.reused = outcome.seconds, outcome.reused
                case PromptScored():
                    asked.note(outcome)
                case Finished():
                    self._deaths = 0
                    asked.finish(outcome)
                    if asked.scores < len(asked.question.scored):
                        del self._under_way[number]
                        self._score_next(asked)
                        continue
                    self._end(number)
                    self.left -= 1
                    yield asked.question, _answer(asked)
        while self._failed:  # the question that ended the engine
            self.left -= 1
            yield self._failed.pop(0)

    def _end(self, number: int) -> None:
        """Note that a question has ended; the next one about its picture may be asked."""
        lane = self._under_way.pop(number).lane
        if lane.questions:
            self._resting.append(lane)

    def _recover(self, error: CogVLM2LiteError) -> None:
        """Restart the engine after its death, or after a fault that may affect later answers."""
        self._deaths += 1
        if self._deaths == _MOST_DEATHS:
            raise error
        asked = list(self._under_way.values())
        self._under_way.clear()
        self.engine.restart()
        self.engine.wait_ready()
        if len(asked) > 1:
            self._alone += asked
            return
        (only,) = asked
        failure = _failure(only.question, only.lane.sha256, str(error.text))
        self._failed.append((only.question, failure))
        if only.lane.questions and only.lane not in self._resting:
            self._resting.append(only.lane)

    def cancel(self) -> None:
        """Stop and discard the answers in progress."""
        for number in self._under_way:
            self.engine.cancel(number)
        self._under_way.clear()


def _pixels(image: OpenedImage | None) -> dict[str, Any]:
    """Return the fields of an Ask that have the pixels of a picture."""
    if image is None:
        return {}
    return {
        "image": image.rgb.tobytes(),
        "decoded": DecodedImage(
            width=image.width,
            height=image.height,
            sha256=image.sha256,
            format=image.format,
            original_size=image.original_size,
        ),
    }


def _answer(asked: _UnderWay) -> Answered:
    end = asked.finished
    assert end is not None
    seconds = end.encode_s + end.prefill_s + end.decode_s + asked.score_s
    picture_s = 0.0 if asked.reused else asked.encode_s + end.prefill_s
    failed = _failure(asked.question, asked.lane.sha256, "")
    return replace(
        failed,
        answer=end.text.strip(),
        reason=end.reason.value,
        tokens=end.completion_tokens,
        seconds=round(seconds, 3),
        picture_s=round(picture_s, 3),
        losses=dict(asked.losses),
    )


def _failure(question: Question, sha256: str, why: str) -> Answered:
    return Answered(
        id=question.item.id,
        group=question.item.group,
        picture=sha256,
        query=question.query.text,
        template=question.query.template,
        answer="",
        reason="",
        tokens=0,
        seconds=0.0,
        error=why,
    )
