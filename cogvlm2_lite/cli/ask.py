"""`cogvlm2-lite ask`: one question, one answer."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from cogvlm2_lite.cli.answers import (
    AnswerView,
    Loader,
    error_json,
    event_json,
    load_model,
    open_and_warm,
    opened_json,
    show_notices,
)
from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.parser import (
    Parser,
    add_model_options,
    add_picture_options,
    add_sampling_options,
    load_options,
    sampling_of,
)
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.errors import CogVLM2LiteError, UsageError
from cogvlm2_lite.events import Event, Finished
from cogvlm2_lite.forecast.table import draw_table, plan_as_dict
from cogvlm2_lite.inputs.image import OpenedImage, open_image
from cogvlm2_lite.inputs.limits import DEFAULT_LIMITS
from cogvlm2_lite.worker.client import LocalEngine

_EPILOG = """\
The answer goes to standard output, progress and timings to standard error. With --json every event
is a line of JSON; the last one is "finished", with the complete answer, or "error". "finished" also
has the page that was read, how many pages there are, and notices about the picture.

examples:
  cogvlm2-lite ask my-model photo.jpg "What is written on the sign?"
  cogvlm2-lite ask my-model photo.jpg "招牌上写着什么?"
  cogvlm2-lite ask my-model "What is the capital of France?"
  cogvlm2-lite ask my-model photo.jpg "How many people?" --json | tail -n 1
  cogvlm2-lite ask my-model scan.tif "What is the date?" --page 2
"""


def build_parser() -> Parser:
    """Declare the options of `ask`."""
    parser = Parser(
        usage="ask MODEL [IMAGE] QUESTION [options]",
        description="Ask one question, with or without a picture.",
        epilog=_EPILOG,
    )
    add_model_options(parser)
    parser.add_argument(
        "picture_and_question",
        nargs="+",
        metavar="[IMAGE] QUESTION",
        help="a picture file, or - for standard input, and the question; without IMAGE the model "
        "gets only the question",
    )
    parser.add_argument("--json", action="store_true", help="print each event as a line of JSON")
    parser.add_argument("--quiet", action="store_true", help="print only the answer")
    add_picture_options(parser)
    add_sampling_options(parser)
    return parser


def main(argv: Sequence[str], *, load: Loader = load_model, console: Console | None = None) -> int:
    """Run `ask` and return its exit code."""
    console = console or Console()
    try:
        _run(build_parser().read(argv), load, console)
    except CogVLM2LiteError as error:
        if "--json" not in argv:
            raise
        console.line(error_json(error))
        return error.exit_code
    return 0


def _run(args: argparse.Namespace, load: Loader, console: Console) -> None:
    # Check the arguments first: importing torch takes seconds, loading a large model minutes.
    picture, question = split_words(args.picture_and_question)
    image = _picture(args, picture)
    sampling = sampling_of(args)
    options = load_options(args, model_folder(args.model))
    silent = args.quiet or args.json
    if image is not None and not silent:
        show_notices(image, console)
    model = open_and_warm(load, options, console, silent=silent)
    if not silent:
        for remark in model.remarks:
            console.remark(remark)
    if args.show_plan and not args.json:
        console.remark(draw_table(model.plan))
    events = model.answer(question, image, sampling=sampling, template=args.template)
    if args.json:
        _print_json(model, image, events, console)
    else:
        AnswerView(console, timings=console.err.isatty(), quiet=args.quiet).show(events)


def split_words(words: Sequence[str]) -> tuple[str | None, str]:
    """Return (picture or None, question).

    Raises UsageError for a file without a question, for more than two words, and for an empty
    question.
    """
    if len(words) > 2:
        raise UsageError(
            "ask takes one picture and one question, not {count} arguments.",
            hint="Put the question in quotation marks. The model takes one picture.",
            count=len(words),
        )
    question = words[-1]
    if not question.strip():
        raise UsageError(
            "The question is empty.", hint='Write it in quotation marks: "What is it?"'
        )
    if len(words) == 2:
        return words[0], question
    with suppress(OSError, ValueError):  # a long question is not a valid file name
        if Path(question).is_file():
            raise UsageError(
                "{file} is a file, and there is no question about it.",
                hint='Add one: cogvlm2-lite ask MODEL {file} "What is in the picture?"',
                file=question,
            )
    return None, question


def _picture(args: argparse.Namespace, picture: str | None) -> OpenedImage | None:
    """Return the opened picture. Raises ImageError, and UsageError for a page without a picture."""
    if picture is None:
        if args.page is not None:
            raise UsageError("--page needs a picture.", hint="Put the file before the question.")
        return None
    upright, page = not args.as_stored, args.page
    if picture != "-":
        return open_image(Path(picture).expanduser(), upright=upright, page=page)
    data = sys.stdin.buffer.read(DEFAULT_LIMITS.max_file_bytes + 1)
    return open_image(data, upright=upright, page=page)


def _print_json(
    model: LocalEngine, image: OpenedImage | None, events: Iterator[Event], console: Console
) -> None:
    plan = plan_as_dict(model.plan)
    loaded = {"event": "loaded", "plan": plan, "remarks": list(model.remarks)}
    console.line(json.dumps(loaded, ensure_ascii=False))
    for event in events:
        if isinstance(event, Finished):
            picture = opened_json(image) if image is not None else {}
            console.line(event_json(event, **picture))
            return
        console.line(event_json(event))
