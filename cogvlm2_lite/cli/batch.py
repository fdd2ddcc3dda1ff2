"""`cogvlm2-lite batch`: asks one question about every picture of a folder."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cogvlm2_lite.batch.control import Control
from cogvlm2_lite.batch.work import (
    BatchEvent,
    BatchProgress,
    Paused,
    PictureStarted,
    Planned,
    Resumed,
    Task,
    plan_batch,
    run_batch,
)
from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.parser import (
    Parser,
    add_compute_options,
    add_parallel_option,
    add_sampling_options,
    load_options,
    sampling_of,
)
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import CogVLM2LiteError, UsageError
from cogvlm2_lite.text import Text, with_templates
from cogvlm2_lite.units import format_seconds
from cogvlm2_lite.worker.client import EngineProcess, WorkerEngine

Start = Callable[[LoadOptions], AbstractContextManager[WorkerEngine]]

_JSON_NAMES: dict[type[BatchEvent], str] = {
    PictureStarted: "asking",
    BatchProgress: "answered",
    Paused: "paused",
    Resumed: "resumed",
}

_EPILOG = """\
Every answer is saved at once: in NAME.txt next to its picture (or in --output) and as a line of
answers.jsonl. answers.csv is updated every few seconds and at the end. You can stop the command at
any time; run it again to resume. Pictures that already have an answer to this question are skipped,
and failed ones are tried again.

With --json, each line has an "event": plan (all pictures, and the answers of earlier runs),
loading, asking, answered, paused, resumed, finished or error.

examples:
  cogvlm2-lite batch my-model photos --question "Describe this image."
  cogvlm2-lite batch my-model scans --question "Read all text." --output texts --recursive
