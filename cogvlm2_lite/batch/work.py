"""Asks about many pictures. A broken file fails alone, and a kill loses no saved answer.

Answers are written in three forms: a line of JSON in answers.jsonl, a text file per picture, and
answers.csv. A later run resumes from the JSONL file, which is written and flushed to disk first, so
that it has the hash of every text file that this program wrote.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from cogvlm2_lite.batch.answered import EDITED, Answered
from cogvlm2_lite.batch.pictures import PictureFile, find_pictures, read_picture
from cogvlm2_lite.batch.plan import Planned, Task, plan_batch
from cogvlm2_lite.batch.saved import JSONL
from cogvlm2_lite.batch.table import CSV
from cogvlm2_lite.batch.texts import Existing, write
from cogvlm2_lite.control import Control
from cogvlm2_lite.errors import (
    CogVLM2LiteError,
    DeviceError,
    EngineError,
)
from cogvlm2_lite.events import TOO_LARGE_FOR_FLOAT16, Finished, FinishReason, Notice, PictureOpened
from cogvlm2_lite.exclusive import exclusive_folder
from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.text import Text
from cogvlm2_lite.worker.client import Outcome, WorkerEngine
from cogvlm2_lite.worker.protocol import Ask

__all__ = [
    "CSV", "JSONL", "Answered", "BatchEvent", "BatchProgress", "Paused", "PictureStarted",
    "Planned", "Resumed", "Task", "edit_answer", "find_pictures", "plan_batch", "run_batch",
]  # fmt: skip

_RETRY_TEMPERATURE, _RETRY_TOP_K = 0.6, 10

_MOST_OF_AN_ANSWER = 0.9
"""What a question in progress counts as, however long it takes: its end is not known."""


@dataclass(frozen=True, kw_only=True)
class BatchProgress:
    """The progress after each picture. skipped: answered by an earlier run."""

    done: int
    total: int
    skipped: int
    failed: int
    seconds_left: float
    answered: Answered


@dataclass(frozen=True, kw_only=True)
class PictureStarted:
    """A picture is asked about now."""

    picture: str


@dataclass(frozen=True, kw_only=True)
class Paused:
    """The batch is paused until the control is set to `resume` or `stop`."""


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """The batch runs again after a pause."""


BatchEvent = PictureStarted | BatchProgress | Paused | Resumed


def edit_answer(task: Task, picture: str, answer: str) -> bool:
    """Save the answer that a person wrote or changed. Returns whether its text file has it.

    It counts as the person's: it stands for every model, and its text file is kept by later runs. A
    text file that another program changed is kept. Raises UsageError while a batch runs in the
    folder, and DoesNotFitError if nothing can be written.
    """
    with exclusive_folder(task.output, "batch"):
        planned = plan_batch(replace(task, only=(picture,), overwrite=False))
        records = planned.saved.records(picture)
        same = [record for record in records if record.question == task.question]
        last = same[-1] if same else Answered(picture=picture, question=task.question)
        edited = replace(last, answer=answer, error="", reason=EDITED, text=None)
        writing = None
        if planned.files is not None:
            files = replace(planned.files, own_edits=True, existing=Existing.KEEP)
            try:
                _, writing = files.plan(edited, records)
            except OSError:
                writing = None
        if writing is not None:
            edited = replace(edited, text=writing.written)
        results = _Results(planned)
        results.put(planned.saved.add_answer(edited), picture)
        if writing is not None:
            try:
                write(writing)
            except OSError:
                writing = None
        results.finish()
    return planned.files is None or writing is not None


def run_batch(
    task: Task,
    engine: WorkerEngine | None,
    planned: Planned | None = None,
    control: Control | None = None,
) -> Iterator[BatchEvent]:
    """Ask about every picture that has no answer yet.

    Yields PictureStarted before and BatchProgress after each. Text files that saved answers lack
    are written first; only if that fails, BatchProgress is yielded for them.

    As many questions are in progress at once as the engine answers in parallel. If weights are
    streamed, a new wave of questions starts only when all of the last one are answered: then the
    engine takes all of them through a block's weights each time these are loaded. Answers are
    yielded and written in the order of the pictures.

    engine   ready, see WorkerEngine.wait_ready; None only if no picture is left to ask about
    planned  the result of plan_batch; None: it is called now
    control  pauses and stops the work; after a stop the iterator ends

    An engine that dies is restarted. The picture that it died on counts as failed; if several were
    in progress, each is asked about again alone, to find out which one it was. Raises the errors of
    plan_batch, and EngineError if the engine can't be restarted.
    """
    planned, control = planned or plan_batch(task), control or Control()
    results, kept = _Results(planned), len(planned.known)
    done, failed = 0, 0
    questions: _Questions | None = None

    def progress(answered: Answered) -> BatchProgress:
        nonlocal failed
        failed += bool(answered.error)
        return BatchProgress(
            done=kept + done,
            total=len(planned.names),
            skipped=kept,
            failed=failed,
            seconds_left=round(questions.seconds_left if questions else 0.0, 1),
            answered=answered,
        )

    def keep(answered: Answered) -> BatchProgress:
        nonlocal done
        answered = results.keep(answered)
        done += 1
        return progress(answered)

    try:
        results.begin()
        yield from map(progress, results.rewrite())
        if engine is None:
            assert not planned.todo, "pictures are left, and there is no engine"
            return
        questions = _Questions(task, engine, planned.todo)
        while questions.left:
            yield from map(keep, questions.take_in_order())
            if control.paused and not questions.under_way:
                yield Paused()
                questions.clock.pause(control.wait)
                yield Resumed()
            if control.stopped:
                questions.cancel()
                yield from map(keep, questions.take_all())
                return
            name = None if control.paused else questions.next_picture()
            if name is not None:
                yield PictureStarted(picture=name)
                questions.ask()
            elif questions.under_way:
                questions.wait()
    finally:
        # Also after a stop or an interrupt, all files have the answers so far. If the disk rejected
        # the last answer it would reject these too, and that error is already being raised.
        if not planned.saved.failed:
            for answered in questions.take_all() if questions else ():
                results.keep(answered)
            results.finish()


class _Results:
    """Writes the answers to their files."""

    def __init__(self, planned: Planned) -> None:
        self._planned = planned
        self._places = {**planned.others, **planned.known.places}
        names = planned.names
        if planned.others:
            names = tuple(sorted({*names, *planned.others}, key=lambda name: name.split("/")))
        self._names = names
        self._table = planned.table

    def begin(self) -> None:
        """Write the table with the answers of earlier runs."""
        if self._table is not None and self._places:
            self._table.begin(self._in_order())

    def rewrite(self) -> Iterator[Answered]:
        """Write the text files that saved answers lack. Yields the answers for which that fails."""
        saved = self._planned.saved
        for name in self._planned.rewrite:
            (answered,) = saved.read_at([self._places[name]])
            written = self._write(replace(answered, error=""), again=True)
            if written.error:
                yield written

    def keep(self, answered: Answered) -> Answered:
        """Save an answer; a failure to write its text file becomes its error."""
        answered = self._write(answered, again=False)
        if self._table is not None:
            if not self._table.is_begun:
                self._table.begin([])
            self._table.add(answered)
        return answered

    def put(self, place: int, picture: str) -> None:
        """Note the place of a picture's newest answer."""
        self._places[picture] = place

    def finish(self) -> None:
        """Write the table in the order of the pictures."""
        if self._table is not None and self._places:
            self._table.finish(self._in_order())

    def _in_order(self) -> Iterator[Answered]:
        for name in self._names:
            if name in self._places:
                yield from self._planned.saved.read_at([self._places[name]])

    def _write(self, answered: Answered, *, again: bool) -> Answered:
        """Write the line of JSON and the text file. again: the line is there already."""
        saved, files, writing = self._planned.saved, self._planned.files, None
        try:
            if files is not None and answered.stands and not answered.error:
                records = saved.records(answered.picture)
                _, writing = files.plan(answered, records)
                if writing is not None:
                    answered = replace(answered, text=writing.written)
            if not again or (writing is not None and writing.content is not None):
                self._places[answered.picture] = saved.add_answer(answered)
            if writing is not None:
                write(writing)
        except OSError as error:
            why = Text("The text file can't be written: {why}.", why=error.strerror or error)
            answered = replace(answered, error=why, text=None)
            self._places[answered.picture] = saved.add_answer(answered)
        return answered


