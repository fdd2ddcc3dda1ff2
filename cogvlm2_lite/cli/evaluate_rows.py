"""`evaluate` on rows of pictures with answers: the base model and adapters side by side."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.evaluate_output import Reporter
from cogvlm2_lite.cli.parser import load_options
from cogvlm2_lite.config import read_config
from cogvlm2_lite.control import Control
from cogvlm2_lite.demo.shipped import model_folder, model_names
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.evaluate.job import Job, with_present_answers
from cogvlm2_lite.evaluate.report import HTML
from cogvlm2_lite.evaluate.row_columns import (
    Column,
    ColumnJob,
    ColumnResult,
    RowSettings,
    asked_together,
    columns_of,
    results_of,
    row_jobs,
)
from cogvlm2_lite.evaluate.row_data import (
    ROWS,
    DataOptions,
    RowData,
    context_for_rows,
    read_row_data,
    reasons_text,
)
from cogvlm2_lite.evaluate.row_measures import POINTS
from cogvlm2_lite.evaluate.row_report import (
    RowResult,
    difference_rows,
    measure_table,
    table_lines,
    write_files,
)
from cogvlm2_lite.evaluate.run_folder import check_compute, set_aside, write_run
from cogvlm2_lite.evaluate.work import Asked, AskEvent, Expected, Planned, Question, ask_all
from cogvlm2_lite.exclusive import exclusive_folder
from cogvlm2_lite.file_names import escape_line, escape_name, valid_text
from cogvlm2_lite.places import expand_home
from cogvlm2_lite.units import format_seconds
from cogvlm2_lite.worker.client import WorkerEngine

if TYPE_CHECKING:
    from cogvlm2_lite.engine.outlook import Outlook
    from cogvlm2_lite.evaluate.answers import SavedAnswers
    from cogvlm2_lite.weights.adapter import Adapter

_HOME = Path("evaluate")
_OF_BENCHMARKS = ("data", "protocol", "against", "predictions", "grades", "export")
"""Options that have no meaning for rows."""

Start = Callable[[LoadOptions], AbstractContextManager[WorkerEngine]]


@dataclass(frozen=True, kw_only=True)
class RowWork:
    """Carries the command out for each DATA that has rows."""

    args: argparse.Namespace
    report: Reporter
    start: Start

    def run(self, control: Control) -> int:
        """Plan, ask, measure and report; return 0 if every chosen row has all its answers."""
        for name in _OF_BENCHMARKS:
            if getattr(self.args, name):
                raise UsageError(
                    "{option} is for benchmarks, and {data} has rows of pictures with answers.",
                    option=f"--{name}",
                    data=self.args.benchmarks[0],
                )
        code = 0
        for word in self.args.benchmarks:
            code = max(code, self._evaluate(expand_home(word), control))
            if control.stopped:
                break
        return code

    def _evaluate(self, source: Path, control: Control) -> int:
        # 1. Everything that can be wrong is read before a model is loaded.
        prepared = self._prepare(source)
        self._planned(prepared)
        if self.args.dry_run:
            return 0
        # 2. The questions of all columns, those about one picture together.
        with exclusive_folder(prepared.folder, "evaluate") as notices:
            for notice in notices:
                self.console.remark(valid_text(str(notice)))
            try:
                jobs = prepared.jobs if self.args.score_only else self._ask(prepared, control)
            except KeyboardInterrupt:
                self.console.remark("The answers so far are saved. Run the same command to resume.")
                raise
            # 3. The measures.
            return self._finish(replace(prepared, jobs=jobs))

    @property
    def console(self) -> Console:
        return self.report.console

    # 1. What to ask.

    def _prepare(self, source: Path) -> _Prepared:
        args = self.args
        model = model_folder(args.model).resolve()
        label, name = model_names(args.model, model)
        values = {**vars(args), "one_adapter": False}
        options = load_options(argparse.Namespace(**values), model)
        columns = columns_of(
            read_config(model).template_version, options.adapters, self._adapters(options)
        )
        with self.console.working(f"Reading {source}"):
            reading = DataOptions(
                form=args.format,
                labels=args.labels,
                ask=tuple(args.ask),
                upright=not args.as_stored,
            )
            found = read_row_data(source, reading)
            folder = args.output or _HOME / name / found.data.name
            if len(args.benchmarks) > 1 and args.output is not None:
                folder = args.output / found.data.name
            found, jobs = row_jobs(
                folder,
                found,
                columns,
                options,
                RowSettings(
                    limit=args.limit, seed=args.seed or 0, max_new_tokens=args.max_new_tokens
                ),
                label=label,
                restart=args.restart,
            )
        prepared = _Prepared(
            label=label, folder=folder, found=found, jobs=jobs, options=options, columns=columns
        )
        return prepared if args.score_only else self._with_outlook(prepared)

    def _adapters(self, options: LoadOptions) -> dict[str, Adapter]:
        """Return the adapters by name, each checked against the model."""
        if not options.adapters:
            return {}
        from cogvlm2_lite.weights.adapter_sum import read_adapters
        from cogvlm2_lite.weights.catalog import Catalog
        from cogvlm2_lite.weights.identity import identify_base

        config = read_config(options.folder)
        base = identify_base(Catalog.open(options.folder, config), options.folder)
        found = read_adapters(options.adapters, config, base=base, any_base=options.any_base)
        return {adapter.name: adapter for adapter in found}

    def _with_outlook(self, prepared: _Prepared) -> _Prepared:
        """Choose the context and how many to ask at once."""
        todo = prepared.planned
        if not todo.questions:
            return prepared
        from cogvlm2_lite.engine.outlook import look_ahead

        options = prepared.options
        if options.context is None:
            most = max(each.job.run.max_new_tokens for each in prepared.jobs)
            context = context_for_rows(todo.questions, read_config(options.folder), most)
            options = structs.replace(options, context=context)
        with self.console.working("Checking the devices"):
            outlook = look_ahead(options, self.args.parallel)
        # Only adapters that have something to answer are loaded.
        asked = {question.adapter for question in todo.questions}
        options = structs.replace(
            options,
            parallel=outlook.parallel,
            adapters=tuple(each for each in options.adapters if each.name in asked),
        )
        return replace(prepared, options=options, outlook=outlook)

    # 2. The questions.

    def _ask(self, prepared: _Prepared, control: Control) -> list[ColumnJob]:
        """Ask what is left; return the runs with the present answers."""
        jobs = [replace(each, job=self._begin(each)) for each in prepared.jobs]
        prepared = replace(prepared, jobs=jobs)
        planned = prepared.planned
        if not planned.questions or control.stopped:
            return jobs
        for each in jobs:
            each.job.saved.check_writable()
        known = sum(len(each.job.planned.known) for each in jobs)
        with self.start(prepared.options) as engine:
            self.report.loading(prepared.label)
            loaded = engine.wait_ready()
            compute = loaded.compute.partition(":")[0]
            remarks = (*loaded.warnings, *loaded.adapter_remarks, loaded.plan.get("remark", ""))
            for notice in remarks:
                if notice:
                    self.console.remark(str(notice))
            for each in jobs:
                if each.job.planned.known:
                    check_compute(each.job.folder, each.job.run, compute)
                if each.job.planned.todo:
                    write_run(each.job.folder, replace(each.job.run, compute=compute))
            for step in ask_all(
                engine,
                planned,
                prepared.file_of,
                max_new_tokens=jobs[0].job.run.max_new_tokens,
                expected=prepared.expected,
                control=control,
            ):
                self._step(step, prepared, known)
        return jobs

    def _begin(self, each: ColumnJob) -> Job:
        """Write run.json before the first answer; return the run with the present answers."""
        if self.args.restart:
            kept = set_aside(each.job.folder)
            if kept is not None:
                self.console.remark(f"The old answers are now in {escape_line(str(kept))}.")
        job = with_present_answers(each.job)
        return replace(job, run=write_run(job.folder, job.run))

    def _step(self, step: AskEvent, prepared: _Prepared, known: int) -> None:
        if isinstance(step, Asked):
            step = replace(step, done=step.done + known, total=step.total + known)
            self.report.step(step, prepared.by_column[step.column].job)
        else:
            self.report.step(step, prepared.jobs[0].job)

    # 3. The measures.

    def _finish(self, prepared: _Prepared) -> int:
        with self.console.working(f"Measuring {prepared.found.data.name}"):
            results = results_of(prepared.jobs, case=self.args.case)
            if results:
                result = RowResult(
                    model=prepared.label,
                    found=prepared.found,
                    items=prepared.jobs[0].job.items,
                    columns=results,
                    seed=prepared.jobs[0].job.run.seed,
                    case=self.args.case,
                )
                write_files(prepared.folder, result)
        if results:
            self._scored(result, prepared.folder)
        jobs = [each.job for each in prepared.jobs]
        return self.report.finished(jobs, [job.answers() for job in jobs])

    # --- what is printed ---

    def _planned(self, prepared: _Prepared) -> None:
        found, jobs = prepared.found, prepared.jobs
        if self.report.as_json:
            for each in jobs:
                self._planned_event(prepared, each)
            return
        run, todo = jobs[0].job.run, prepared.planned
        chosen = f"{run.chosen} of {run.items}" if run.chosen < run.items else f"{run.chosen}"
        subset = f", chosen with seed {run.seed}" if run.chosen < run.items else ""
        rows = "row" if chosen == "1" else "rows"
        skipped = ""
        if found.skipped:
            skipped = f" Skipped: {reasons_text(found.skipped)}."
        for notice in found.data.notices:
            self.console.remark(valid_text(f"{found.data.name}: {notice}"))
        self.console.remark(
            valid_text(
                f"{prepared.label}, {found.data.name}: {chosen} {rows} ({found.form}){subset}, at "
                f"most {run.max_new_tokens} tokens per answer.{skipped}"
            )
        )
        names = ", ".join(each.column.name for each in jobs)
        known = sum(len(each.job.planned.known) for each in jobs)
        before = f"{known} are answered already. " if known else ""
        if self.args.score_only:
            return
        if not todo.questions:
            self.console.remark(f"All {known} are answered already.")
            return
        pictures = "1 picture" if todo.pictures == 1 else f"{todo.pictures} pictures"
        outlook = prepared.outlook
        at_once = f", {outlook.parallel} at once" if outlook and outlook.parallel > 1 else ""
        self.console.remark(
            valid_text(
                f"{before}To ask ({names}): {len(todo.questions)} about {pictures}{at_once}, about "
                f"{format_seconds(prepared.seconds)}. The answers go to "
                f"{escape_line(str(prepared.folder))}."
            )
        )

    def _planned_event(self, prepared: _Prepared, each: ColumnJob) -> None:
        run, planned = each.job.run, each.job.planned
        self.report.event(
            "plan",
            model=run.model,
            benchmark=ROWS,
            data=run.data,
            column=each.column.name,
            folder=escape_name(str(each.job.folder)),
            template=run.template,
            max_new_tokens=run.max_new_tokens,
            seed=run.seed,
            questions=run.chosen,
            of=run.items,
            known=len(planned.known),
            todo=len(planned.todo),
            pictures=planned.pictures,
            skipped=len(prepared.found.skipped),
            notices=list(prepared.found.data.notices),
            parallel=prepared.outlook.parallel if prepared.outlook else 1,
            seconds=round(prepared.seconds, 1),
        )

    def _scored(self, result: RowResult, folder: Path) -> None:
        report = folder / HTML
        if self.report.as_json:
            for column in result.columns:
                self._scored_events(column, report)
            return
        for line in table_lines(*measure_table(result)):
            self.console.line(valid_text(line))
        for column in result.columns:
            rows = difference_rows(column)
            if rows and column.base is not None:
                self.console.line()
                head = (f"{column.column.name} versus {column.base.name}", "difference", "")
                for line in table_lines(head, rows):
                    self.console.line(valid_text(line))
        self.console.line(f"  report: {escape_line(str(report))}")
        self.console.line()

    def _scored_events(self, column: ColumnResult, report: Path) -> None:
        run, exact = column.job.run, column.measured["exact_match"]
        self.report.event(
            "scored",
            benchmark=ROWS,
            data=run.data,
            model=run.model,
            column=column.column.name,
            value=exact.value,
            low=exact.low,
            high=exact.high,
            unit=POINTS,
            hits=None,
            protocol=run.protocol,
            measures={name: one.as_dict() for name, one in column.measured.items()},
            loss_form=column.loss_form,
            asked=len(column.answers),
            of=run.items,
            folder=escape_name(str(column.job.folder)),
            report=escape_name(str(report)),
        )
        if column.base is not None and column.differences:
            self.report.event(
                "compared",
                data=run.data,
                column=column.column.name,
                base=column.base.name,
                differences={name: one.as_dict() for name, one in column.differences.items()},
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Prepared:
    """An evaluation before its questions.

    folder   of the evaluation
    options  how to load the model with all adapters that are asked
    outlook  what to expect; None if nothing is left to ask
    """

    label: str
    folder: Path
    found: RowData
    jobs: list[ColumnJob]
    options: LoadOptions
    columns: Sequence[Column]
    outlook: Outlook | None = None

    @property
    def planned(self) -> Planned:
        """What is left to ask of all columns."""
        return asked_together(self.jobs)

    @property
    def by_column(self) -> dict[str, ColumnJob]:
        return {each.column.name: each for each in self.jobs}

    def file_of(self, question: Question) -> SavedAnswers:
        """Return where the answer to a question is saved."""
        return self.by_column[question.column].job.saved

    @property
    def expected(self) -> Expected | None:
        """The expected time of a picture and a question."""
        questions = self.planned.questions
        if self.outlook is None or not questions:
            return None
        tokens = sum(each.scored[-1].last for each in questions) / len(questions)
        texts = 1 + sum(len(each.scored) for each in questions) / len(questions)
        from cogvlm2_lite.evaluate.expect import expected

        return expected(self.outlook, tokens, texts)

    @property
    def seconds(self) -> float:
        """The expected time of all questions."""
        expected, todo = self.expected, self.planned
        return 0.0 if expected is None else expected.seconds(todo.pictures, len(todo.questions))
