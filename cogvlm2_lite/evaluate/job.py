"""One model on one benchmark: its run folder, what is left to ask, and its score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.evaluate.answers import Answered, SavedAnswers
from cogvlm2_lite.evaluate.benchmarks import CEILINGS
from cogvlm2_lite.evaluate.items import Data, Item
from cogvlm2_lite.evaluate.protocols import PROTOCOLS
from cogvlm2_lite.evaluate.run_folder import (
    Run,
    check_folder,
    check_same,
    data_files,
    read_run,
    write_file,
)
from cogvlm2_lite.evaluate.subsets import choose
from cogvlm2_lite.evaluate.totals import Score
from cogvlm2_lite.evaluate.work import Planned, Question, plan_questions, questions_of
from cogvlm2_lite.file_names import to_json
from cogvlm2_lite.weights.identity import identify_model
from cogvlm2_lite.weights.manifest import MANIFEST_NAME

SCORES = "scores.json"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command line says about the questions. None: the default, or that of the run.

    limit     how many questions; None: all
    protocol  see protocols.py
    max_new_tokens  of an answer; None: the benchmark's ceiling
    """

    limit: int | None = None
    seed: int | None = None
    protocol: str | None = None
    max_new_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run: its settings, its questions and the answers of earlier calls.

    old      what run.json says; None for a new folder
    planned  what is left to ask
    saved    the file of the answers
    """

    folder: Path
    data: Data
    items: tuple[Item, ...]
    run: Run
    old: Run | None
    planned: Planned
    saved: SavedAnswers

    @property
    def has_answers(self) -> bool:
        """Whether the data has right answers; those of some tests are kept by their authors."""
        return any(item.answers for item in self.data.items)

    def file_of(self, _: Question) -> SavedAnswers:
        """Return where the answer to a question is saved."""
        return self.saved

    def answers(self) -> dict[str, Answered]:
        """Return the answers to the chosen items that the folder has now, by id."""
        found = self.saved.newest()
        sent = {each.item.id: each.query for each in self.planned.questions}
        return {
            item.id: found[item.id]
            for item in self.items
            if item.id in found
            and (found[item.id].template, found[item.id].query)
            == (sent[item.id].template, sent[item.id].text)
        }


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A job with its answers and their score."""

    job: Job
    answers: Mapping[str, Answered]
    score: Score


def new_job(
    folder: Path,
    data: Data,
    model: str,
    options: LoadOptions,
    settings: Settings,
    *,
    restart: bool,
) -> Job:
    """Return the run of a model folder on a benchmark. Nothing is written.

    folder   of the run
    model    the model for people; options: how to load it
    restart  ignore what the folder has

    Raises UsageError if the folder belongs to other settings, and CheckpointError.
    """
    protocol, seed = settings.protocol or PROTOCOLS[0], settings.seed or 0
    run = Run(
        model=model,
        model_id=identify_model(options.folder, options.adapters),
        quantized=(options.folder / MANIFEST_NAME).is_file(),
        benchmark=data.benchmark,
        data=data.name,
        files=data_files(data),
        items=len(data.items),
        protocol=protocol,
        template="",
        max_new_tokens=settings.max_new_tokens or CEILINGS[data.benchmark],
        dtype=options.dtype,
        rope=options.rope,
        kv=options.kv,
        activations=options.activations,
        seed=seed,
    )
    job = _job(folder, data, run, settings.limit)
    if restart:
        return job
    return with_present_answers(job)


def with_present_answers(job: Job) -> Job:
    """Return a run with the answers that its folder has now, and what run.json says now.

    Raises UsageError if the folder belongs to other settings.
    """
    old = check_folder(job.folder, job.run)
    planned = plan_questions(job.planned.questions, job.saved.newest())
    run = job.run if old is None else replace(job.run, date=old.date, compute=old.compute)
    return replace(job, run=run, old=old, planned=planned)


def finished_job(folder: Path, data: Data, settings: Settings) -> Job:
    """Return the run that a folder has; the model is not needed.

    Raises UsageError if it has none, or belongs to other data or settings.
    """
    old = read_run(folder)
    if old is None:
        raise UsageError(
            "There is no run in {folder}.",
            hint="Leave --score-only out to ask the questions, or name the folder with --output.",
            folder=folder,
        )
    run = replace(
        old,
        benchmark=data.benchmark,
        files=data_files(data),
        protocol=settings.protocol or old.protocol,
        seed=old.seed if settings.seed is None else settings.seed,
        max_new_tokens=settings.max_new_tokens or old.max_new_tokens,
    )
    limit = old.limit if settings.limit is None else settings.limit
    job = _job(folder, data, run, limit)
    check_same(folder, old, job.run)
    return replace(job, old=old)


def predicted_job(
    folder: Path, data: Data, settings: Settings, model: str, predictions: Mapping[str, str]
) -> tuple[Job, dict[str, Answered]]:
    """Return a run of answers that another program made, and these answers."""
    run = Run(
        model=model,
        model_id="",
        benchmark=data.benchmark,
        data=data.name,
        files=data_files(data),
        items=len(data.items),
        protocol=settings.protocol or PROTOCOLS[0],
        template="",
        max_new_tokens=settings.max_new_tokens or CEILINGS[data.benchmark],
        seed=settings.seed or 0,
    )
    job = _job(folder, data, run, settings.limit)
    answers = {
        each.item.id: Answered(
            id=each.item.id,
            group=each.item.group,
            picture="",
            query=each.query.text,
            template=each.query.template,
            answer=predictions[each.item.id],
            reason="",
            tokens=0,
            seconds=0.0,
        )
        for each in job.planned.questions
        if each.item.id in predictions
    }
    return job, answers


def _job(folder: Path, data: Data, run: Run, limit: int | None) -> Job:
    items = choose(data, limit, run.seed)
    questions = questions_of(data, items, run.protocol)
    template = ", ".join(sorted({each.query.template for each in questions}))
    return Job(
        folder=folder,
        data=data,
        items=tuple(items),
        run=replace(run, template=template).with_chosen(items, limit),
        old=None,
        planned=Planned(questions=questions, known={}),
        saved=SavedAnswers(folder),
    )


def write_scores(folder: Path, score: Score, items: Sequence[Item]) -> None:
    """Write scores.json: the same bytes for the same answers. Raises DoesNotFitError."""
    values = asdict(score)
    scored = values["items"]
    values["items"] = {item.id: scored[item.id] for item in items if item.id in scored}
    write_file(folder / SCORES, (to_json(values, indent=1) + "\n").encode())
