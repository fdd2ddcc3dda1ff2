"""`cogvlm2-lite evaluate`: asks the questions of benchmarks and scores the answers."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from msgspec import structs

from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.evaluate_output import Reporter
from cogvlm2_lite.cli.parser import (
    Parser,
    add_adapter_options,
    add_compute_options,
    add_row_options,
    add_speculation_option,
    load_options,
)
from cogvlm2_lite.control import Control
from cogvlm2_lite.demo.shipped import model_folder, model_names
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import CogVLM2LiteError, OutputError, UsageError
from cogvlm2_lite.evaluate.answers import Answered
from cogvlm2_lite.evaluate.benchmarks import CEILINGS, NAMES
from cogvlm2_lite.evaluate.exports import export, read_grades, read_predictions
from cogvlm2_lite.evaluate.find import find_data, is_benchmark, path_exists
from cogvlm2_lite.evaluate.items import Data
from cogvlm2_lite.evaluate.job import (
    Job,
    Scored,
    Settings,
    finished_job,
    new_job,
    predicted_job,
    with_present_answers,
    write_scores,
)
from cogvlm2_lite.evaluate.metrics import Measured
from cogvlm2_lite.evaluate.pair import Pair, folder_of, is_reference, kept_kl, write_comparison
from cogvlm2_lite.evaluate.paired import compare_runs
from cogvlm2_lite.evaluate.protocols import PROTOCOLS
from cogvlm2_lite.evaluate.report import write_report
from cogvlm2_lite.evaluate.run_folder import (
    RUN,
    check_comparable,
    check_compute,
    set_aside,
    write_run,
)
from cogvlm2_lite.evaluate.tables import Result
from cogvlm2_lite.evaluate.totals import Grades, score_answers
from cogvlm2_lite.evaluate.work import ask_all
from cogvlm2_lite.exclusive import exclusive_folder
from cogvlm2_lite.file_names import escape_line, valid_text
from cogvlm2_lite.places import expand_home
from cogvlm2_lite.units import format_seconds
from cogvlm2_lite.worker.client import EngineProcess, WorkerEngine

if TYPE_CHECKING:
    from cogvlm2_lite.cli.evaluate_rows import RowWork
    from cogvlm2_lite.engine.model import Model
    from cogvlm2_lite.engine.outlook import Outlook

_T = TypeVar("_T")
Start = Callable[[LoadOptions], AbstractContextManager[WorkerEngine]]

_HOME = Path("evaluate")
"""Where the run folders are, unless --output names another place."""

_EPILOG = f"""\
BENCHMARK is one of {", ".join(NAMES)}, or the path of a data file. `demo-vqa`,
drawn pictures with questions, is part of the program. The others are files that you have on disk;
nothing is downloaded. docs/evaluation.md says where to get them and where they are looked for.

All questions are read and all pictures found before the first one is asked. Every answer is saved
at once. You can stop the command at any time; run it again to resume. The score is computed from
the saved answers; --score-only does only that, without the model.

The folder of a run has run.json (what was asked of which model), answers.jsonl, scores.json,
report.html and report.md. A folder whose answers belong to another model, prompt or data file is
refused.

DATA is a file or folder of pictures with answers, in every form that finetune reads: JSONL, JSON,
CSV, TSV, captions, CogVLM-SFT, answers.jsonl of `batch`. training/held_out.jsonl in the folder of
finetune has the rows that it held out. The base model and each --adapter are
asked the same questions, and their answers, losses and differences stand side by side. If
--adapter is repeated, each one is a model of its own; those with the same NAME are added up.

With --json, each line has an "event": plan, loading, answered, paused, resumed, scored, compared,
finished or error.

examples:
  cogvlm2-lite evaluate demo demo-vqa
  cogvlm2-lite evaluate my-nf4 textvqa docvqa --limit 500
  cogvlm2-lite evaluate my-nf4 mmbench --against cogvlm2-llama3-chat-19B
  cogvlm2-lite evaluate my-nf4 mmbench --score-only --against evaluate/cogvlm2-llama3-chat-19B
  cogvlm2-lite evaluate my-nf4 invoices.jsonl --adapter my-adapter
  cogvlm2-lite evaluate my-nf4 my-adapter/training/held_out.jsonl --adapter my-adapter