"""


def build_parser() -> Parser:
    """Declare the options of `batch`."""
    parser = Parser(
        usage="batch MODEL FOLDER --question TEXT [options]",
        description="Ask one question about every picture of a folder and save the answers.",
        epilog=_EPILOG,
    )
    parser.add_argument("model", metavar="MODEL", help="a model folder, or `demo`")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the folder with the pictures")
    parser.add_argument("--question", metavar="TEXT", required=True, help="the question")
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help="folder for the answers (default: FOLDER)"
    )
    parser.add_argument("--recursive", action="store_true", help="include subfolders")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="ask about pictures again that already have an answer",
    )
    parser.add_argument("--limit", metavar="N", type=int, help="use only the first N pictures")
    parser.add_argument(
        "--only",
        metavar="FILE",
        type=Path,
        help="use only the pictures listed in this text file, one path relative to FOLDER per line",
    )
    parser.add_argument("--no-text", action="store_true", help="write no .txt files")
    parser.add_argument("--no-csv", action="store_true", help="write no answers.csv")
    parser.add_argument(
        "--prefix", metavar="TEXT", default="", help="text before each answer in the .txt files"
    )
    parser.add_argument(
        "--suffix", metavar="TEXT", default="", help="text after each answer in the .txt files"
    )
    parser.add_argument(
        "--no-retry",
        action="store_true",
        help="do not ask again, with sampling, when an answer repeats itself",
    )
    parser.add_argument("--dry-run", action="store_true", help="list the pictures and exit")
    parser.add_argument("--json", action="store_true", help="print each event as a line of JSON")
    parser.add_argument(
        "--control",
        action="store_true",
        help="read the commands pause, resume and stop from standard input, one per line; its end "
        "means stop",
    )
    add_compute_options(parser)
    add_parallel_option(parser)
    add_sampling_options(parser)
    return parser


def main(
    argv: Sequence[str],
    *,
    start: Start = EngineProcess,
    console: Console | None = None,
    control_lines: Iterable[str] = sys.stdin,
) -> int:
    """Run `batch` and return 0 if every picture has an answer, else 1.

    control_lines  the commands that --control reads
    """
    args = build_parser().read(argv)
    report = _Reporter(console=console or Console(), as_json=args.json)
    try:
        return _run(args, report, start, control_lines)
    except CogVLM2LiteError as error:
        if not args.json:
            raise
        report.event("error", **error.as_dict())
        return error.exit_code


def _run(
    args: argparse.Namespace, report: _Reporter, start: Start, control_lines: Iterable[str]
) -> int:
    task = _task(args)
    planned = plan_batch(task)
    if args.dry_run:
        for name in planned.names:
            report.console.line(str(task.folder / name))
        return 0
    control = Control()
    if args.control:
        threading.Thread(
            target=control.follow, args=(control_lines,), name="control", daemon=True
        ).start()
    report.planned(planned, task)
    options = load_options(args, model_folder(args.model).resolve())
    answered = failed = 0
    if planned.todo:  # else the model need not be loaded
        with start(options) as engine:
            report.loading()
            engine.wait_ready()
            for step in run_batch(task, engine, planned, control):
                if isinstance(step, BatchProgress):
                    answered, failed = answered + 1, step.failed
                report.step(step)
    left = len(planned.todo) - answered
    report.finished(planned, failed, left, task)
    return 1 if failed or left else 0


def _task(args: argparse.Namespace) -> Task:
    if not args.question.strip():
        raise UsageError(
            "The question is empty.", hint='Write it in quotation marks: "What is it?"'
        )
    if args.limit is not None and args.limit < 1:
        raise UsageError("--limit must be 1 or more, not {value}.", value=args.limit)
    return Task(
        folder=args.folder,
        question=args.question,
        output=args.output or args.folder,
        next_to_pictures=args.output is None,
        recursive=args.recursive,
        overwrite=args.overwrite,
        limit=args.limit,
        only=None if args.only is None else _names(args.only),
        texts=not args.no_text,
        table=not args.no_csv,
        prefix=args.prefix,
        suffix=args.suffix,
        retry=not args.no_retry,
        sampling=sampling_of(args),
        template=args.template,
    )


def _names(file: Path) -> tuple[str, ...]:
    try:
        return tuple(file.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or Text("it is not text in UTF-8")
        raise UsageError(
            "{file} can't be read: {why}.",
            hint="Use a text file with one path per line.",
            file=file,
            why=why,
        ) from error


@dataclass(frozen=True, kw_only=True)
class _Reporter:
    """Prints the progress of a batch, as text or as lines of JSON."""

    console: Console
    as_json: bool

    def event(self, kind: str, /, **values: Any) -> None:
        """Print one line of JSON."""
        event = with_templates({"event": kind, **values})
        self.console.line(json.dumps(event, ensure_ascii=False))

    def planned(self, planned: Planned, task: Task) -> None:
        """Print the pictures and the known answers, as JSON only."""
        if self.as_json:
            known = [asdict(answered) for answered in planned.known.values()]
            self.event("plan", pictures=list(planned.names), known=known, output=str(task.output))

    def loading(self) -> None:
        """Show that the model is being loaded."""
        if self.as_json:
            self.event("loading")
        self.console.status("Loading the model")

    def step(self, step: BatchEvent) -> None:
        """Print one event of the work."""
        if self.as_json:
            self.event(_JSON_NAMES[type(step)], **asdict(step))
        elif isinstance(step, BatchProgress):
            answered = step.answered
            self.console.line(f"{answered.picture}: {answered.error or answered.answer}")
            self.console.status(
                f"{step.done} of {step.total} pictures, {step.failed} failed, "
                f"{format_seconds(step.seconds_left)} left"
            )

    def finished(self, planned: Planned, failed: int, left: int, task: Task) -> None:
        """Print the totals. left: pictures without an answer because the work was stopped."""
        count = len(planned.names)
        self.console.status("")
        if self.as_json:
            self.event("finished", total=count, failed=failed, left=left)
            return
        pictures = "1 picture" if count == 1 else f"{count} pictures"
        stopped = f", {left} not asked about yet" if left else ""
        self.console.line(f"{pictures}, {failed} failed{stopped}. Answers are in {task.output}.")
