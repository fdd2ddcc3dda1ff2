"""Ask about many pictures: one file's trouble is that file's, and a kill loses nothing.

Answers lie in three forms: a text file for each picture, one line of JSON each in answers.jsonl,
and answers.csv. The JSONL file is what a later run trusts: a line is written and forced to the disk
after the text file is there. The CSV file is made from it every few seconds and at the end.
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
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.text import Text
from cogvlm2_lite.worker.client import Outcome, WorkerEngine
from cogvlm2_lite.worker.protocol import Ask

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
JSONL, CSV = "answers.jsonl", "answers.csv"

_RETRY_TEMPERATURE, _RETRY_TOP_K = 0.6, 10
_CSV_S = 10.0
"""The CSV file is written anew at most so often while answers come: it is written whole."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What came of one picture.

    picture  its path below the folder, with / between names
    answer   empty when there was an error
    error    one sentence and a hint, empty when all went well; a Text in the run that made it
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
    """How far the work is, after each picture. skipped: done by an earlier run."""

    done: int
    total: int
    skipped: int
    failed: int
    seconds_left: float
    answered: Answered


@dataclass(frozen=True, kw_only=True)
class Planned:
    """All pictures by their names, in order, and the answers that earlier runs gave."""

    names: tuple[str, ...]
    known: Mapping[str, Answered]

    @property
    def todo(self) -> tuple[str, ...]:
        """Those that will be asked about."""
        return tuple(name for name in self.names if name not in self.known)


@dataclass(frozen=True, kw_only=True)
class PictureStarted:
    """A picture's turn has come."""

    picture: str


@dataclass(frozen=True, kw_only=True)
class Paused:
    """The work rests until the control says `resume` or `stop`."""


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """The work goes on after a pause."""