"""


def build_parser() -> Parser:
    """Declare the options of `evaluate`."""
    parser = Parser(
        usage="evaluate MODEL BENCHMARK|DATA... [options]",
        description="Ask a model about the pictures of benchmarks, or your own, and score its "
        "answers, offline.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a model folder, or `demo`; with --score-only also the folder of a run",
    )
    parser.add_argument(
        "benchmarks", metavar="BENCHMARK|DATA", nargs="+", help="what is asked, see below"
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        type=expand_home,
        help="the data file, or a folder with it (default: $LMUData, ~/LMUData, then the cache of "
        "Hugging Face)",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=expand_home,
        help="folder of the run, with a folder for each of several benchmarks (default: "
        "evaluate/MODEL/BENCHMARK)",
    )
    parser.add_argument(
        "--limit",
        "--answers",
        metavar="N",
        type=int,
        help="ask N questions only, about whole pictures and in proportion to the categories; a "
        "larger N with the same seed continues",
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, help="choose other questions for --limit (default: 0)"
    )
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        help=f"how questions are worded (default: {PROTOCOLS[0]})",
    )
    parser.add_argument(
        "--max-new-tokens",
        metavar="N",
        type=int,
        help="maximum length of an answer in tokens (default: "
        + ", ".join(f"{name} {count}" for name, count in CEILINGS.items())
        + "; rows: twice the longest expected answer, and 64 at least)",
    )
    parser.add_argument(
        "--against",
        metavar="MODEL2|RUN",
        help="compare with a second model, which is asked the same questions, or with the folder "
        "of a finished run",
    )
    parser.add_argument(
        "--score-only", action="store_true", help="score the saved answers; no model is needed"
    )
    parser.add_argument(
        "--predictions",
        metavar="FILE",
        type=expand_home,
        help="score the answers in a file that VLMEvalKit wrote as TSV or JSON; no model is needed",
    )
    parser.add_argument(
        "--grades",
        metavar="FILE",
        type=expand_home,
        help="the grades of MM-Vet's official evaluator",
    )
    parser.add_argument(
        "--export",
        action="store_true",
        help="also write the answers in the forms that the benchmarks' own programs read",
    )
    parser.add_argument(
        "--restart",
        action="store_true",
        help="ask everything again; the old answers are kept under another name",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check the data, show what would be asked, and exit"
    )
    parser.add_argument("--json", action="store_true", help="print each event as a line of JSON")
    parser.add_argument(
        "--control",
        action="store_true",
        help="read the commands pause, resume and stop from standard input, one per line; its end "
        "means stop",
    )
    rows = parser.add_argument_group("rows of pictures with answers")
    add_row_options(rows)
    rows.add_argument(
        "--as-stored", action="store_true", help="ignore the orientation in a photo's EXIF tag"
    )
    rows.add_argument(
        "--case",
        action="store_true",
        help="an answer in other upper and lower case is no exact match",
    )
    add_compute_options(parser)
    add_speculation_option(parser)
    add_adapter_options(parser, one=True)
    parser.add_argument(
        "--parallel",
        type=int,
        default=None,
        metavar="N",
        help="ask about up to N pictures at once; fewer if memory is short (default: as many as "
        "memory allows, 16 at most)",
    )
    return parser


def main(
    argv: Sequence[str],
    *,
    start: Start = EngineProcess,
    console: Console | None = None,
    control_lines: Iterable[str] = sys.stdin,
) -> int:
    """Run `evaluate` and return 0 if all chosen questions have an answer, else 1.

    control_lines  the commands that --control reads
    """
    args = build_parser().read(argv)
    report = Reporter(console=console or Console(), as_json=args.json)
    try:
        _check(args)
        work = _work(args, report, start)
        control = Control()
        if args.control:
            threading.Thread(
                target=control.follow, args=(control_lines,), name="control", daemon=True
            ).start()
        return work.run(control)
    except CogVLM2LiteError as error:
        if not args.json or isinstance(error, OutputError):
            raise
        report.event("error", **error.as_dict())
        return error.exit_code


def _work(args: argparse.Namespace, report: Reporter, start: Start) -> _Work | RowWork:
    """Return what carries the command out: on benchmarks, or on rows of pictures with answers."""
    if _has_rows(args):
        from cogvlm2_lite.cli.evaluate_rows import RowWork

        return RowWork(args=args, report=report, start=start)
    return _Work(args=args, report=report, everything=_read_data(args, report), start=start)


def _has_rows(args: argparse.Namespace) -> bool:
    """Return whether all that is named are rows. Raises UsageError if only some are."""
    options = ("format", "labels", "ask", "as_stored", "case")
    option = next((name.replace("_", "-") for name in options if getattr(args, name)), "")
    found = [_is_rows(word, forced=bool(option)) for word in args.benchmarks]
    if all(found):
        return True
    other = args.benchmarks[found.index(False)]
    if option:
        raise UsageError(
            "{option} is for rows of pictures with answers, and {data} is a benchmark.",
            option=f"--{option}",
            data=other,
        )
    if any(found):
        raise UsageError(
            "{data} has rows of pictures with answers, and {other} is a benchmark.",
            hint="Evaluate them one after the other.",
            data=args.benchmarks[found.index(True)],
            other=other,
        )
    return False


def _is_rows(word: str, *, forced: bool) -> bool:
    if word in NAMES:
        return False
    path = expand_home(word)
    return forced or (path_exists(path) and not is_benchmark(path))


def _check(args: argparse.Namespace) -> None:
    """Raise UsageError for values and combinations that make no sense."""
    for name in ("limit", "max_new_tokens"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(
                "{option} must be 1 or more, not {value}.",
                option=f"--{name.replace('_', '-')}",
                value=value,
            )
    if args.seed is not None and args.seed < 0:
        raise UsageError("--seed must be 0 or more, not {value}.", value=args.seed)
    several = len(args.benchmarks) > 1
    for name in ("predictions", "grades"):
        if several and getattr(args, name) is not None:
            raise UsageError("{option} needs a single benchmark.", option=f"--{name}")
    if args.predictions is not None and (args.against or args.restart):
        raise UsageError(
            "--predictions can't be combined with {option}.",
            option="--against" if args.against else "--restart",
        )
    if args.score_only and args.restart:
        raise UsageError("--score-only can't be combined with --restart: nothing is asked.")


@dataclass(frozen=True, kw_only=True)
class _Side:
    """A model that is asked, or runs that were finished before.

    label    the model for people and for run.json: a path, or "demo"
    name     of its folder of runs
    options  how to load it; None: its runs are finished
    outlook  what to expect of it; None if nothing is left to ask
    """

    label: str
    name: str
    options: LoadOptions | None = None
    outlook: Outlook | None = None


def _read_data(args: argparse.Namespace, report: Reporter) -> list[Data]:
    """Return the data of all benchmarks. Every item is read and every picture found here."""
    found: dict[str, Data] = {}
    for word in args.benchmarks:
        with report.console.working(f"Reading {word}"):
            data = find_data(word, args.data, answers_needed=not args.export)
        if data.name in found:
            raise UsageError("The benchmark {name} is named twice.", name=data.name)
        found[data.name] = data
    return list(found.values())


def _options(args: argparse.Namespace, folder: Path, adapters: Sequence[str] = ()) -> LoadOptions:
    return load_options(argparse.Namespace(**{**vars(args), "adapter": adapters}), folder)


def _finished_side(word: str) -> _Side:
    """Return the runs of a model, which need not be there any more."""
    path = expand_home(word)
    return _Side(label=word, name=path.name or path.resolve().name)


def _side(args: argparse.Namespace, word: str, adapters: Sequence[str] = ()) -> _Side:
    """Return the model of a folder, with the adapters that texts of --adapter describe."""
    folder = model_folder(word).resolve()
    label, name = model_names(word, folder)
    options = _options(args, folder, adapters)
    if options.adapters:
        label = " + ".join((label, *adapters))
        name = f"{name}+{options.adapters[0].name}"
    return _Side(label=label, name=name, options=options)


def _finished_run(word: str, data: Data) -> Path | None:
    """Return the folder of a run that a word names; None if it names none."""
    path = expand_home(word)
    folders = (path, path / data.name)
    return next((folder for folder in folders if (folder / RUN).is_file()), None)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """Carries the command out.

    everything  the data of all benchmarks
    """

    args: argparse.Namespace
    report: Reporter
    everything: Sequence[Data]
    start: Start

    @property
    def settings(self) -> Settings:
        args = self.args
        return Settings(
            limit=args.limit,
            seed=args.seed,
            protocol=args.protocol,
            max_new_tokens=args.max_new_tokens,
        )

    @cached_property
    def grades(self) -> Grades | None:
        """The grades of MM-Vet, if a file of them is given."""
        return None if self.args.grades is None else read_grades(self.args.grades)

    def run(self, control: Control) -> int:
        """Plan, ask, score and report; return the exit code."""
        _ = self.grades  # a wrong file is an error before anything is asked
        if self.args.predictions is not None:
            return self._score_predictions()
        if self.args.score_only:
            ours = _finished_side(self.args.model)
        else:
            ours = _side(self.args, self.args.model, self.args.adapter)
        pairs = [(ours, [self._own_job(ours, data) for data in self.everything])]
        if self.args.against is not None:
            pairs.append(self._against([job.folder for job in pairs[0][1]]))
            for mine, theirs in zip(pairs[0][1], pairs[1][1], strict=True):
                check_comparable(mine.run, theirs.run)
        pairs = [self._with_outlook(side, jobs) for side, jobs in pairs]
        if self.args.dry_run:
            return 0
        with ExitStack() as held:
            for side, jobs in pairs:
                for job in jobs if side.options is not None else ():
                    for notice in held.enter_context(exclusive_folder(job.folder, "evaluate")):
                        self.report.console.remark(valid_text(str(notice)))
            try:
                for side, jobs in pairs:
                    if not control.stopped:
                        self._ask(side, jobs, control)
            except KeyboardInterrupt:
                self.report.console.remark(
                    "The answers so far are saved. Run the same command to resume."
                )
                raise
        return self._finish([jobs for _, jobs in pairs], control)

    # 1. The runs.

    def _own_job(self, side: _Side, data: Data) -> Job:
        if side.options is None:
            named = _finished_run(self.args.model, data) if self.args.output is None else None
            return finished_job(named or self._folder(side, data), data, self.settings)
        return self._new_job(self._folder(side, data), data, side)

    def _new_job(self, folder: Path, data: Data, side: _Side) -> Job:
        assert side.options is not None
        with self.report.console.working(f"Looking at {folder}"):
            return new_job(
                folder, data, side.label, side.options, self.settings, restart=self.args.restart
            )

    def _folder(self, side: _Side, data: Data) -> Path:
        output: Path | None = self.args.output
        if output is None:
            return _HOME / side.name / data.name
        return output / data.name if len(self.everything) > 1 else output

    def _against(self, ours: Sequence[Path]) -> tuple[_Side, list[Job]]:
        """Return the second model, or the finished runs, that --against names."""
        word = self.args.against
        runs = [_finished_run(word, data) for data in self.everything]
        if all(runs) or self.args.score_only:
            side = _finished_side(word)
            self._check_other(runs, ours)
            folders = [run or _HOME / side.name / d.name for run, d in self._with(runs)]
            own = Settings()
            return side, [finished_job(f, data, own) for f, data in self._with(folders)]
        if any(runs):
            missing = next(data for run, data in self._with(runs) if run is None)
            raise UsageError(
                "There is no run of {name} in {folder}.",
                hint="Ask that model the same benchmarks first, or compare one benchmark at a "
                "time.",
                name=missing.name,
                folder=expand_home(word),
            )
        side = _side(self.args, word)
        if self.args.output is None:
            folders = [_HOME / side.name / data.name for data in self.everything]
        else:
            folders = [folder / side.name for folder in ours]
        if set(folders) & set(ours):
            raise UsageError(
                "Both models have the name {name}, so their answers would be in the same folder.",
                hint="Choose another folder with --output.",
                name=side.name,
            )
        return side, [self._new_job(f, data, side) for f, data in self._with(folders)]

    def _check_other(self, runs: Sequence[Path | None], ours: Sequence[Path]) -> None:
        """Raise UsageError if a run would be compared with itself."""
        for run, own in zip(runs, ours, strict=True):
            if run is not None and run.resolve() == own.resolve():
                raise UsageError(
                    "{folder} is the run of the model itself, so there is nothing to compare.",
                    hint="Name the folder of another run after --against.",
                    folder=run,
                )

    def _with(self, values: Sequence[_T]) -> list[tuple[_T, Data]]:
        return list(zip(values, self.everything, strict=True))

    def _with_outlook(self, side: _Side, jobs: list[Job]) -> tuple[_Side, list[Job]]:
        """Show what will be asked; return the side with a context and a number at once."""
        if side.options is None:
            return side, jobs
        outlook = None
        if any(job.planned.todo for job in jobs):
            from cogvlm2_lite.engine.outlook import context_for, look_ahead

            options = side.options
            if options.context is None:
                contexts = [
                    context_for(
                        options.folder,
                        [question.query.text for question in job.planned.questions],
                        job.run.max_new_tokens,
                    )
                    for job in jobs
                ]
                options = structs.replace(options, context=max(contexts))
            with self.report.console.working("Checking the devices"):
                outlook = look_ahead(options, self.args.parallel)
            options = structs.replace(options, parallel=outlook.parallel)
            side = replace(side, options=options, outlook=outlook)
        for job in jobs:
            self.report.planned(job, outlook)
        return side, jobs

    # 2. The questions.

    def _ask(self, side: _Side, jobs: list[Job], control: Control) -> None:
        """Ask what is left. The jobs are replaced by those with the present answers."""
        if side.options is None:
            return
        for place, job in enumerate(jobs):
            jobs[place] = self._begin(job)
        if not any(job.planned.todo for job in jobs):
            return
        for job in jobs:
            job.saved.check_writable()
        outlook = side.outlook
        with self.start(side.options) as engine:
            self.report.loading(side.name)
            loaded = engine.wait_ready()
            compute = loaded.compute.partition(":")[0]
            from cogvlm2_lite.evaluate.expect import ANSWER_TOKENS, expected

            for notice in (*loaded.warnings, loaded.plan.get("remark", "")):
                if notice:
                    self.report.console.remark(str(notice))
            for job in jobs:
                if not job.planned.todo:
                    continue
                if job.planned.known:
                    check_compute(job.folder, job.run, compute)
                write_run(job.folder, replace(job.run, compute=compute))
                for step in ask_all(
                    engine,
                    job.planned,
                    job.file_of,
                    max_new_tokens=job.run.max_new_tokens,
                    expected=None
                    if outlook is None
                    else expected(outlook, ANSWER_TOKENS[job.data.benchmark]),
                    control=control,
                ):
                    self.report.step(step, job)

    def _begin(self, job: Job) -> Job:
        """Write run.json before the first answer; return the job with the present answers."""
        if self.args.restart:
            kept = set_aside(job.folder)
            if kept is not None:
                self.report.console.remark(f"The old answers are now in {escape_line(str(kept))}.")
        job = with_present_answers(job)
        return replace(job, run=write_run(job.folder, job.run))

    # 3. The scores.

    def _score_predictions(self) -> int:
        (data,) = self.everything
        name = expand_home(self.args.model).name or self.args.model
        folder = self.args.output or _HOME / name / f"{data.name}-predictions"
        predictions = read_predictions(self.args.predictions, data)
        job, answers = predicted_job(folder, data, self.settings, self.args.model, predictions)
        score = score_answers(data, job.items, answers, self.grades)
        self._show(Scored(job=job, answers=answers, score=score), None)
        return self.report.finished([job], [answers])

    def _finish(self, sides: Sequence[Sequence[Job]], control: Control) -> int:
        """Score and report all jobs, and compare them; return the exit code."""
        found = [[self._scored(job) for job in jobs if job.has_answers] for jobs in sides]
        compares = len(found) > 1 and not control.stopped
        pairs = [self._compare(*pair) for pair in zip(*found, strict=True)] if compares else []
        for place, one in enumerate(found[0]):
            self._show(one, pairs[place] if pairs else None)
        for one in found[1] if len(found) > 1 else ():
            self._show(one, None)
        for job in (job for jobs in sides for job in jobs if not job.has_answers):
            self.report.unscored(job)
            self._export(job, job.answers())
        self.report.overall([pair.paired for pair in pairs])
        everyone = [job for jobs in sides for job in jobs]
        return self.report.finished(everyone, [job.answers() for job in everyone])

    def _scored(self, job: Job) -> Scored:
        with self.report.console.working(f"Scoring {job.data.name}"):
            answers = job.answers()
            score = score_answers(job.data, job.items, answers, self.grades)
        return Scored(job=job, answers=answers, score=score)

    def _compare(self, mine: Scored, theirs: Scored) -> Pair:
        """Return the comparison of two runs of one benchmark."""
        a, b = (mine, theirs) if is_reference(mine.job.run, theirs.job.run) else (theirs, mine)
        with self.report.console.working(f"Comparing {mine.job.data.name}"):
            paired = compare_runs(
                mine.job.data, mine.job.items, a.answers, b.answers, self.grades, self.grades
            )
        kl = None if self.args.score_only else self._kl(a, b)
        return Pair(a=a.job.run, b=b.job.run, paired=paired, kl=kl)

    def _kl(self, a: Scored, b: Scored) -> Measured | None:
        """Return the KL divergence of two models; None if not both are at hand."""
        known = kept_kl(a.job, b.job)
        if known is not None:
            return known
        first, second = (folder_of(one.job.run) for one in (a, b))
        if first is None or second is None:
            return None
        from cogvlm2_lite.cli.answers import load_model
        from cogvlm2_lite.evaluate.kl import measure_kl

        def open_model(folder: Path) -> Model:
            return load_model(_options(self.args, folder))

        steps = measure_kl(first, second, a.job, a.answers, open_model)
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                found: Measured | None = end.value
                return found
            except CogVLM2LiteError as error:  # the scores do not depend on it
                self.report.console.remark(
                    valid_text(f"The KL divergence was not measured: {error.text}")
                )
                return None
            self.report.console.status(
                f"Comparing words, {step.model.name}: {step.share:.0%}, "
                f"{format_seconds(step.seconds_left)} left"
            )

    def _show(self, one: Scored, pair: Pair | None) -> None:
        """Write the scores and the report of a run, and print its table."""
        job = one.job
        write_scores(job.folder, one.score, job.items)
        if pair is not None:
            write_comparison(job.folder, pair)
        result = Result(
            data=job.data,
            items=job.items,
            answers=one.answers,
            score=one.score,
            protocol=job.run.protocol,
            model=job.run.model,
            seed=job.run.seed,
        )
        if pair is not None:
            result = replace(
                result,
                paired=pair.paired,
                other=(pair.b if pair.a == job.run else pair.a).model,
                kl=pair.kl,
                is_reference=pair.a == job.run,
            )
        write_report(job.folder, result)
        self.report.scored(one, pair, result)
        self._export(job, one.answers)

    def _export(self, job: Job, answers: Mapping[str, Answered]) -> None:
        if self.args.export:
            for file in export(job.folder, job.data, job.items, answers):
                self.report.console.remark(f"Wrote {escape_line(str(file))}.")
