"""The state of a training run from its events: plan, losses, answers. No Qt here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from cogvlm2_lite.text import join

DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")
"""Suffixes of files of pictures with answers."""

Loss = tuple[int, float]
"""A step and the loss after it."""


class RunState(Enum):
    """The state of a training run."""

    IDLE = "idle"
    READING = "reading"  # the data
    PREPARING = "preparing"  # features of the pictures
    TEACHING = "teaching"
    ANSWERING = "answering"  # held-out questions
    STOPPING = "stopping"  # after the step
    PLANNED = "planned"  # only the plan was wanted
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        return self in _OVER


_OVER = frozenset(
    {RunState.IDLE, RunState.PLANNED, RunState.FINISHED, RunState.STOPPED, RunState.FAILED}
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is learnt.

    data      pictures with answers, a folder or a file
    output    folder of the adapter
    preset    what is trained, as in cogvlm2_lite.finetune.settings
    epochs    passes over the data; 0: as many as suit the data
    replay    pictures with answers that the model knows already; None: none
    share     percent of their pictures that are mixed in
    question  for captions without one; "": the command's
    labels    of a CogVLM-SFT folder: en, zh, both; "": those that it has
    skips     train also if many rows can't be used
    restart   delete the state of an earlier run in the folder
    """

    data: Path
    output: Path
    preset: str = "words"
    epochs: int = 0
    replay: Path | None = None
    share: int = 100
    question: str = ""
    labels: str = ""
    skips: bool = False
    restart: bool = False