Happened = PictureStarted | BatchProgress | Paused | Resumed


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is asked.

    folder   of the pictures
    output   where answers.jsonl and answers.csv go, and the text files unless `beside`
    beside   text files lie beside their pictures
    only     names of the only pictures that are asked about; None: all of the folder
    texts, table  whether to write text files, and answers.csv; answers.jsonl is always written,
             for a later run goes on from it
    prefix, suffix  put around every answer in the text files, as captions need it
    retry    ask once more, with some randomness, when an answer repeated itself
    """

    folder: Path
    question: str
    output: Path
    beside: bool = True
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


def find_pictures(folder: Path, *, recursive: bool) -> list[Path]:
    """List the picture files of a folder by name; UsageError when there is none."""
    if not folder.is_dir():
        raise UsageError(
            "There is no folder {folder}.", hint="Give the folder of the pictures.", folder=folder
        )
    files = folder.rglob("*") if recursive else folder.iterdir()
    found = sorted(f for f in files if f.suffix.lower() in SUFFIXES and f.is_file())
    if not found:
        raise UsageError(
            "{folder} has no pictures ({kinds}).",
            hint="" if recursive else "Add --recursive to look into the folders inside.",
            folder=folder,
            kinds=", ".join(sorted(SUFFIXES)),
        )
    return found


def plan_batch(task: Task) -> Planned:
    """Find the pictures, and what earlier runs answered. Nothing is written.

    Raises UsageError without pictures, for a name of `only` that leads out of the folder, and for
    an answers.jsonl that no batch wrote.
    """
    names = _chosen(task) if task.only is not None else _found(task)
    known = {} if task.overwrite else Book(task.output).read()
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
) -> Iterator[Happened]:
    """Ask about every picture that has no answer yet.

    Yields PictureStarted before and BatchProgress after each.

    As many pictures are under way at once as the loaded engine answers. Steps come, and answers are
    written, in the order of the pictures.

    engine   ready, see WorkerEngine.wait_ready
    planned  what plan_batch returned; None: it is called now
    control  pauses and stops the work; when it is stopped the iterator ends

    An engine that dies is started again. The picture that it died on counts as failed; where
    several were under way, each is asked about again alone to find out which one it was. Raises
    what plan_batch does, and EngineError when the engine does not come up again.
    """
    planned, control = planned or plan_batch(task), control or Control()
    book, kept = Book(task.output), len(planned.known)
    questions = _Questions(task, engine, planned.todo)
    done, failed, clock, table_s = 0, 0, _Clock(), time.monotonic()

    def keep(answered: Answered) -> BatchProgress:
        nonlocal done, failed, table_s
        answered = _keep(answered, task, book)
        done, failed = done + 1, failed + bool(answered.error)
        if task.table and time.monotonic() - table_s > _CSV_S:
            book.write_csv(planned.names)
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
        # Also after a stop or an interrupt: what is answered so far stands in every file. A disk
        # that refused the last answer would refuse this too, and its error is being told already.
        if not book.refused:
            for answered in questions.take_all():
                _keep(answered, task, book)
            if task.table:
                book.write_csv(planned.names)


class _Clock:
    """Measures how long the work takes, without its pauses."""

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
    """A picture that the engine is asked about now.

    place  its number among the pictures of this run
    tries  settings for further attempts, when the answer repeats itself
    """

    place: int
    image: bytes
    tries: list[Sampling]
    began: float


class _Questions:
    """Keeps as many pictures under way as the engine answers at once.

    Answers that come early are held until those of the pictures before them are there.
    """

    def __init__(self, task: Task, engine: WorkerEngine, names: Sequence[str]) -> None:
        self._task, self._engine, self._names = task, engine, names
        self._outcomes: queue.SimpleQueue[tuple[int, Outcome]] = queue.SimpleQueue()
        self._under_way: dict[int, _UnderWay] = {}
        self._answered: dict[int, Answered] = {}
        self._alone: list[int] = []
        """Places of pictures that are asked about again with no other under way."""
        self._asked = self._taken = 0

    @property
    def left(self) -> bool:
        """Whether there are answers that were not taken yet, or are still to come."""
        return self._taken < len(self._names)

    @property
    def under_way(self) -> bool:
        return bool(self._under_way)

    def next_picture(self) -> str | None:
        """Return the picture that can be asked about now; None: wait for answers first."""
        place = self._next_place()
        return None if place is None else self._names[place]

    def _next_place(self) -> int | None:
        if self._alone:
            return None if self._under_way else self._alone[0]
        loaded = self._engine.loaded
        parallel = loaded.parallel if loaded else 1
        # Few answers are held, so that little is lost when the program is killed.
        ahead = self._asked - self._taken >= 2 * parallel
        if ahead or len(self._under_way) >= parallel or self._asked == len(self._names):
            return None
        return self._asked

    def ask(self) -> None:
        """Ask about the picture that `next_picture` named."""
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
        """Ask with the first of the tries."""
        ask = Ask(
            request=self._engine.new_request(),
            question=self._task.question,
            image=asked.image,
            sampling=asked.tries.pop(0),
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
        if asked is None:  # of a process that has ended
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
        """Start the engine again after its death, or a fault that may leave others behind."""
        places = sorted(each.place for each in self._under_way.values())
        self._under_way.clear()
        self._engine.restart()
        self._engine.wait_ready()
        if len(places) == 1:
            self._fail(asked.place, error.text)
        else:
            self._alone += places

    def cancel(self) -> None:
        """Stop the answers under way; they are not kept."""
        for request in self._under_way:
            self._engine.cancel(request)
        self._under_way.clear()

    def take_in_order(self) -> Iterator[Answered]:
        """Yield the answers that come next in the order of the pictures."""
        while self._taken in self._answered:
            answered = self._answered.pop(self._taken)
            self._taken += 1
            yield answered

    def take_all(self) -> Iterator[Answered]:
        """Yield all answers that are there, in the order of the pictures."""
        for place in sorted(self._answered):
            yield self._answered.pop(place)


def _keep(answered: Answered, task: Task, book: Book) -> Answered:
    """Write an answer to the files; a text file that can't be written is the picture's error."""
    if task.texts and not answered.error:
        try:
            _write_text(answered, task)
        except OSError as error:
            why = Text("The text file can't be written: {why}.", why=error.strerror or error)
            answered = replace(answered, error=why)
    book.add(answered)
    return answered


def _write_text(answered: Answered, task: Task) -> None:
    home = task.folder if task.beside else task.output
    target = (home / answered.picture).with_suffix(".txt")
    _write_whole(target, f"{task.prefix}{answered.answer}{task.suffix}\n")


def _write_whole(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    temporary.replace(target)


class Book:
    """The answers of a folder; of several about one picture the last one counts.

    refused  an answer could not be written
    """

    refused = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / JSONL

    def read(self) -> dict[str, Answered]:
        """Return what earlier runs wrote. A line that a kill cut off is removed from the file.

        Raises UsageError for a file that can't be read or that no batch wrote.
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
        """Write one answer down; it is on the disk when this returns.

        Raises DoesNotFitError when it can't be written: without this file nothing would be known of
        the work, so it ends.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab") as stream:
                stream.write(json.dumps(asdict(answered), ensure_ascii=False).encode() + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            self.refused = True
            raise _unwritten(self._file, error) from error

    def write_csv(self, names: Sequence[str]) -> None:
        """Write answers.csv with the pictures of this run, in their order. Raises as `add` does."""
        rows = self.read()
        if not rows:
            return
        out = io.StringIO()
        table = csv.writer(out, lineterminator="\n")
        table.writerow(("picture", "answer", "error"))
        for name in names:
            if name in rows:
                table.writerow((name, rows[name].answer, rows[name].error))
        # A mark at the start lets spreadsheets see that it is UTF-8.
        target = self._folder / CSV
        try:
            _write_whole(target, "\ufeff" + out.getvalue())
        except OSError as error:
            raise _unwritten(target, error) from error


def _unwritten(file: Path, error: OSError) -> DoesNotFitError:
    return DoesNotFitError(
        "{file} can't be written: {why}.",
        hint="Free some space or make its folder writable, and start again: it continues where it "
        "stopped.",
        file=file,
        why=error.strerror or error,
    )
