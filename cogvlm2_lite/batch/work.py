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
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Protocol

from cogvlm2_lite.batch.control import Control
from cogvlm2_lite.errors import CogVLM2LiteError, DoesNotFitError, EngineError, UsageError
from cogvlm2_lite.events import Event, Finished, FinishReason
from cogvlm2_lite.sampling import Sampling

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
JSONL, CSV = "answers.jsonl", "answers.csv"

_RETRY_TEMPERATURE, _RETRY_TOP_K = 0.6, 10
_CSV_S = 10.0
"""The CSV file is written anew at most so often while answers come: it is written whole."""


class Answering(Iterator[Event], Protocol):
    """The events of an answer that comes."""

    def close(self) -> None:
        """Cancel the answer within one token."""
        ...


class Engine(Protocol):
    """What answers: engine.process.EngineProcess, or a test's."""

    def ask(
        self, question: str, image: bytes | None = None, *, sampling: Sampling | None = None
    ) -> Answering:
        """Give the events of an answer; raises what Model.answer does, and EngineError."""
        ...

    def restart(self) -> None:
        """Start again after a death."""
        ...

    def wait_ready(self, timeout_s: float | None = None) -> object:
        """Wait until the model is loaded."""
        ...


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What came of one picture.

    picture  its path below the folder, with / between names
    answer   empty when there was an error
    error    one sentence and a hint, empty when all went well
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
class Step:
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
class Asking:
    """A picture's turn has come."""

    picture: str


@dataclass(frozen=True, kw_only=True)
class Paused:
    """The work rests until the control says `resume` or `stop`."""


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """The work goes on after a pause."""


Happened = Asking | Step | Paused | Resumed


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
    retry    ask once more, with a little chance, when an answer ran in circles
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
            "{folder} holds no picture ({suffixes}).",
            hint="" if recursive else "Add --recursive to look into the folders inside.",
            folder=folder,
            suffixes=", ".join(sorted(SUFFIXES)),
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
        raise UsageError("No picture was chosen.", hint="Name at least one.")
    return names[: task.limit]


def run_batch(
    task: Task, engine: Engine, planned: Planned | None = None, control: Control | None = None
) -> Iterator[Happened]:
    """Ask about every picture that has no answer yet; yields Asking before and a Step after each.

    planned  what plan_batch gave; None: it is asked now
    control  pauses and stops the work; when it is stopped the iterator ends

    An engine that dies is started again, and the picture it died on counts as failed. Raises what
    plan_batch does, and EngineError when the engine does not come up again.
    """
    planned, control = planned or plan_batch(task), control or Control()
    book, kept, todo = Book(task.output), len(planned.known), planned.todo
    failed, worked_s, table_s = 0, 0.0, time.monotonic()
    try:
        for done, name in enumerate(todo, 1):
            if control.paused:
                yield Paused()
                control.wait()
                yield Resumed()
            if control.stopped:
                return
            yield Asking(picture=name)
            began = time.monotonic()
            answered = _ask(name, task, engine, control)
            if answered is None:
                return
            answered = _keep(answered, task, book)
            failed += bool(answered.error)
            worked_s += time.monotonic() - began
            if task.table and time.monotonic() - table_s > _CSV_S:
                book.write_csv(planned.names)
                table_s = time.monotonic()
            yield Step(
                done=kept + done,
                total=len(planned.names),
                skipped=kept,
                failed=failed,
                seconds_left=round(worked_s / done * (len(todo) - done), 1),
                answered=answered,
            )
    finally:
        # Also after a stop or an interrupt: what is answered so far stands in every file. A disk
        # that refused the last answer would refuse this too, and its error is being told already.
        if task.table and not book.refused:
            book.write_csv(planned.names)


def _ask(name: str, task: Task, engine: Engine, control: Control) -> Answered | None:
    """Ask about one picture; None when the work was stopped in the middle of it."""
    began = time.monotonic()
    settings = [task.sampling]
    if task.retry:
        settings.append(
            replace(task.sampling, temperature=_RETRY_TEMPERATURE, top_k=_RETRY_TOP_K, seed=1)
        )
    try:
        data = (task.folder / name).read_bytes()
        for sampling in settings:
            end = _last(engine.ask(task.question, data, sampling=sampling), control)
            if end is None or end.reason is not FinishReason.REPETITION:
                break
    except OSError as error:
        why = f"{PurePosixPath(name).name} can't be read: {error.strerror or error}."
        return Answered(picture=name, question=task.question, error=why)
    except EngineError as error:
        engine.restart()
        engine.wait_ready()
        return Answered(picture=name, question=task.question, error=_sentence(error))
    except CogVLM2LiteError as error:
        return Answered(picture=name, question=task.question, error=_sentence(error))
    if end is None:
        return None
    return Answered(
        picture=name,
        question=task.question,
        answer=end.text.strip(),
        reason=end.reason.value,
        tokens=end.completion_tokens,
        seconds=round(time.monotonic() - began, 3),
    )


def _last(events: Answering, control: Control) -> Finished | None:
    """Give the end of an answer; None when the work is stopped before it comes."""
    for event in events:
        if isinstance(event, Finished):
            return event
        if control.stopped:
            events.close()
            return None
    raise EngineError("The answer did not end.", hint="Try again.")


def _keep(answered: Answered, task: Task, book: Book) -> Answered:
    """Write an answer to the files; a text file that can't be written is the picture's error."""
    if task.texts and not answered.error:
        try:
            _write_text(answered, task)
        except OSError as error:
            why = f"The text file can't be written: {error.strerror or error}."
            answered = replace(answered, error=why)
    book.add(answered)
    return answered


def _sentence(error: CogVLM2LiteError) -> str:
    return f"{error.message} {error.hint}".strip()


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
        """Give what earlier runs wrote. A line that a kill cut off is taken out of the file.

        Raises UsageError for a file that can't be read or that no batch wrote.
        """
        try:
            raw = self._file.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UsageError(
                "{file} can't be read: {why}.",
                hint="Give another folder with --output.",
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
                "{file} holds something that batch did not write.",
                hint="Move it away, or give another folder with --output.",
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
        hint="Make room or make its folder writable, and start again: it goes on where it was.",
        file=file,
        why=error.strerror or error,
    )
