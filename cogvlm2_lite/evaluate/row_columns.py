"""The columns of an evaluation on rows: the base model and adapters, their runs and results.

Each column has a run folder of its own below the evaluation's: run.json and answers.jsonl. So an
adapter that is added later is asked alone, and saved answers never change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cogvlm2_lite.config import read_config
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.evaluate.answer_scores import pictures_of
from cogvlm2_lite.evaluate.answers import Answered, SavedAnswers
from cogvlm2_lite.evaluate.items import Item
from cogvlm2_lite.evaluate.job import Job, with_present_answers
from cogvlm2_lite.evaluate.metrics import Measured
from cogvlm2_lite.evaluate.row_data import (
    ROWS,
    Asker,
    Form,
    RowData,
    groups_in_order,
    no_rows,
)
from cogvlm2_lite.evaluate.row_measures import (
    AnsweredRow,
    Difference,
    Values,
    compare_rows,
    measure_rows,
    row_values,
    with_loss,
)
from cogvlm2_lite.evaluate.run_folder import Run, data_files
from cogvlm2_lite.evaluate.work import Planned, Question
from cogvlm2_lite.events import FinishReason
from cogvlm2_lite.rows.row import Skipped
from cogvlm2_lite.weights.adapter_choice import BASE, AdapterChoice
from cogvlm2_lite.weights.adapter_names import OWN_NAME
from cogvlm2_lite.weights.identity import identify_model
from cogvlm2_lite.weights.manifest import MANIFEST_NAME

if TYPE_CHECKING:
    from cogvlm2_lite.weights.adapter import Adapter


@dataclass(frozen=True, kw_only=True)
class Column:
    """A model whose answers stand next to those of others.

    name      "base", or that of the adapter
    adapters  what acts, added up; (): the base model
    form      how it reads rows
    """

    name: str
    form: Form
    adapters: tuple[AdapterChoice, ...] = ()

    @property
    def adapter(self) -> str:
        """The adapter to ask for; "": none."""
        return self.adapters[0].name if self.adapters else ""

    @property
    def folder(self) -> str:
        """The name of its run folder."""
        return re.sub(r"[^\w.+-]+", "-", self.name).strip("-.") or "adapter"


def columns_of(
    template: str, choices: Sequence[AdapterChoice], adapters: Mapping[str, Adapter]
) -> list[Column]:
    """Return the base model, once for each template that an adapter learnt, and the adapters.

    template  the checkpoint's
    choices   those of one name are added up
    adapters  by name, as read

    An adapter is measured in the form in which it was trained, and the base model in the same one.
    The loss of the base model, and of adapters of other programs, which do not say how their
    answers begin, is measured with and without a space before the answer.
    """
    found: list[Column] = []
    for name, adapter in adapters.items():
        own = tuple(choice for choice in choices if choice.name == name)
        known = all((choice.folder / OWN_NAME).is_file() for choice in own)
        spaces = (adapter.answer_space,) if known else (False, True)
        form = Form(template=adapter.template or template, spaces=spaces)
        found.append(Column(name=name, form=form, adapters=own))
    if not found:
        return [Column(name=BASE, form=_base_form(template))]
    templates = list(dict.fromkeys(column.form.template for column in found))
    bases = [
        Column(name=BASE if not place else f"{BASE} ({each})", form=_base_form(each))
        for place, each in enumerate(templates)
    ]
    return [*bases, *found]


def _base_form(template: str) -> Form:
    """Return the form of the base model: with its losses in both, it serves every adapter."""
    return Form(template=template, spaces=(False, True))


# --- what to ask ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class ColumnJob:
    """A column and its run."""

    column: Column
    job: Job


@dataclass(frozen=True, kw_only=True)
class RowSettings:
    """What the command line says about the questions.

    limit           how many rows; None: all
    max_new_tokens  of an answer; None: twice the longest expected one, and 64 at least
    """

    limit: int | None = None
    seed: int = 0
    max_new_tokens: int | None = None


def row_jobs(
    folder: Path,
    found: RowData,
    columns: Sequence[Column],
    options: LoadOptions,
    settings: RowSettings,
    *,
    label: str,
    restart: bool,
) -> tuple[RowData, list[ColumnJob]]:
    """Return the rows that every column can read, and the run of each. Nothing is written.

    folder  of the evaluation
    label   the model for people

    Raises UsageError if a folder belongs to other settings, DataError if no row can be used, and
    CheckpointError.
    """
    _check_folders(columns)
    asker = Asker(options.folder, read_config(options.folder))
    chosen = _choose(found, columns, asker, settings)
    found = replace(found, skipped=(*found.skipped, *chosen.skipped))
    items = tuple(chosen.items)
    if not items:
        raise no_rows(found.data.files[0].path, found.skipped)
    new_tokens = settings.max_new_tokens or asker.new_tokens(found.data.items)
    jobs = []
    for column in columns:
        questions = tuple(chosen.questions[column.name])
        run = Run(
            model=label if not column.adapters else f"{label} + {column.name}",
            model_id=identify_model(options.folder, column.adapters),
            quantized=(options.folder / MANIFEST_NAME).is_file(),
            benchmark=ROWS,
            data=found.data.name,
            files=data_files(found.data),
            items=len(items) if settings.limit is None else len(found.data.items),
            protocol=_protocol(column, upright=found.upright),
            template=column.form.template,
            max_new_tokens=new_tokens,
            dtype=options.dtype,
            rope=options.rope,
            kv=options.kv,
            activations=options.activations,
            seed=settings.seed,
        ).with_chosen(items, settings.limit)
        job = Job(
            folder=folder / column.folder,
            data=found.data,
            items=items,
            run=run,
            old=None,
            planned=Planned(questions=questions, known={}),
            saved=SavedAnswers(folder / column.folder),
        )
        jobs.append(ColumnJob(column=column, job=job if restart else with_present_answers(job)))
    return found, jobs


def _protocol(column: Column, *, upright: bool) -> str:
    """Return what run.json says of the form of questions, next to the template."""
    stored = "" if upright else ", pictures as stored"
    return f"loss {' and '.join(column.form.names)}{stored}"


def _check_folders(columns: Sequence[Column]) -> None:
    names = [column.folder.casefold() for column in columns]  # some disks ignore upper case
    twice = next((c for c in reversed(columns) if names.count(c.folder.casefold()) > 1), None)
    if twice is not None:
        raise UsageError(
            "The answers of {name!r} would be in the same folder as those of another adapter.",
            hint="Name them: --adapter one=FOLDER --adapter two=FOLDER.",
            name=twice.name,
        )


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """The rows to ask, the questions of each column in the same order, and what can't be asked."""

    items: list[Item]
    questions: dict[str, list[Question]]
    skipped: list[Skipped]


