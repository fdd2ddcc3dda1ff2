"""`cogvlm2-lite batch`: one question about every picture of a folder."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from cogvlm2_lite.batch.work import Engine, Step, Task, find_pictures, run_batch
from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.parser import (
    Parser,
    add_compute_options,
    add_sampling_options,
    model_folder,
    sampling_of,
)
from cogvlm2_lite.engine.process import EngineProcess
from cogvlm2_lite.engine.protocol import Load
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.units import format_seconds

Start = Callable[[Load], AbstractContextManager[Engine]]

_EPILOG = """\
examples:
  cogvlm2-lite batch my-model photos --question "Describe this image."
  cogvlm2-lite batch my-model scans --question "Read all text." --output texts --recursive

Every answer is saved as it comes: NAME.txt beside its picture (or in --output), a line in
answers.jsonl, and at the end answers.csv. Run the same command again to go on, also after a
kill: pictures that have an answer to this question are left out, failed ones are asked again.
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
    parser.add_argument("--prefix", metavar="TEXT", default="", help="put before each text")
    parser.add_argument("--suffix", metavar="TEXT", default="", help="put behind each text")
    parser.add_argument(
        "--no-retry", action="store_true", help="keep answers that ran in circles as they are"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the pictures and ask nothing")
    parser.add_argument("--json", action="store_true", help="print a line of JSON per picture")
    add_compute_options(parser)
    add_sampling_options(parser)
    return parser


def main(
    argv: Sequence[str], *, start: Start = EngineProcess, console: Console | None = None
) -> int:
    """Run `batch`; gives 0 when every picture has an answer, else 1."""
    args, console = build_parser().read(argv), console or Console()
    if not args.question.strip():
        raise UsageError(
            "The question is empty.", hint='Write it in quotation marks: "What is it?"'
        )
    if args.limit is not None and args.limit < 1:
        raise UsageError(f"--limit must be 1 or more, not {args.limit}.")
    task = _task(args)
    pictures = find_pictures(task.folder, recursive=task.recursive)[: task.limit]
    if args.dry_run:
        for picture in pictures:
            console.line(str(picture))
        return 0
    load = Load(
        folder=model_folder(args.model).resolve(),
        device=args.device,
        dtype=args.dtype,
        rope=args.rope,
        vram=args.vram,
        ram=args.ram,
        offload=args.offload,
        context=args.context,
        kv=args.kv,
    )
    failed = 0
    with start(load) as engine:
        console.status("Loading the model")
        engine.wait_ready()
        for step in run_batch(task, engine):
            failed = step.failed
            _show(step, console, as_json=args.json)
    console.status("")
    if not args.json:
        console.line(f"{len(pictures)} pictures, {failed} failed. Answers: {task.output}")
    return 1 if failed else 0


def _task(args: argparse.Namespace) -> Task:
    return Task(
        folder=args.folder,
        question=args.question,
        output=args.output or args.folder,
        beside=args.output is None,
        recursive=args.recursive,
        overwrite=args.overwrite,
        limit=args.limit,
        prefix=args.prefix,
        suffix=args.suffix,
        retry=not args.no_retry,
        sampling=sampling_of(args),
    )


def _show(step: Step, console: Console, *, as_json: bool) -> None:
    if as_json:
        console.line(json.dumps({"event": "answered", **asdict(step)}, ensure_ascii=False))
        return
    answered = step.answered
    console.line(f"{answered.picture}: {answered.error or answered.answer}")
    console.status(
        f"{step.done} of {step.total}, {step.failed} failed, "
        f"{format_seconds(step.seconds_left)} left"
    )
