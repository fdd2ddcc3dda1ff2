"""`cogvlm2-lite batch`: one question about every picture of a folder."""

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
    BatchProgress,
    Happened,
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

_JSON_NAMES: dict[type[Happened], str] = {
    PictureStarted: "asking",
    BatchProgress: "answered",
    Paused: "paused",
    Resumed: "resumed",
}

_EPILOG = """\
examples:
  cogvlm2-lite batch my-model photos --question "Describe this image."
  cogvlm2-lite batch my-model scans --question "Read all text." --output texts --recursive

Every answer is saved as it comes: NAME.txt beside its picture (or in --output), a line in
answers.jsonl, and at the end answers.csv. Run the same command again to go on, also after a
kill: pictures that have an answer to this question are left out, failed ones are asked again.

Lines of --json have an "event": plan (pictures, and those known from before), loading, asking,
answered, paused, resumed, finished, or error.
"""


def build_parser() -> Parser:
    """Declare the options of `batch`."""
    parser = Parser(
        usage="batch MODEL FOLDER --question TEXT [options]",
        description="Ask one question about every picture of a folder.",
        epilog=_EPILOG,
    )
    parser.add_argument("model", metavar="MODEL", help="a model folder, or `demo`")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the folder of the pictures")
    parser.add_argument("--question", metavar="TEXT", required=True, help="asked about each")
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help="put the answers here (default: FOLDER)"
    )
    parser.add_argument("--recursive", action="store_true", help="look into folders inside too")
    parser.add_argument("--overwrite", action="store_true", help="ask again about all pictures")
    parser.add_argument("--limit", metavar="N", type=int, help="take the first N pictures only")
    parser.add_argument(
        "--only",
        metavar="FILE",
        type=Path,
        help="take only the pictures that this text file names, one path below FOLDER a line",
    )
    parser.add_argument("--no-text", action="store_true", help="write no .txt files")
    parser.add_argument("--no-csv", action="store_true", help="write no answers.csv")
    parser.add_argument("--prefix", metavar="TEXT", default="", help="put before each text")
    parser.add_argument("--suffix", metavar="TEXT", default="", help="put behind each text")
    parser.add_argument(
        "--no-retry", action="store_true", help="keep answers that ran in circles as they are"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the pictures and ask nothing")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each event")
    parser.add_argument(
        "--control",
        action="store_true",
        help="obey lines on standard input: pause, resume, stop; stop too when it ends",
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
    orders: Iterable[str] = sys.stdin,
) -> int:
    """Run `batch`; gives 0 when every picture has an answer, else 1.

    orders  lines that --control obeys
    """
    args = build_parser().read(argv)
    show = _Show(console=console or Console(), as_json=args.json)
    try:
        return _run(args, show, start, orders)
    except CogVLM2LiteError as error:
        if not args.json:
            raise
        show.event("error", **error.as_dict())
        return error.exit_code


def _run(args: argparse.Namespace, show: _Show, start: Start, orders: Iterable[str]) -> int:
    task = _task(args)
    planned = plan_batch(task)
    if args.dry_run:
        for name in planned.names:
            show.console.line(str(task.folder / name))
        return 0
    control = Control()
    if args.control:
        threading.Thread(target=control.obey, args=(orders,), name="orders", daemon=True).start()
    show.planned(planned, task)
    options = load_options(args, model_folder(args.model).resolve())
    answered = failed = 0
    if planned.todo:  # a model of many GB is not loaded for nothing
        with start(options) as engine:
            show.loading()
            engine.wait_ready()
            for happened in run_batch(task, engine, planned, control):
                if isinstance(happened, BatchProgress):
                    answered, failed = answered + 1, happened.failed
                show.happened(happened)
    left = len(planned.todo) - answered
    show.finished(planned, failed, left, task)
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
        beside=args.output is None,
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
    )


def _names(file: Path) -> tuple[str, ...]:
    try:
        return tuple(file.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or Text("it is not text in UTF-8")
        raise UsageError(
            "{file} can't be read: {why}.",
            hint="Give a text file with one path per line.",
            file=file,
            why=why,
        ) from error


@dataclass(frozen=True, kw_only=True)
class _Show:
    """Reports the work to a person or, as lines of JSON, to a program."""

    console: Console
    as_json: bool

    def event(self, kind: str, /, **values: Any) -> None:
        """Print one line of JSON."""
        event = with_templates({"event": kind, **values})
        self.console.line(json.dumps(event, ensure_ascii=False))

    def planned(self, planned: Planned, task: Task) -> None:
        """Report which pictures there are."""
        if self.as_json:
            known = [asdict(answered) for answered in planned.known.values()]
            self.event("plan", pictures=list(planned.names), known=known, output=str(task.output))

    def loading(self) -> None:
        """Report that the model is being loaded."""
        if self.as_json:
            self.event("loading")
        self.console.status("Loading the model")

    def happened(self, happened: Happened) -> None:
        """Report one event of the work."""
        if self.as_json:
            self.event(_JSON_NAMES[type(happened)], **asdict(happened))
        elif isinstance(happened, BatchProgress):
            answered = happened.answered
            self.console.line(f"{answered.picture}: {answered.error or answered.answer}")
            self.console.status(
                f"{happened.done} of {happened.total}, {happened.failed} failed, "
                f"{format_seconds(happened.seconds_left)} left"
            )

    def finished(self, planned: Planned, failed: int, left: int, task: Task) -> None:
        """Report the end. left: pictures that were not asked about because it was stopped."""
        count = len(planned.names)
        self.console.status("")
        if self.as_json:
            self.event("finished", total=count, failed=failed, left=left)
            return
        stopped = f", {left} left" if left else ""
        self.console.line(f"{count} pictures, {failed} failed{stopped}. Answers: {task.output}")