def _choose(
    found: RowData, columns: Sequence[Column], asker: Asker, settings: RowSettings
) -> _Chosen:
    """Return whole pictures until there are enough rows that every column can be asked about.

    The tokens of rows that are not reached are not made: data may have hundreds of thousands.
    """
    chosen = _Chosen(items=[], questions={column.name: [] for column in columns}, skipped=[])
    limit = settings.limit
    for group in groups_in_order(found, None if limit is None else settings.seed):
        if limit is not None and len(chosen.items) >= limit:
            break
        for item in group:
            made = _questions(found, item, columns, asker)
            if isinstance(made, Skipped):
                chosen.skipped.append(made)
                continue
            chosen.items.append(item)
            for question in made:
                chosen.questions[question.column].append(question)
    return chosen


def _questions(
    found: RowData, item: Item, columns: Sequence[Column], asker: Asker
) -> list[Question] | Skipped:
    """Return the question of each column, or why a row can't be asked."""
    made = []
    for column in columns:
        row = found.rows[item.id]
        question = asker.question(item, row, column.form, upright=found.upright)
        if isinstance(question, Skipped):
            return question
        made.append(replace(question, column=column.name, adapter=column.adapter))
    return made


def asked_together(jobs: Sequence[ColumnJob]) -> Planned:
    """Return what is left to ask of all columns; questions about one picture follow each other."""
    together: dict[str, list[Question]] = {}
    for each in jobs:
        for question in each.job.planned.todo:
            key = question.picture or f"\n{question.item.id}"
            together.setdefault(key, []).append(question)
    return Planned(
        questions=tuple(question for group in together.values() for question in group), known={}
    )


