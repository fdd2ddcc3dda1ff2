"""`cogvlm2-lite batch`: asks one question about every picture of a folder."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import structs

from cogvlm2_lite.batch.drafts import DraftTexts
from cogvlm2_lite.batch.pictures import read_names
from cogvlm2_lite.batch.plan import Planned, Task, plan_batch
from cogvlm2_lite.batch.table import CSV
from cogvlm2_lite.batch.texts import Existing
from cogvlm2_lite.batch.work import (
    BatchEvent,
    BatchProgress,
    Paused,
    PictureStarted,
    Resumed,
    run_batch,
)
from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.parser import (
    Parser,
    adapters_of,
    add_adapter_options,
    add_compute_options,
    add_picture_options,
    add_sampling_options,
    add_speculation_option,
    load_options,
    sampling_of,
)
from cogvlm2_lite.cli.words import as_text
from cogvlm2_lite.control import Control
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import CogVLM2LiteError, OutputError, UsageError
from cogvlm2_lite.exclusive import exclusive_folder
from cogvlm2_lite.file_names import escape_line, escape_name, to_json, valid_text
from cogvlm2_lite.text import Text, with_templates
from cogvlm2_lite.units import format_seconds
from cogvlm2_lite.weights.identity import identify_model
from cogvlm2_lite.worker.client import EngineProcess, WorkerEngine

Start = Callable[[LoadOptions], AbstractContextManager[WorkerEngine]]

_JSON_NAMES: dict[type[BatchEvent], str] = {
    PictureStarted: "asking",
    BatchProgress: "answered",
    Paused: "paused",
    Resumed: "resumed",
}

_EPILOG = """\
Every answer is saved at once: in NAME.txt next to its picture (or in --output), as a line of
answers.jsonl, and as a row of answers.csv. You can stop the command at any time; run it again to
resume. Pictures that already have an answer are skipped: the same picture, question, model and
settings. Failed ones are tried again. Text files with another --prefix or --suffix, and deleted
ones, are written from the saved answers without the model.

A file that this program did not write, or that was edited since, is kept: choose with --existing
what happens to such text files. docs/batch.md describes names, files and the fields of
answers.jsonl.

With --json, each line has an "event": plan (all pictures, the answers of earlier runs, and notes
about existing files), loading, asking, answered, paused, resumed, finished or error.

