"""The state of an evaluation from its events: progress and scores. No Qt here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cogvlm2_lite.evaluate.benchmarks import BENCHMARKS
from cogvlm2_lite.file_names import unescape_name
from cogvlm2_lite.text import join
from gui.data.run_state import RunState


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is evaluated.

    benchmarks  names, or one data file
    data        a folder with the data files; None: the usual places
    output      folder of the results, below it a folder for each model
    limit       questions of each benchmark; 0: all
    protocol    "" for the command's default
    against     a model folder or the folder of an earlier run; None: no comparison
    restart     ask everything again; the old answers are kept under another name
    """

    benchmarks: tuple[str, ...]
    output: Path
    data: Path | None = None
    limit: int = 0
    protocol: str = ""
    against: Path | None = None
    restart: bool = False


def arguments(
    job: Job, model: Path, name: str, *, vram: str, ram: str, adapter: Path | None = None
) -> list[str]:
    """Return the arguments of `cogvlm2-lite`.

    name     of the model's folder of results
    adapter  that all answers use
    """
    folder = job.output / name
    if len(job.benchmarks) == 1:  # the command makes these folders only for several
        folder /= Path(job.benchmarks[0]).stem
    found = ["evaluate", str(model), *job.benchmarks, "--json", "--control", f"--output={folder}"]
    options = (
        ("--data", job.data),
        ("--limit", job.limit),
        ("--protocol", job.protocol),
        ("--against", job.against),
        ("--vram", vram),
        ("--ram", ram),
        ("--adapter", adapter),
    )
    found += [f"{option}={value}" for option, value in options if value]
    return [*found, *(["--restart"] if job.restart else [])]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The score of a benchmark.

    benchmark  as in cogvlm2_lite.evaluate.benchmarks
    value      points; None: not graded
    hits       right answers, where the unit is hits
    asked, of  questions that were asked, and all of the data
    report     the HTML file
    """

    benchmark: str
    data: str
    model: str
    value: float | None
    low: float | None
    high: float | None
    unit: str
    hits: int | None
    asked: int
    of: int
    protocol: str
    report: Path

    @property
    def title(self) -> str:
        """The benchmark's name; for a person's own questions or rows the name of their file."""
        if self.benchmark == "vqa" or self.benchmark not in BENCHMARKS:
            return self.data
        return BENCHMARKS[self.benchmark].title


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The comparison of two models on a benchmark, in points; a is the reference."""

    a: str
    b: str
    loss: float
    low: float
    high: float
    changed: float
    verdict: str
    questions: int
    needed: int | None


@dataclass
class EvaluationRun:
    """The progress and the scores, updated by the command's events (`apply_event`).

    seconds_left  None while it is unknown
    error         why the evaluation failed, a message
    notes         messages about the data files
    scored        the scores, in the order in which they came
    compared      comparisons by the name of their data
    """

    job: Job
    state: RunState = RunState.READING
    failed: int = 0
    error: str = ""
    notes: tuple[str, ...] = ()
    scored: list[Scored] = field(default_factory=list)
    compared: dict[str, Compared] = field(default_factory=dict)
    _totals: dict[tuple[str, str], int] = field(default_factory=dict)
    _done: dict[tuple[str, str], int] = field(default_factory=dict)
    _failed: dict[tuple[str, str], int] = field(default_factory=dict)
    _left: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Questions of all models and benchmarks."""
        return sum(self._totals.values())

    @property
    def done(self) -> int:
        """Questions that were asked, with or without success."""
        return sum(self._done.values())

    @property
    def seconds_left(self) -> float | None:
        """The expected time of the rest; None while it is unknown."""
        return sum(self._left.values()) if self._left else None

    def apply_event(self, event: Mapping[str, Any]) -> None:
        """Apply an event of the command."""
        match event.get("event"):
            case "plan":
                self._plan(event)
            case "loading":
                self._go_on(RunState.LOADING)
            case "answered":
                self._answered(event)
            case "paused":
                self.state = RunState.PAUSED
            case "resumed":
                self.state = RunState.ASKING
            case "scored":
                self._go_on(RunState.SCORING)
                self.scored.append(_scored(event))
            case "compared":
                self.compared[event["data"]] = _compared(event)
            case "finished":
                self.failed = event["failed"]
                self._end(RunState.STOPPED if event["left"] else RunState.FINISHED)
            case "error":
                self.error = join(event["message"], event["hint"])
                self._end(RunState.FAILED)

    def process_ended(self, why: str) -> None:
        """Apply the end of the command's process. why: its last error line"""
        if not self.state.is_over:
            stopped = self.state is RunState.STOPPING
            self.error = "" if stopped else why
            self._end(RunState.STOPPED if stopped else RunState.FAILED)

    def _go_on(self, state: RunState) -> None:
        if self.state not in (RunState.STOPPING, RunState.PAUSING):
            self.state = state

    def _plan(self, event: Mapping[str, Any]) -> None:
        key = _key(event)
        self._totals[key], self._done[key] = event["questions"], event["known"]
        self._left[key] = event["seconds"]
        self.notes = tuple(dict.fromkeys((*self.notes, *event.get("notices", ()))))

    def _answered(self, event: Mapping[str, Any]) -> None:
        key = _key(event)
        self._go_on(RunState.ASKING)
        self._done[key], self._left[key] = event["done"], event["seconds_left"]
        self._failed[key] = event["failed"]
        self.failed = sum(self._failed.values())

    def _end(self, state: RunState) -> None:
        self.state = state
        self._left.clear()


def _key(event: Mapping[str, Any]) -> tuple[str, str]:
    return event["model"], event["data"]


def _scored(event: Mapping[str, Any]) -> Scored:
    plain = {
        name: event[name]
        for name in Scored.__dataclass_fields__
        if name != "report"
    }  # fmt: skip
    return Scored(**plain, report=Path(unescape_name(event["report"])))


def _compared(event: Mapping[str, Any]) -> Compared:
    return Compared(**{name: event[name] for name in Compared.__dataclass_fields__})
