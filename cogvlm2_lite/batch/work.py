"""Asks about many pictures. A broken file fails alone, and a kill loses no saved answer.

Answers are written in three forms: a text file per picture, a line of JSON in answers.jsonl, and
answers.csv. A later run resumes from the JSONL file: a line is written and flushed to disk after
the text file is complete. The CSV file is made from it every few seconds and at the end.
"""

from __future__ import annotations

import csv
import io
import json
import os
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from cogvlm2_lite.batch.control import Control
from cogvlm2_lite.errors import (
    CogVLM2LiteError,
    DeviceError,
    DoesNotFitError,
    EngineError,
    UsageError,
)
from cogvlm2_lite.events import Finished, FinishReason
from cogvlm2_lite.inputs.formats import readable_suffixes
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.text import Text
from cogvlm2_lite.worker.client import Outcome, WorkerEngine
from cogvlm2_lite.worker.protocol import Ask

JSONL, CSV = "answers.jsonl", "answers.csv"

_RETRY_TEMPERATURE, _RETRY_TOP_K = 0.6, 10
_CSV_S = 10.0
"""The shortest time between two writes of the CSV file, which is always written as a whole."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The result for one picture.

    picture  its path relative to the folder, with / between names
    answer   empty if there was an error
    error    one sentence and a hint, empty without an error; a Text in the run that made it
    reason   why the answer ended (FinishReason)
    """

    picture: str
    question: str
    answer: str = ""
    error: str = ""
    reason: str = ""
    tokens: int = 0
    seconds: float = 0.0


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
class Planned:
    """The names of all pictures, in order, and the answers of earlier runs."""

    names: tuple[str, ...]
    known: Mapping[str, Answered]

    @property
    def todo(self) -> tuple[str, ...]:
        """The pictures without an answer."""
        return tuple(name for name in self.names if name not in self.known)


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


@dataclass(frozen=True, kw_only=True)
class Task:
    """The options of a batch.

    folder   of the pictures
    output   folder of answers.jsonl and answers.csv, and of the text files unless they are
             next_to_pictures
    only     names of the pictures to ask about; None: all of the folder
    texts, table  whether to write text files, and answers.csv; answers.jsonl is always written,
             because a later run resumes from it
    prefix, suffix  put around every answer in the text files, as captions need it
    retry    ask once more, with sampling, if an answer repeated itself
    template of the prompt; None: the model's own
    """

    folder: Path
    question: str
    output: Path
    next_to_pictures: bool = True
    recursive: bool = False
    overwrite: bool = False
    limit: int | None = None
    only: tuple[str, ...] | None = None
    texts: bool = True
    table: bool = True
    prefix: str = ""
    suffix: str = ""
    retry: bool = True
    sampling: Sampling = Sampling()  # noqa: RUF009 - frozen
    template: str | None = None


def find_pictures(folder: Path, *, recursive: bool) -> list[Path]:
    """Return the picture files of a folder, sorted by name; UsageError if there are none."""
    if not folder.is_dir():
        raise UsageError(
            "There is no folder {folder}.",
            hint="Use the folder that contains the pictures.",
            folder=folder,
        )
    files = folder.rglob("*") if recursive else folder.iterdir()
    suffixes = readable_suffixes()
    found = sorted(f for f in files if f.suffix.lower() in suffixes and f.is_file())
    if not found:
        raise UsageError(
            "{folder} has no pictures ({kinds}).",
            hint="" if recursive else "Add --recursive to include subfolders.",
            folder=folder,
            kinds=", ".join(suffixes),
        )
    return found


def plan_batch(task: Task) -> Planned:
    """Return the pictures and the answers of earlier runs. Nothing is written.

    Raises UsageError without pictures, for a name of `only` that leads out of the folder, and for
    an answers.jsonl that `batch` did not write.
    """
    names = _chosen(task) if task.only is not None else _found(task)
    known = {} if task.overwrite else SavedAnswers(task.output).read()
    kept = {
        name: known[name]
        for name in names
        if name in known and known[name].question == task.question and not known[name].error
    }
    return Planned(names=names, known=kept)


def _found(task: Task) -> tuple[str, ...]:
    pictures = find_pictures(task.folder, recursive=task.recursive)[: task.limit]
    return tuple(picture.relative_to(task.folder).as_posix() for picture in pictures)


