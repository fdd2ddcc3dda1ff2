"""The state of a batch from its events: pictures, answers, progress. No Qt here."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.text import join
from gui.data.settings import write_atomic


class RowState(Enum):
    """The state of one picture."""

    WAITING = "waiting"
    ASKING = "asking"
    ANSWERED = "answered"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One picture. text: the answer, or why there is none."""

    picture: str
    state: RowState = RowState.WAITING
    text: str = ""


class RunState(Enum):
    """The state of the whole batch."""

    IDLE = "idle"
    READING = "reading"  # the folder
    LOADING = "loading"  # the model
    ASKING = "asking"
    PAUSING = "pausing"  # after the current picture
    PAUSED = "paused"
    STOPPING = "stopping"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        return self in (RunState.IDLE, RunState.FINISHED, RunState.STOPPED, RunState.FAILED)


@dataclass(frozen=True, kw_only=True)
class Job:
    """The question, the pictures, and where the answers are written.

    output  folder of the answers; None: the folder of the pictures
    only    names of chosen pictures below the folder; None: all
    """

    folder: Path
    question: str
    output: Path | None = None
    recursive: bool = False
    texts: bool = True
    table: bool = True
    only: tuple[str, ...] | None = None

    @property
    def target(self) -> Path:
        """The folder of answers.jsonl."""
        return self.output or self.folder


def arguments(
    job: Job, model: Path, sampling: Sampling, *, vram: str, ram: str, only_file: Path | None
) -> list[str]:
    """Return the arguments of `cogvlm2-lite`. only_file: a file with the names of `job.only`."""
    found = ["batch", str(model), str(job.folder), f"--question={job.question}"]
    found += ["--json", "--control"]
    if job.output is not None:
        found += ["--output", str(job.output)]
    if only_file is not None:
        found += ["--only", str(only_file)]
    for option, wanted in (
        ("--recursive", job.recursive),
        ("--no-text", not job.texts),
        ("--no-csv", not job.table),
    ):
        found += [option] if wanted else []
    for option, value in (("--vram", vram), ("--ram", ram)):
        found += [f"{option}={value}"] if value else []
    return [
        *found,
        f"--max-new-tokens={sampling.max_new_tokens}",
        f"--temperature={sampling.temperature}",
        f"--top-p={sampling.top_p}",
        f"--top-k={sampling.top_k}",
        f"--repetition-penalty={sampling.repetition_penalty}",
    ]


@dataclass
class BatchRun:
    """The rows and the state, updated by the command's events (`apply_event`).

    skipped       pictures that earlier runs answered
    seconds_left  None while it is unknown
    error         why the batch failed, a message
    """

    job: Job
    state: RunState = RunState.READING
    rows: list[Row] = field(default_factory=list)
    skipped: int = 0
    seconds_left: float | None = None
    error: str = ""
    _places: dict[str, int] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """Pictures that were asked about, with or without success."""
        return sum(row.state in (RowState.ANSWERED, RowState.FAILED) for row in self.rows)

    @property
    def failed(self) -> int:
        return sum(row.state is RowState.FAILED for row in self.rows)

    def apply_event(self, event: Mapping[str, Any]) -> int | None:
        """Apply an event. Returns the index of the row that changed, or None if all may have."""
        match event.get("event"):
            case "plan":
                self._plan(event["pictures"], event["known"])
            case "loading":
                self.state = RunState.LOADING
            case "asking":
                if self.state not in (RunState.STOPPING, RunState.PAUSING):
                    self.state = RunState.ASKING
                return self._set(event["picture"], state=RowState.ASKING)
            case "answered":
                self.seconds_left = event["seconds_left"]
                return self._answered(event["answered"])
            case "paused":
                self.state = RunState.PAUSED
            case "resumed":
                self.state = RunState.ASKING
            case "finished":
                self._end(RunState.STOPPED if event["left"] else RunState.FINISHED)
            case "error":
                self.error = join(event["message"], event["hint"])
                self._end(RunState.FAILED)
        return None

    def process_ended(self, why: str) -> None:
        """Apply the end of the command's process. why: its last error line."""
        if not self.state.is_over:
            stopped = self.state is RunState.STOPPING
            self.error = "" if stopped else why
            self._end(RunState.STOPPED if stopped else RunState.FAILED)

    def _plan(self, names: Sequence[str], known: Sequence[Mapping[str, Any]]) -> None:
        self.rows = [Row(picture=name) for name in names]
        self._places = {name: place for place, name in enumerate(names)}
        self.skipped = len(known)
        for answered in known:
            self._answered(answered)

    def _answered(self, values: Mapping[str, Any]) -> int:
        if values["error"]:
            return self._set(values["picture"], state=RowState.FAILED, text=values["error"])
        return self._set(values["picture"], state=RowState.ANSWERED, text=values["answer"])

    def _set(self, name: str, *, state: RowState, text: str = "") -> int:
        place = self._places[name]
        self.rows[place] = replace(self.rows[place], state=state, text=text)
        return place

    def _end(self, state: RunState) -> None:
        self.state, self.seconds_left = state, None
        for place, row in enumerate(self.rows):
            if row.state is RowState.ASKING:
                self.rows[place] = replace(row, state=RowState.WAITING)


def export_rows(rows: Sequence[Row], target: Path) -> None:
    """Write rows as JSON Lines if the suffix is .jsonl, else as CSV.

    Raises CogVLM2LiteError if the file can't be written.
    """
    errors = [row.text if row.state is RowState.FAILED else "" for row in rows]
    answers = [row.text if row.state is RowState.ANSWERED else "" for row in rows]
    table = list(zip((row.picture for row in rows), answers, errors, strict=True))
    names = ("picture", "answer", "error")
    if target.suffix.lower() == ".jsonl":
        values = (dict(zip(names, line, strict=True)) for line in table)
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in values)
    else:
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([names, *table])
        # A byte order mark makes spreadsheets read the file as UTF-8.
        text = "\ufeff" + out.getvalue()
    try:
        write_atomic(target, text.encode())
    except OSError as error:
        raise CogVLM2LiteError(
            "{file} can't be written: {why}.",
            hint="Choose another place.",
            file=target,
            why=error.strerror or error,
        ) from error
