"""Ask about many pictures: one file's trouble is that file's, and a kill loses nothing.

Answers lie in three forms: a text file for each picture, one line of JSON each in answers.jsonl,
and answers.csv. The JSONL file is what a later run trusts: a line is written and forced to the disk
after the text file is there, and the CSV file is made from it.
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from cogvlm2_lite.engine.settings import Sampling
from cogvlm2_lite.errors import CogVLM2LiteError, EngineError, UsageError
from cogvlm2_lite.events import Event, Finished, FinishReason

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
JSONL, CSV = "answers.jsonl", "answers.csv"

_RETRY_TEMPERATURE, _RETRY_TOP_K = 0.6, 10


class Engine(Protocol):
    """What answers: engine.process.EngineProcess, or a test's."""

    def ask(
        self, question: str, image: bytes | None = None, *, sampling: Sampling | None = None
    ) -> Iterator[Event]:
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
class Task:
    """What is asked.

    folder   of the pictures
    output   where answers.jsonl and answers.csv go, and the text files unless `beside`
    beside   text files lie beside their pictures
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
    prefix: str = ""
    suffix: str = ""
    retry: bool = True
    sampling: Sampling = Sampling()  # noqa: RUF009 - frozen


def find_pictures(folder: Path, *, recursive: bool) -> list[Path]:
    """List the picture files of a folder by name; UsageError when there is none."""
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.", hint="Give the folder of the pictures.")
    files = folder.rglob("*") if recursive else folder.iterdir()
    found = sorted(f for f in files if f.suffix.lower() in SUFFIXES and f.is_file())
    if not found:
        raise UsageError(
            f"{folder} holds no picture ({', '.join(sorted(SUFFIXES))}).",
            hint="" if recursive else "Add --recursive to look into the folders inside.",
        )
    return found


def run_batch(task: Task, engine: Engine) -> Iterator[Step]:
    """Ask about every picture that has no answer yet; yields a Step after each.

    An engine that dies is started again, and the picture it died on counts as failed. Raises
    UsageError without pictures, and EngineError when the engine does not come up again.
    """
    pictures = find_pictures(task.folder, recursive=task.recursive)[: task.limit]
    book = Book(task.output)
    known = {} if task.overwrite else book.read()
    names = [picture.relative_to(task.folder).as_posix() for picture in pictures]
    kept = {
        name
        for name in names
        if name in known and known[name].question == task.question and not known[name].error
    }
    todo = [(p, n) for p, n in zip(pictures, names, strict=True) if n not in kept]
    failed, began = 0, time.monotonic()
    for done, (picture, name) in enumerate(todo, 1):
        answered = _ask(picture, name, task, engine)
        if answered.error:
            failed += 1
        else:
            _write_text(picture, name, answered.answer, task)
        book.add(answered)
        left = (time.monotonic() - began) / done * (len(todo) - done)
        yield Step(
            done=len(kept) + done,
            total=len(names),
            skipped=len(kept),
            failed=failed,
            seconds_left=round(left, 1),
            answered=answered,
        )
    book.write_csv(names)


def _ask(picture: Path, name: str, task: Task, engine: Engine) -> Answered:
    began = time.monotonic()
    settings = [task.sampling]
    if task.retry:
        settings.append(
            replace(task.sampling, temperature=_RETRY_TEMPERATURE, top_k=_RETRY_TOP_K, seed=1)
        )
    try:
        data = picture.read_bytes()
        for sampling in settings:
            end = _last(engine.ask(task.question, data, sampling=sampling))
            if end.reason is not FinishReason.REPETITION:
                break
    except OSError as error:
        why = f"{picture.name} can't be read: {error.strerror or error}."
        return Answered(picture=name, question=task.question, error=why)
    except EngineError as error:
        engine.restart()
        engine.wait_ready()
        return Answered(picture=name, question=task.question, error=_sentence(error))
    except CogVLM2LiteError as error:
        return Answered(picture=name, question=task.question, error=_sentence(error))
    return Answered(
        picture=name,
        question=task.question,
        answer=end.text.strip(),
        reason=end.reason.value,
        tokens=end.completion_tokens,
        seconds=round(time.monotonic() - began, 3),
    )


def _last(events: Iterator[Event]) -> Finished:
    for event in events:
        if isinstance(event, Finished):
            return event
    raise EngineError("The answer did not end.", hint="Try again.")


def _sentence(error: CogVLM2LiteError) -> str:
    return f"{error.message} {error.hint}".strip()


def _write_text(picture: Path, name: str, answer: str, task: Task) -> None:
    target = picture.with_suffix(".txt")
    if not task.beside:
        target = (task.output / name).with_suffix(".txt")
    _write_whole(target, f"{task.prefix}{answer}{task.suffix}\n")


def _write_whole(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(target)


class Book:
    """The answers of a folder; of several about one picture the last one counts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / JSONL

    def read(self) -> dict[str, Answered]:
        """Give what earlier runs wrote. A line that a kill cut off is taken out of the file.

        Raises UsageError for a file that no batch wrote.
        """
        try:
            raw = self._file.read_bytes()
        except FileNotFoundError:
            return {}
        whole = raw[: raw.rfind(b"\n") + 1]
        if whole != raw:
            self._file.write_bytes(whole)
        try:
            rows = [Answered(**json.loads(line)) for line in whole.splitlines() if line.strip()]
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"{self._file} holds something that batch did not write.",
                hint="Move it away, or give another folder with --output.",
            ) from error
        return {row.picture: row for row in rows}

    def add(self, answered: Answered) -> None:
        """Write one answer down; it is on the disk when this returns."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._file.open("ab") as stream:
            stream.write(json.dumps(asdict(answered), ensure_ascii=False).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())

    def write_csv(self, names: Sequence[str]) -> None:
        """Write answers.csv with the pictures of this run, in their order."""
        rows = self.read()
        out = io.StringIO()
        table = csv.writer(out)
        table.writerow(("picture", "answer", "error"))
        for name in names:
            if name in rows:
                table.writerow((name, rows[name].answer, rows[name].error))
        # A mark at the start lets spreadsheets see that it is UTF-8.
        _write_whole(self._folder / CSV, "\ufeff" + out.getvalue().rstrip("\n"))