def _chosen(task: Task) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name for name in task.only or () if name))
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise UsageError(
                "{name} is not a path below {folder}.",
                hint="Name pictures by their paths below the folder, with / between names.",
                name=name,
                folder=task.folder,
            )
    if not names:
        raise UsageError("No picture was chosen.", hint="Choose at least one.")
    return names[: task.limit]


def run_batch(
    task: Task,
    engine: WorkerEngine,
    planned: Planned | None = None,
    control: Control | None = None,
) -> Iterator[BatchEvent]:
    """Ask about every picture that has no answer yet.

    Yields PictureStarted before and BatchProgress after each.

    As many questions are in progress at once as the engine answers in parallel. Answers are yielded
    and written in the order of the pictures.

    engine   ready, see WorkerEngine.wait_ready
    planned  the result of plan_batch; None: it is called now
    control  pauses and stops the work; after a stop the iterator ends

    An engine that dies is restarted. The picture that it died on counts as failed; if several were
    in progress, each is asked about again alone, to find out which one it was. Raises the errors of
    plan_batch, and EngineError if the engine can't be restarted.
    """
    planned, control = planned or plan_batch(task), control or Control()
    saved, kept = SavedAnswers(task.output), len(planned.known)
    questions = _Questions(task, engine, planned.todo)
    done, failed, clock, table_s = 0, 0, _Clock(), time.monotonic()

    def keep(answered: Answered) -> BatchProgress:
        nonlocal done, failed, table_s
        answered = _keep(answered, task, saved)
        done, failed = done + 1, failed + bool(answered.error)
        if task.table and time.monotonic() - table_s > _CSV_S:
            saved.write_csv(planned.names)
            table_s = time.monotonic()
        return BatchProgress(
            done=kept + done,
            total=len(planned.names),
            skipped=kept,
            failed=failed,
            seconds_left=round(clock.worked_s / done * (len(planned.todo) - done), 1),
            answered=answered,
        )

    try:
        while questions.left:
            yield from map(keep, questions.take_in_order())
            if control.paused and not questions.under_way:
                yield Paused()
                clock.pause(control.wait)
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
        if not saved.failed:
            for answered in questions.take_all():
                _keep(answered, task, saved)
            if task.table:
                saved.write_csv(planned.names)


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
    """

    place: int
    image: bytes
    tries: list[Sampling]
    began: float


class _Questions:
    """Keeps as many questions in progress as the engine answers at once.

    Answers that finish early are kept until those of the pictures before them have finished.
    """

    def __init__(self, task: Task, engine: WorkerEngine, names: Sequence[str]) -> None:
        self._task, self._engine, self._names = task, engine, names
        self._outcomes: queue.SimpleQueue[tuple[int, Outcome]] = queue.SimpleQueue()
        self._under_way: dict[int, _UnderWay] = {}
        self._answered: dict[int, Answered] = {}
        self._alone: list[int] = []
        """Pictures to ask about again one at a time, with no other question in progress."""
        self._asked = self._taken = 0

    @property
    def left(self) -> bool:
        """Whether there are answers that were not taken yet."""
        return self._taken < len(self._names)

    @property
    def under_way(self) -> bool:
        return bool(self._under_way)

    def next_picture(self) -> str | None:
        """Return the picture to ask about now; None: wait for answers first."""
        place = self._next_place()
        return None if place is None else self._names[place]

    def _next_place(self) -> int | None:
        if self._alone:
            return None if self._under_way else self._alone[0]
        loaded = self._engine.loaded
        parallel = loaded.parallel if loaded else 1
        # A limit on kept answers, so that little is lost if the program is killed.
        ahead = self._asked - self._taken >= 2 * parallel
        if ahead or len(self._under_way) >= parallel or self._asked == len(self._names):
            return None
        return self._asked

    def ask(self) -> None:
        """Ask about the picture that `next_picture` returned."""
        place = self._next_place()
        assert place is not None
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
            image = (task.folder / name).read_bytes()
        except OSError as error:
            why = Text(
                "{file} can't be read: {why}.",
                file=PurePosixPath(name).name,
                why=error.strerror or error,
            )
            self._fail(place, why)
            return
        self._submit(_UnderWay(place=place, image=image, tries=tries, began=time.monotonic()))

    def _submit(self, asked: _UnderWay) -> None:
        """Send the question with the first of the remaining tries."""
        ask = Ask(
            request=self._engine.new_request(),
            question=self._task.question,
            image=asked.image,
            sampling=asked.tries.pop(0),
            template=self._task.template,
        )
        self._under_way[ask.request] = asked
        try:
            self._engine.submit(ask, lambda outcome: self._outcomes.put((ask.request, outcome)))
        except CogVLM2LiteError as error:
            self._outcomes.put((ask.request, error))

    def wait(self) -> None:
        """Wait for the engine's next outcome."""
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
            case Finished():
                del self._under_way[request]
                self._finish(asked, outcome)

    def _finish(self, asked: _UnderWay, end: Finished) -> None:
        if end.reason is FinishReason.REPETITION and asked.tries:
            self._submit(asked)
            return
        self._answered[asked.place] = Answered(
            picture=self._names[asked.place],
            question=self._task.question,
            answer=end.text.strip(),
            reason=end.reason.value,
            tokens=end.completion_tokens,
            seconds=round(time.monotonic() - asked.began, 3),
        )

    def _fail(self, place: int, why: Text) -> None:
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