examples:
  cogvlm2-lite batch my-model photos --question "Describe this image."
  cogvlm2-lite batch my-model scans --question "Read all text." --output texts --recursive
  cogvlm2-lite batch my-model scans --question "Read it." --output texts --draft-text-suffix .txt
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
    parser.add_argument(
        "--question", type=as_text, metavar="TEXT", required=True, help="the question"
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help="folder for the answers (default: FOLDER)"
    )
    parser.add_argument("--recursive", action="store_true", help="include subfolders")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="ask about pictures again that already have an answer",
    )
    parser.add_argument(
        "--existing",
        choices=[each.value for each in Existing],
        default=Existing.KEEP.value,
        help="what to do if a picture has a text file that this program did not write: keep it and "
        "save the answer in answers.jsonl and answers.csv only; skip the picture; append or "
        "prepend the answer; overwrite the file (default: keep)",
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
        "--prefix",
        type=as_text,
        metavar="TEXT",
        default="",
        help="text before each answer in the .txt files",
    )
    parser.add_argument(
        "--suffix",
        type=as_text,
        metavar="TEXT",
        default="",
        help="text after each answer in the .txt files",
    )
    parser.add_argument(
        "--no-retry",
        action="store_true",
        help="do not ask again, with sampling, when an answer repeats itself; the picture then "
        "counts as failed",
    )
    parser.add_argument(
        "--draft-text-suffix",
        type=as_text,
        metavar="TEXT",
        help="each picture may have a text beside it that its answer probably resembles, such as "
        "the text that an OCR program read from it; its name ends with TEXT: .txt for scan.txt "
        "beside scan.png. Where its words are right, the answer is made faster. The answer is the "
        "same (default: none)",
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
    add_adapter_options(parser, one=True)
    parser.add_argument(
        "--parallel",
        type=int,
        default=None,
        metavar="N",
        help="ask about up to N pictures at once; fewer if memory is short (default: as many as "
        "memory allows, 16 at most)",
    )
    add_speculation_option(parser)
    add_picture_options(parser)
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
        if not args.json or isinstance(error, OutputError):
            raise
        report.event("error", **error.as_dict())
        return error.exit_code


def _run(
    args: argparse.Namespace, report: _Reporter, start: Start, control_lines: Iterable[str]
) -> int:
    folder = model_folder(args.model).resolve()
    options = load_options(args, folder)
    task = _task(args, folder)
    with report.console.working("Looking at the folder"):
        planned = plan_batch(task)
    if args.dry_run:
        for name in planned.names:
            report.console.line(escape_line(str(task.folder / name)))
        return 0
    with exclusive_folder(task.output, "batch") as notices:
        for notice in notices:
            report.console.remark(valid_text(str(notice)))
        if planned.saved.is_changed:  # by a batch that ended meanwhile
            planned = plan_batch(task)
        control = Control()
        if args.control:
            threading.Thread(
                target=control.follow, args=(control_lines,), name="control", daemon=True
            ).start()
        if planned.todo:
            with report.console.working("Checking the devices"):
                options, remark = _with_parallel(options, args.parallel, task, len(planned.todo))
            if remark:
                report.console.remark(str(remark))
        return _work(task, planned, control, report, partial(start, options), options.parallel)


def _work(
    task: Task,
    planned: Planned,
    control: Control,
    report: _Reporter,
    start: Callable[[], AbstractContextManager[WorkerEngine]],
    parallel: int,
) -> int:
    report.planned(planned, task, parallel)
    done, failed = len(planned.known), 0

    def follow(engine: WorkerEngine | None) -> None:
        nonlocal done, failed
        for step in run_batch(task, engine, planned, control):
            if isinstance(step, BatchProgress):
                done, failed = step.done, step.failed
            report.step(step)

    if planned.todo:
        planned.saved.check_writable()
        with start() as engine:
            report.loading()
            engine.wait_ready()
            follow(engine)
    else:  # the model need not be loaded
        follow(None)
    left = len(planned.names) - done
    report.finished(planned, failed, left, task)
    return 1 if failed or left else 0


def _with_parallel(
    options: LoadOptions, parallel: int | None, task: Task, pictures: int
) -> tuple[LoadOptions, Text]:
    """Return the options with a number of conversations at once and a context for the question.

    The text says why they are fewer than asked for; "" if they are not.

    parallel  as asked for; None: as many as memory allows without loading more weights for it
    """
    from cogvlm2_lite.engine.outlook import context_for, look_ahead

    if options.context is None:
        context = context_for(options.folder, [task.question], task.sampling.max_new_tokens)
        options = structs.replace(options, context=context)
    found = look_ahead(options, parallel, most=pictures)
    return structs.replace(options, parallel=found.parallel), found.preview.plan.remark


def _task(args: argparse.Namespace, model: Path) -> Task:
    if not args.question.strip():
        raise UsageError(
            "The question is empty.", hint='Write it in quotation marks: "What is it?"'
        )
    if args.limit is not None and args.limit < 1:
        raise UsageError("--limit must be 1 or more, not {value}.", value=args.limit)
    if args.page is not None and args.page < 1:
        raise UsageError("Pages are counted from 1, not from {page}.", page=args.page)
    drafts = DraftTexts.read(args.folder, args.draft_text_suffix)
    return Task(
        folder=args.folder,
        question=args.question,
        output=args.output or args.folder,
        next_to_pictures=args.output is None,
        recursive=args.recursive,
        overwrite=args.overwrite,
        limit=args.limit,
        only=None if args.only is None else _names(args.only, args.folder),
        existing=Existing(args.existing),
        texts=not args.no_text,
        table=not args.no_csv,
        prefix=args.prefix,
        suffix=args.suffix,
        retry=not args.no_retry,
        sampling=sampling_of(args),
        template=args.template,
        upright=not args.as_stored,
        page=args.page,
        model=identify_model(model, adapters_of(args)),
        numbers=_numbers(args),
        drafts=drafts if drafts.suffix else None,
    )


def _numbers(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the options that change an answer in small ways.

    --activations counts only where it is used, so that answers of earlier versions stay valid.
    """
    coarse = () if args.activations == "auto" else (f"activations {args.activations}",)
    return (args.dtype, args.rope, args.kv, *coarse)


def _names(file: Path, folder: Path) -> tuple[str, ...]:
    try:
        return read_names(file.read_bytes(), folder)
    except (OSError, UnicodeError) as error:
        raise UsageError(
            "{file} can't be read: {why}.",
            hint="Use a text file with one path per line.",
            file=file,
            why=getattr(error, "strerror", None) or Text("it is not text"),
        ) from error


@dataclass(frozen=True, kw_only=True)
class _Reporter:
    """Prints the progress of a batch, as text or as lines of JSON."""

    console: Console
    as_json: bool

    def event(self, kind: str, /, **values: Any) -> None:
        """Print one line of JSON."""
        self.console.line(to_json(with_templates({"event": kind, **values})))

    def planned(self, planned: Planned, task: Task, parallel: int) -> None:
        """Print the pictures and the known answers as JSON, or what will happen as one line."""
        if self.as_json:
            self._plan_event(planned, task, parallel)
            return
        todo, total = len(planned.todo), len(planned.names)
        at_once = f", {parallel} at once" if parallel > 1 else ""
        first = f"To ask: {todo} of {total} pictures{at_once}."
        self.console.remark(" ".join([first, *planned.notes]))

    def _plan_event(self, planned: Planned, task: Task, parallel: int) -> None:
        """Print the event "plan". The known answers may be many, so they are read one by one."""
        names = [escape_name(name) for name in planned.names]
        output = escape_name(str(task.output))
        values = {"event": "plan", "pictures": names, "output": output, "parallel": parallel}
        head = to_json(with_templates({**values, "notes": list(planned.notes)}))
        self.console.write(head.removesuffix("}") + ', "known": [')
        for number, answered in enumerate(planned.known.values()):
            self.console.write((", " if number else "") + to_json(answered.as_dict()))
        self.console.line("]}")

    def loading(self) -> None:
        """Show that the model is being loaded."""
        if self.as_json:
            self.event("loading")
        self.console.status("Loading the model")

    def step(self, step: BatchEvent) -> None:
        """Print one event of the work."""
        if self.as_json:
            self.event(_JSON_NAMES[type(step)], **_fields(step))
        elif isinstance(step, BatchProgress):
            answered = step.answered
            name = escape_line(answered.picture)
            self.console.line(valid_text(f"{name}: {answered.error or answered.answer}"))
            for notice in answered.notices:
                self.console.remark(valid_text(f"{name}: {notice}"))
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
        if planned.table is not None and planned.table.is_moved:
            name = planned.table.file.name
            self.console.remark(f"{CSV} was edited during the run and is kept; see {name}.")
        folder = escape_line(str(task.output))
        if not planned.names:
            self.console.line("All pictures were skipped.")
            return
        if not planned.todo and not failed:
            already = (
                "The picture already has" if count == 1 else f"All {count} pictures already have"
            )
            self.console.line(f"{already} an answer. Answers are in {folder}.")
            return
        pictures = "1 picture" if count == 1 else f"{count} pictures"
        known = f", {len(planned.known)} of them answered before" if planned.known else ""
        stopped = f", {left} not asked about yet" if left else ""
        self.console.line(f"{pictures}{known}, {failed} failed{stopped}. Answers are in {folder}.")


def _fields(step: BatchEvent) -> dict[str, Any]:
    """Return the fields of an event for JSON."""
    values = {item.name: getattr(step, item.name) for item in fields(step)}
    if isinstance(step, BatchProgress):
        values["answered"] = step.answered.as_dict()
    if isinstance(step, PictureStarted):
        values["picture"] = escape_name(step.picture)
    return values
