"""The state of a batch from its events: pictures, answers, progress. No Qt here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from cogvlm2_lite.batch.plan import Task, plan_batch
from cogvlm2_lite.batch.table import HEADER
from cogvlm2_lite.batch.texts import Existing
from cogvlm2_lite.file_names import escape_line, to_json, unescape_name
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.text import join
from gui.data.run_state import RunState
from gui.data.saving import How, Kind, save, save_table


class RowState(Enum):
    """The state of one picture."""

    WAITING = "waiting"
    ASKING = "asking"
    ANSWERED = "answered"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One picture.

    picture  its name as the command writes it: bytes that are not UTF-8 are escaped
    text     the answer, or why there is none
    notices  what a person would not expect of how the picture was read
    """

    picture: str
    state: RowState = RowState.WAITING
    text: str = ""
    notices: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The path of the picture below the folder."""
        return unescape_name(self.picture)

    @property
    def shown_name(self) -> str:
        """The name as one line."""
        return escape_line(self.file)

    @cached_property
    def searched(self) -> str:
        """The name and the text, as they are compared with a search."""
        return f"{self.shown_name}\n{self.text}".casefold()


@dataclass(frozen=True, kw_only=True)
class Job:
    """The question, the pictures, and where the answers are written.

    output  folder of the answers; None: the folder of the pictures
    only    names of chosen pictures below the folder; None: all
    existing  what to do with text files that this program did not write
    overwrite  ask again about pictures that have an answer
    prefix, suffix  words around each answer in the text files
    """

    folder: Path
    question: str
    output: Path | None = None
    recursive: bool = False
    texts: bool = True
    table: bool = True
    only: tuple[str, ...] | None = None
    existing: Existing = Existing.KEEP
    overwrite: bool = False
    prefix: str = ""
    suffix: str = ""

    @property
    def target(self) -> Path:
        """The folder of answers.jsonl."""
        return self.output or self.folder

    @property
    def task(self) -> Task:
        """The same for the functions of `cogvlm2_lite.batch`."""
        return Task(
            folder=self.folder,
            question=self.question,
            output=self.target,
            next_to_pictures=self.output is None,
            texts=self.texts,
            table=self.table,
            prefix=self.prefix,
            suffix=self.suffix,
        )


def count_own_texts(job: Job) -> int:
    """Return how many text files that the job would write are the user's. Reads them all.

    Raises what `plan_batch` raises.
    """
    task = replace(job.task, recursive=job.recursive, only=job.only, overwrite=job.overwrite)
    return plan_batch(task).persons


def arguments(
    job: Job,
    model: Path,
    sampling: Sampling,
    *,
    vram: str,
    ram: str,
    only_file: Path | None,
    adapter: Path | None = None,
) -> list[str]:
    """Return the arguments of `cogvlm2-lite`.

    only_file  a file with the names of `job.only`
    adapter    that all answers use
    """
    found = ["batch", str(model), str(job.folder), f"--question={job.question}"]
    found += ["--json", "--control", f"--existing={job.existing.value}"]
    if job.output is not None:
        found += ["--output", str(job.output)]
    if only_file is not None:
        found += ["--only", str(only_file)]
    if adapter is not None:
        found.append(f"--adapter={adapter}")
    for option, wanted in (
        ("--recursive", job.recursive),
        ("--no-text", not job.texts),
        ("--no-csv", not job.table),
        ("--overwrite", job.overwrite),
    ):
        found += [option] if wanted else []
    words = (("--prefix", job.prefix), ("--suffix", job.suffix))
    for option, value in (("--vram", vram), ("--ram", ram), *words):
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
    partial       only some of the rows are asked about; the others stay
    notes         messages: what existed before, and what happens to it
    """

    job: Job
    state: RunState = RunState.READING
    rows: list[Row] = field(default_factory=list)
    skipped: int = 0
    seconds_left: float | None = None
    error: str = ""
    notes: tuple[str, ...] = ()
    partial: bool = False
    _places: dict[str, int] = field(default_factory=dict)
    _counts: Counter[RowState] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return len(self.rows)

    @property
    def done(self) -> int:
        """Pictures that were asked about, with or without success."""
        return self._counts[RowState.ANSWERED] + self._counts[RowState.FAILED]

    @property
    def failed(self) -> int:
        return self._counts[RowState.FAILED]

    def again(self, job: Job, names: Sequence[str]) -> BatchRun:
        """Return a run that asks about some of the pictures again. Their names are as in rows."""
        only = tuple(unescape_name(name) for name in names)
        return BatchRun(
            job=replace(job, only=only, overwrite=True), rows=list(self.rows), partial=True
        )

    def edited(self, place: int, answer: str) -> None:
        """Note the answer that the user wrote."""
        self._set(self.rows[place].picture, RowState.ANSWERED, answer)

    def set_back(self, row: Row) -> None:
        """Set a row back, because its change could not be saved."""
        self._set(row.picture, row.state, row.text, row.notices)

    def apply_event(self, event: Mapping[str, Any]) -> int | None:
        """Apply an event. Returns the index of the row that changed, or None if all may have."""
        match event.get("event"):
            case "plan":
                self._plan(event["pictures"], event["known"])
                self.notes = tuple(event.get("notes", ()))
            case "loading":
                self.state = RunState.LOADING
            case "asking":
                if self.state not in (RunState.STOPPING, RunState.PAUSING):
                    self.state = RunState.ASKING
                return self._set(event["picture"], RowState.ASKING)
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
        if not self.partial:
            self.rows = [Row(picture=name) for name in names]
        self._places = {row.picture: place for place, row in enumerate(self.rows)}
        self._counts = Counter(row.state for row in self.rows)
        self.skipped = 0 if self.partial else len(known)
        for name in names if self.partial else ():
            self._set(name, RowState.WAITING)
        for answered in known:
            self._answered(answered)

    def _answered(self, values: Mapping[str, Any]) -> int:
        state = RowState.FAILED if values["error"] else RowState.ANSWERED
        text = values["error"] or values["answer"]
        return self._set(values["picture"], state, text, tuple(values.get("notices", ())))

    def _set(
        self, name: str, state: RowState, text: str = "", notices: tuple[str, ...] = ()
    ) -> int:
        place = self._places[name]
        self._counts[self.rows[place].state] -= 1
        self._counts[state] += 1
        self.rows[place] = Row(picture=name, state=state, text=text, notices=notices)
        return place

    def _end(self, state: RunState) -> None:
        self.state, self.seconds_left = state, None
        for row in self.rows:
            if row.state is RowState.ASKING:
                self._set(row.picture, RowState.WAITING)


KINDS = (
    Kind(suffix=".csv", label="CSV", adds=True),
    Kind(suffix=".jsonl", label="JSON Lines", adds=True),
)


def export_rows(rows: Sequence[Row], target: Path, how: How = How.NEW) -> None:
    """Write rows as JSON Lines if the suffix is .jsonl, else as CSV. Raises SaveError.

    Rows that are added to a table come without its head.
    """
    errors = [row.text if row.state is RowState.FAILED else "" for row in rows]
    answers = [row.text if row.state is RowState.ANSWERED else "" for row in rows]
    if target.suffix.lower() == ".jsonl":
        lines = zip((row.picture for row in rows), answers, errors, strict=True)
        text = "".join(to_json(dict(zip(HEADER, line, strict=True))) + "\n" for line in lines)
        save(target, text.encode(), how)
    else:
        names = (row.shown_name for row in rows)
        save_table([HEADER, *zip(names, answers, errors, strict=True)], target, how)