def _keep(answered: Answered, task: Task, saved: SavedAnswers) -> Answered:
    """Write an answer to the files; a failure to write its text file becomes its error."""
    if task.texts and not answered.error:
        try:
            _write_text(answered, task)
        except OSError as error:
            why = Text("The text file can't be written: {why}.", why=error.strerror or error)
            answered = replace(answered, error=why)
    saved.add(answered)
    return answered


def _write_text(answered: Answered, task: Task) -> None:
    home = task.folder if task.next_to_pictures else task.output
    target = (home / answered.picture).with_suffix(".txt")
    _write_whole(target, f"{task.prefix}{answered.answer}{task.suffix}\n")


def _write_whole(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    temporary.replace(target)


class SavedAnswers:
    """The saved answers of a folder. Of several answers about one picture the last one counts.

    failed  an answer could not be written
    """

    failed = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / JSONL

    def read(self) -> dict[str, Answered]:
        """Return the answers of earlier runs. An incomplete last line is removed from the file.

        Raises UsageError for a file that can't be read or that `batch` did not write.
        """
        try:
            raw = self._file.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UsageError(
                "{file} can't be read: {why}.",
                hint="Choose another folder with --output.",
                file=self._file,
                why=error.strerror or error,
            ) from error
        whole = raw[: raw.rfind(b"\n") + 1]
        if whole != raw:
            self._file.write_bytes(whole)
        try:
            rows = [Answered(**json.loads(line)) for line in whole.splitlines() if line.strip()]
        except (ValueError, TypeError) as error:
            raise UsageError(
                "{file} has lines that batch did not write.",
                hint="Move it away, or choose another folder with --output.",
                file=self._file,
            ) from error
        return {row.picture: row for row in rows}

    def add(self, answered: Answered) -> None:
        """Save one answer; it is on disk when this returns.

        Raises DoesNotFitError if it can't be written: the work can't be resumed without this file.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab") as stream:
                stream.write(json.dumps(asdict(answered), ensure_ascii=False).encode() + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            self.failed = True
            raise _unwritten(self._file, error) from error

    def write_csv(self, names: Sequence[str]) -> None:
        """Write answers.csv with the pictures of this run, in order. Raises the errors of `add`."""
        rows = self.read()
        if not rows:
            return
        out = io.StringIO()
        table = csv.writer(out, lineterminator="\n")
        table.writerow(("picture", "answer", "error"))
        for name in names:
            if name in rows:
                table.writerow((name, rows[name].answer, rows[name].error))
        # With a byte order mark, spreadsheets read the file as UTF-8.
        target = self._folder / CSV
        try:
            _write_whole(target, "\ufeff" + out.getvalue())
        except OSError as error:
            raise _unwritten(target, error) from error


def _unwritten(file: Path, error: OSError) -> DoesNotFitError:
    return DoesNotFitError(
        "{file} can't be written: {why}.",
        hint="Free some space or make its folder writable, then run the same command to resume.",
        file=file,
        why=error.strerror or error,
    )