class _Clock:
    """Measures the time of the work, without its pauses."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def worked_s(self) -> float:
        return time.monotonic() - self._began

    def pause(self, wait: Callable[[], None]) -> None:
        """Wait without counting the time."""
        began = time.monotonic()
        wait()
        self._began += time.monotonic() - began


@dataclass(kw_only=True, eq=False)
class _UnderWay:
    """A question in progress about one picture.

    place  number of the picture in this run
    tries  settings of further attempts, used if the answer repeats itself
    draft  a text that the answer probably resembles, or ""
    before  notices from before the question
    """

    place: int
    file: PictureFile
    tries: list[Sampling]
    began: float
    draft: str = ""
    before: tuple[Text, ...] = ()
    notices: tuple[Text, ...] = ()


class _Questions:
    """Keeps as many questions in progress as the engine answers at once.

    Answers that finish early are kept until those of the pictures before them have finished.
    """

    def __init__(self, task: Task, engine: WorkerEngine, names: Sequence[str]) -> None:
        self._task, self._engine, self._names = task, engine, names
        self._outcomes: queue.SimpleQueue[tuple[int, Outcome]] = queue.SimpleQueue()
        self._under_way: dict[int, _UnderWay] = {}
        self._in_float32 = False
        self._answered: dict[int, Answered] = {}
        self._alone: list[int] = []
        """Pictures to ask about again one at a time, with no other question in progress."""
        self._asked = self._taken = self._ended = 0
        self._wave_is_full = False
        self._answers, self._answers_s = 0, 0.0
        self.clock = _Clock()

    @property
    def left(self) -> bool:
        """Whether there are answers that were not taken yet."""
        return self._taken < len(self._names)

    @property
    def under_way(self) -> bool:
        return bool(self._under_way)

    @property
    def seconds_left(self) -> float:
        """The expected time of the other answers.

        A question in progress counts as a part of an answer: else the first of several that run at
        once would seem to have taken the time of all.
        """
        left = len(self._names) - self._ended
        if not self._answers_s:
            return self.clock.worked_s / max(self._ended, 1) * left
        mean_s, now = self._answers_s / self._answers, time.monotonic()
        begun = sum(
            min((now - asked.began) / mean_s, _MOST_OF_AN_ANSWER)
            for asked in self._under_way.values()
        )
        return self.clock.worked_s / (self._answers + begun) * (left - begun)

    def next_picture(self) -> str | None:
        """Return the picture to ask about now; None: wait for answers first."""
        place = self._next_place()
        return None if place is None else self._names[place]

    def _next_place(self) -> int | None:
        if self._alone:
            return None if self._under_way else self._alone[0]
        loaded = self._engine.loaded
        parallel = loaded.parallel if loaded else 1
        if self._under_way and self._wave_is_full:
            return None
        # A limit on kept answers, so that little is lost if the program is killed.
        ahead = self._asked - self._taken >= 2 * parallel
        if ahead or len(self._under_way) >= parallel or self._asked == len(self._names):
            return None
        return self._asked

    def ask(self) -> None:
        """Ask about the picture that `next_picture` returned."""
        place = self._next_place()
        assert place is not None
        self._wave_is_full = False
        if self._alone:
            self._alone.pop(0)
        else:
            self._asked += 1
        task, name = self._task, self._names[place]
        tries = [task.sampling]
        if task.retry:
            tries.append(
                replace(task.sampling, temperature=_RETRY_TEMPERATURE, top_k=_RETRY_TOP_K, seed=1)
            )
        try:
            file = read_picture(task.folder / name)
        except OSError as error:
            why = Text(
                "{file} can't be read: {why}.",
                file=escape_line(name.rpartition("/")[2]),
                why=error.strerror or error,
            )
            self._fail(place, why)
            return
        except CogVLM2LiteError as error:
            self._fail(place, error.text)
            return
        draft, before = ("", ()) if task.drafts is None else task.drafts.of(name)
        self._submit(
            _UnderWay(
                place=place,
                file=file,
                tries=tries,
                began=time.monotonic(),
                draft=draft,
                before=before,
            )
        )

    def _submit(self, asked: _UnderWay) -> None:
        """Send the question with the first of the remaining tries."""
        ask = Ask(
            request=self._engine.new_request(),
            question=self._task.question,
            image=asked.file.data,
            sampling=asked.tries.pop(0),
            template=self._task.template,
            upright=self._task.upright,
            page=self._task.page,
            draft_text=asked.draft,
        )
        self._under_way[ask.request] = asked
        try:
            self._engine.submit(ask, lambda outcome: self._outcomes.put((ask.request, outcome)))
        except CogVLM2LiteError as error:
            self._outcomes.put((ask.request, error))

    def wait(self) -> None:
        """Wait for the engine's next outcome."""
        self._wave_is_full = bool(self._engine.loaded and self._engine.loaded.streams)
        request, outcome = self._outcomes.get()
        asked = self._under_way.get(request)
        if asked is None:  # from a process that has ended
            return
        match outcome:
            case EngineError() | DeviceError():
                self._recover(asked, outcome)
            case CogVLM2LiteError():
                del self._under_way[request]
                self._fail(asked.place, outcome.text)
            case PictureOpened():
                asked.notices = outcome.notices
            case Notice() if outcome.text == TOO_LARGE_FOR_FLOAT16 and not self._in_float32:
                self._in_float32 = True  # all pictures in progress begin again; one reports it
                asked.notices = (*asked.notices, outcome.text)
            case Finished():
                del self._under_way[request]
                self._finish(asked, outcome)

    def _finish(self, asked: _UnderWay, end: Finished) -> None:
        if end.reason is FinishReason.REPETITION and asked.tries:
            self._submit(asked)
            return
        answer = end.text.strip()
        seconds = time.monotonic() - asked.began
        self._answers += 1
        self._answers_s += seconds
        self._ended += 1
        self._answered[asked.place] = Answered(
            picture=self._names[asked.place],
            question=self._task.question,
            answer=answer,
            error=_no_answer(answer, end.reason, retried=self._task.retry),
            reason=end.reason.value,
            tokens=end.completion_tokens,
            seconds=round(seconds, 3),
            notices=(*asked.before, *asked.notices),
            sha256=asked.file.sha256,
            stamp=asked.file.stamp,
            model=self._task.model,
            settings=self._task.settings_key,
        )

    def _fail(self, place: int, why: Text) -> None:
        self._ended += 1
        self._answered[place] = Answered(
            picture=self._names[place], question=self._task.question, error=why
        )

    def _recover(self, asked: _UnderWay, error: CogVLM2LiteError) -> None:
        """Restart the engine after its death, or after a fault that may affect later answers."""
        places = sorted(each.place for each in self._under_way.values())
        self._under_way.clear()
        self._engine.restart()
        self._engine.wait_ready()
        if len(places) == 1:
            self._fail(asked.place, error.text)
        else:
            self._alone += places

    def cancel(self) -> None:
        """Stop and discard the answers in progress."""
        for request in self._under_way:
            self._engine.cancel(request)
        self._under_way.clear()

    def take_in_order(self) -> Iterator[Answered]:
        """Yield the finished answers that are next in the order of the pictures."""
        while self._taken in self._answered:
            answered = self._answered.pop(self._taken)
            self._taken += 1
            yield answered

    def take_all(self) -> Iterator[Answered]:
        """Yield all finished answers, in the order of the pictures."""
        for place in sorted(self._answered):
            yield self._answered.pop(place)


def _no_answer(answer: str, reason: FinishReason, *, retried: bool) -> Text:
    """Return why an answer must not be saved; "" if it may be."""
    if reason is FinishReason.REPETITION:
        if retried:
            return Text("The answer repeated itself, and so did a second one with sampling.")
        return Text("The answer repeated itself.")
    return Text() if answer else Text("The answer is empty.")