# --- results --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class ColumnResult:
    """A column with its answers and measures.

    answers   to the chosen items, by id
    rows      the same as measured, with their values
    loss_form  "with a space" or "without a space": how the answers begin whose loss is shown
    measured  by name, see row_measures.MEASURES
    base      the column it is compared with; None: it is a base itself, or nothing is common
    differences  from it, by name
    """

    column: Column
    job: Job
    answers: Mapping[str, Answered]
    rows: Mapping[str, AnsweredRow]
    values: Mapping[str, Values]
    loss_form: str
    measured: Mapping[str, Measured]
    base: Column | None = None
    differences: Mapping[str, Difference] | None = None


def results_of(jobs: Sequence[ColumnJob], *, case: bool) -> list[ColumnResult]:
    """Return the results of all columns that have answers.

    case  an answer in other letters of upper or lower case is not equal
    """
    answered = [(each, each.job.answers()) for each in jobs]
    forms = _loss_forms([(each.column, answers) for each, answers in answered if answers])
    found: list[ColumnResult] = []
    for each, answers in answered:
        if not answers:
            continue
        form = forms[each.column.name]
        rows = _answered_rows(each.job, answers, form)
        values = {id: row_values(row, case=case) for id, row in rows.items()}
        result = ColumnResult(
            column=each.column,
            job=each.job,
            answers=answers,
            rows=rows,
            values=values,
            loss_form=form,
            measured=measure_rows(list(rows.values()), values=list(values.values())),
        )
        found.append(_compared(result, found))
    return found


def _loss_forms(columns: Sequence[tuple[Column, Mapping[str, Answered]]]) -> dict[str, str]:
    """Return the form of the losses that each column shows.

    The one with the smaller loss, if both are measured; but the base model has that of the first
    adapter of its template.
    """
    found: dict[str, str] = {}
    first: dict[str, str] = {}
    for column, answers in reversed(columns):
        found[column.name] = _expected_form(column, answers)
        if column.adapters:
            first[column.form.template] = found[column.name]
        else:
            found[column.name] = first.get(column.form.template, found[column.name])
    return found


def _expected_form(column: Column, answers: Mapping[str, Answered]) -> str:
    """Return the form of answers that a model expects; a tie is without a space."""

    def total(name: str) -> float:
        return sum(each.losses[name][0] for each in answers.values() if name in each.losses)

    return min(column.form.names, key=total)


def _answered_rows(job: Job, answers: Mapping[str, Answered], form: str) -> dict[str, AnsweredRow]:
    pictures = pictures_of(job.items, answers)
    found = {}
    for item in job.items:
        if item.id not in answers:
            continue
        given = answers[item.id]
        loss, tokens = given.losses.get(form, (0.0, 0))
        found[item.id] = AnsweredRow(
            picture=pictures[item.id],
            expected=item.answers[0],
            answer=given.answer,
            ended=given.reason == FinishReason.EOS.value,
            tokens=given.tokens,
            loss=loss,
            loss_tokens=tokens,
        )
    return found


def _compared(result: ColumnResult, before: Sequence[ColumnResult]) -> ColumnResult:
    """Return a column with its differences from the base model in the same form."""
    template = result.column.form.template
    bases = (
        each
        for each in before
        if not each.column.adapters and each.column.form.template == template
    )
    base = next(bases, None)
    if not result.column.adapters or base is None:
        return result
    theirs = _answered_rows(base.job, base.answers, result.loss_form)
    common = [id for id in result.rows if id in theirs]
    if not common:
        return result
    differences = compare_rows(
        [theirs[id] for id in common],
        [result.rows[id] for id in common],
        values=[(with_loss(base.values[id], theirs[id]), result.values[id]) for id in common],
    )
    return replace(result, base=base.column, differences=differences)