def arguments(
    job: Job, model: Path, *, vram: str = "", ram: str = "", plan: bool = False
) -> list[str]:
    """Return the arguments of `cogvlm2-lite`. plan: only show what would be done"""
    found = ["finetune", str(model), str(job.data), str(job.output), "--json", "--control"]
    replay = f"{job.replay}:{job.share / 100:g}" if job.replay is not None else ""
    options = (
        ("--preset", job.preset),
        ("--epochs", job.epochs),
        ("--replay", replay),
        ("--ask", job.question),
        ("--labels", job.labels),
        ("--vram", vram),
        ("--ram", ram),
    )
    found += [f"{option}={value}" for option, value in options if value]
    flags = (("--plan", plan), ("--allow-skipped", job.skips), ("--restart", job.restart))
    return [*found, *(flag for flag, wanted in flags if wanted)]


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a run is expected to take.

    seconds     of the whole run
    peak_bytes  of the device that computes
    disk_bytes  of the adapter's folder
    """

    seconds: float
    peak_bytes: int
    disk_bytes: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run does, from its event `planned`.

    replayed  answers that the model knows already, which are mixed in
    resumed   the step after which an earlier run continues; 0: it is new
    numbers   trained ones
    needs     None: not calculated
    """

    answers: int
    pictures: int
    held_out: int
    replayed: int
    skipped: int
    steps: int
    resumed: int
    numbers: int
    needs: Needs | None = None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A held-out question, and what was answered to it; None: not asked yet.

    before  by the model without the adapter
    after   with the adapter of the last step at which it was asked
    """

    question: str
    expected: str
    before: str | None = None
    after: str | None = None


@dataclass
class TeachRun:
    """The progress and the losses, updated by the command's events (`apply_event`).

    loss          of the last step; None if it was not a finite number
    seconds_left  None while it is unknown
    training      losses of the steps
    held_out      losses of the held-out answers
    best          the step with the lowest of them, whose adapter is kept; 0: none yet
    saved         the step of the last saved state
    prepared      pictures whose features are computed, and of how many
    compared      losses of the adapter that is kept and of the model without one: "held_out", and
                  "old" of what the model knew already
    samples       held-out questions with their answers, by their numbers
    error         why the run failed, a message
    notes         messages about the data and the run
    """

    job: Job
    state: RunState = RunState.READING
    plan: Plan | None = None
    step: int = 0
    epoch: int = 0
    loss: float | None = None
    seconds_left: float | None = None
    training: list[Loss] = field(default_factory=list)
    held_out: list[Loss] = field(default_factory=list)
    best: int = 0
    saved: int = 0
    asked: int = 0
    right: int = 0
    right_before: int = 0
    compared: dict[str, tuple[float, float]] = field(default_factory=dict)
    prepared: tuple[int, int] = (0, 0)
    samples: dict[int, Sample] = field(default_factory=dict)
    error: str = ""
    notes: tuple[str, ...] = ()

    def apply_event(self, event: Mapping[str, Any]) -> None:
        """Apply an event of the command."""
        match event.get("event"):
            case "planned":
                self.plan = _plan(event)
                self.step = self.saved = self.plan.resumed
                self._go_on(RunState.TEACHING)
            case "encoded":
                self.prepared = event["done"], event["total"]
                self.seconds_left = event["seconds_left"]
                self._go_on(RunState.PREPARING)
            case "step":
                self.step, self.epoch, self.loss = event["step"], event["epoch"], event["loss"]
                self.seconds_left = event["seconds_left"]
                _add(self.training, event)
                self._go_on(RunState.TEACHING)
            case "evaluated":
                _add(self.held_out, event)
                if event["best"]:
                    self.best = event["step"]
            case "sample":
                _answer(self.samples, event)
                self._go_on(RunState.ANSWERING)
            case "saved":
                self.saved = event["step"]
            case "notice" | "replanned":
                self.notes = tuple(dict.fromkeys((*self.notes, event["text"])))
            case "interrupted":
                self.saved = event.get("saved", self.saved) or 0
                self._end(RunState.STOPPED)
            case "finished":
                self.asked = event["asked"]
                self.right, self.right_before = event["right"], event["right_before"]
                self.compared = {
                    name: (event[name], event[f"{name}_before"])
                    for name in ("held_out", "old")
                    if event[name] is not None and event[f"{name}_before"] is not None
                }
                self._end(RunState.FINISHED)
            case "error":
                self.error = join(event["message"], event["hint"])
                self._end(RunState.FAILED)

    def process_ended(self, why: str, *, planned: bool) -> None:
        """Apply the end of the command's process.

        why      its last error line
        planned  only the plan was wanted
        """
        if self.state.is_over:
            return
        if planned and self.plan is not None:
            self._end(RunState.PLANNED)
            return
        stopped = self.state is RunState.STOPPING
        self.error = "" if stopped else why
        self._end(RunState.STOPPED if stopped else RunState.FAILED)

    def add_earlier(self, earlier: Earlier) -> None:
        """Put what came before this run continued in front of its own."""
        if self.plan is None:
            return
        last = self.plan.resumed
        self.training[:0] = [loss for loss in earlier.training if loss[0] <= last]
        self.held_out[:0] = [loss for loss in earlier.held_out if loss[0] <= last]
        own, self.samples = self.samples, dict(earlier.samples)
        for number, sample in own.items():
            before = self.samples.get(number, sample).before
            self.samples[number] = replace(sample, before=sample.before or before)

    def _go_on(self, state: RunState) -> None:
        if self.state is not RunState.STOPPING:
            self.state = state

    def _end(self, state: RunState) -> None:
        self.state = state
        self.seconds_left = None


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """Losses and samples of earlier steps, from the files in a folder; see TeachRun."""

    training: tuple[Loss, ...] = ()
    held_out: tuple[Loss, ...] = ()
    samples: Mapping[int, Sample] = field(default_factory=dict)


def read_earlier(folder: Path) -> Earlier:
    """Return what earlier runs wrote in an adapter's folder. What can't be read is left out."""
    training: dict[int, float] = {}
    held_out: dict[int, float] = {}
    samples: dict[int, Sample] = {}
    for entry in _read_lines(folder / "training" / "log.jsonl"):
        with suppress(ValueError, TypeError, KeyError):
            if "held_out" in entry:
                held_out[int(entry["step"])] = float(entry["held_out"])
            else:
                training[int(entry["step"])] = float(entry["loss"])
    for entry in _read_lines(folder / "training" / "samples.jsonl"):
        with suppress(TypeError, KeyError):
            _answer(samples, entry)
    return Earlier(
        training=tuple(training.items()), held_out=tuple(held_out.items()), samples=samples
    )


def _read_lines(file: Path) -> Iterator[Any]:
    """Yield the lines of a file as values. One that a kill cut is left out."""
    try:
        lines = file.read_text("utf-8", "replace").splitlines()
    except OSError:  # there is none yet
        return
    for line in lines:
        with suppress(ValueError):
            yield json.loads(line)


def _answer(samples: dict[int, Sample], event: Mapping[str, Any]) -> None:
    """Add an answer to a held-out question. The last one after a step counts."""
    number, answered = event["number"], "after" if event["step"] else "before"
    new = Sample(question=event["question"], expected=event["expected"])
    samples[number] = replace(samples.get(number, new), **{answered: event["answer"]})


def has_state(folder: Path) -> bool:
    """Return whether an adapter's folder has the state of a run, which can be continued."""
    try:
        return (folder / "training" / "state.json").is_file()
    except (OSError, ValueError):  # a name that can't exist
        return False


def _add(losses: list[Loss], event: Mapping[str, Any]) -> None:
    """Add the loss of an event, unless it was not a finite number, which JSON does not have."""
    if event["loss"] is not None:
        losses.append((event["step"], event["loss"]))


def _plan(event: Mapping[str, Any]) -> Plan:
    values = {name: event[name] for name in Plan.__dataclass_fields__ if name != "needs"}
    expected = event.get("expected")
    if expected is None:
        return Plan(**values)
    needs = Needs(**{name: expected[name] for name in Needs.__dataclass_fields__})
    return Plan(**values, needs=needs)
