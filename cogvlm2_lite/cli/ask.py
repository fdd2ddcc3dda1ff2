"""`cogvlm2-lite ask`: one question, one answer."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

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
    add_draft_option,
    add_model_options,
    add_picture_options,
    add_sampling_options,
    load_options,
    sampling_of,
)
from cogvlm2_lite.cli.words import as_text, dropped_path
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.errors import CogVLM2LiteError, ImageError, OutputError, UsageError
from cogvlm2_lite.events import Event, Finished
from cogvlm2_lite.file_names import escape_line, to_json
from cogvlm2_lite.forecast.table import draw_table, plan_as_dict
from cogvlm2_lite.inputs.draft_text import open_draft_text, read_draft_text
from cogvlm2_lite.inputs.image import OpenedImage, open_image
from cogvlm2_lite.inputs.limits import DEFAULT_LIMITS
from cogvlm2_lite.inputs.tiles import tiles
from cogvlm2_lite.inputs.visible import squashed
from cogvlm2_lite.text import Text
from cogvlm2_lite.worker.client import LocalEngine

_EPILOG = """\
The answer goes to standard output, progress and timings to standard error. With --json every event
is a line of JSON; the last one is "finished", with the complete answer, or "error". "finished" also
has the page that was read, how many pages there are, and notices about the picture.

The model sees every picture as a square of 1344 pixels. With --tiles, a long screenshot or a
panorama is cut into square parts that overlap, and the question is asked about each of them. In
JSON, events then have "part" and "parts", and there is one "finished" for each part.

examples:
  cogvlm2-lite ask my-model photo.jpg "What is written on the sign?"
  cogvlm2-lite ask my-model photo.jpg "招牌上写着什么?"
  cogvlm2-lite ask my-model "What is the capital of France?"
  cogvlm2-lite ask my-model photo.jpg "How many people?" --json | tail -n 1
  cogvlm2-lite ask my-model scan.tif "What is the date?" --page 2
  cogvlm2-lite ask my-model chat.png "Write down the text." --tiles
  cogvlm2-lite ask my-model scan.png "Write down the text." --draft-text scan.txt
  tesseract scan.png - | cogvlm2-lite ask my-model scan.png "Write down the text." --draft-text -
"""


def build_parser() -> Parser:
    """Declare the options of `ask`."""
    parser = Parser(
        usage="ask MODEL [IMAGE] QUESTION [options]",
        description="Ask one question, with or without a picture.",
        epilog=_EPILOG,
    )
    add_model_options(parser, one_adapter=True)
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
    add_draft_option(parser, more=", or - for standard input,")
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument(
        "--tiles",
        action="store_true",
        help="cut a long or wide picture into square parts and ask about each",
    )
    parts.add_argument("--tile", type=int, metavar="N", help="ask about part N of --tiles only")
    add_sampling_options(parser)
    return parser


def main(argv: Sequence[str], *, load: Loader = load_model, console: Console | None = None) -> int:
    """Run `ask` and return its exit code."""
    console = console or Console()
    try:
        _run(build_parser().read(argv), load, console)
    except CogVLM2LiteError as error:
        if "--json" not in argv or isinstance(error, OutputError):
            raise
        console.line(error_json(error))
        return error.exit_code
    return 0


def _run(args: argparse.Namespace, load: Loader, console: Console) -> None:
    # Check the arguments first: importing torch takes seconds, loading a large model minutes.
    picture, question = split_words(args.picture_and_question)
    draft = _draft(args.draft_text, picture)
    image = _picture(args, picture)
    parts = _parts(args, image)
    sampling = sampling_of(args)
    options = load_options(args, model_folder(args.model))
    silent = args.quiet or args.json
    if not silent:
        _show_notices(parts[0], console, first=args.page is None)
    model = open_and_warm(load, options, console, silent=silent)
    if not silent:
        for remark in model.remarks:
            console.remark(remark)
    if args.show_plan and not args.json:
        console.remark(draw_table(model.plan))
    if args.json:
        _print_loaded(model, console)
    for part in parts:
        events = model.answer(
            question, part.image, sampling=sampling, template=args.template, draft_text=draft
        )
        if args.json:
            _print_json(part, events, console)
            continue
        if part.count > 1:
            console.heading(f"part {part.number} of {part.count}")
        AnswerView(console, timings=console.err.isatty(), quiet=args.quiet).show(events)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What one question is about: part `number` of `count` of a picture; None without a picture.

    notices  of the whole picture; without that of an extreme shape, if it is cut
    """

    image: OpenedImage | None
    notices: tuple[Text, ...] = ()
    number: int = 1
    count: int = 1


def _parts(args: argparse.Namespace, image: OpenedImage | None) -> list[_Part]:
    """Return what to ask about, in order. Raises UsageError for a part that does not exist."""
    if image is None:
        return [_Part(image=None)]
    if not args.tiles and args.tile is None:
        return [_Part(image=image, notices=image.notices)]
    found, shape = tiles(image), squashed(image.width, image.height)
    notices = tuple(notice for notice in image.notices if notice != shape)
    parts = [
        _Part(image=part, notices=notices, number=number, count=len(found))
        for number, part in enumerate(found, 1)
    ]
    if args.tiles:
        return parts
    if not 1 <= args.tile <= len(parts):
        raise UsageError(
            "--tile must be 1, not {value}: the picture is nearly square and is not cut."
            if len(parts) == 1
            else "--tile must be between 1 and {most}, not {value}: the picture is cut into "
            "{most} parts.",
            most=len(parts),
            value=args.tile,
        )
    return [parts[args.tile - 1]]


def _show_notices(part: _Part, console: Console, *, first: bool) -> None:
    """Print the notices about a picture, and the options that help. first: no page was chosen."""
    show_notices(part.notices, console)
    image = part.image
    if image is None:
        return
    if image.pages > 1 and first:
        console.remark("--page N asks about another one.")
    if squashed(image.width, image.height) in part.notices:
        console.remark(f"--tiles asks about each of its {len(tiles(image))} square parts instead.")


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
    question = as_text(words[-1])
    if not question.strip():
        raise UsageError(
            "The question is empty.", hint='Write it in quotation marks: "What is it?"'
        )
    if len(words) == 2:
        return words[0], question
    with suppress(OSError, ValueError):  # a long question is not a valid file name
        if dropped_path(words[0]).is_file():
            raise UsageError(
                "{file} is a file, and there is no question about it.",
                hint='Add one: cogvlm2-lite ask MODEL {file} "What is in the picture?"',
                file=escape_line(words[0]),
            )
    return None, question


def _picture(args: argparse.Namespace, picture: str | None) -> OpenedImage | None:
    """Return the opened picture. Raises ImageError, and UsageError for options without one."""
    if picture is None:
        for name in ("page", "tiles", "tile"):
            if getattr(args, name) not in (None, False):
                raise UsageError(
                    "--{name} needs a picture.",
                    hint="Put the file before the question.",
                    name=name,
                )
        return None
    upright, page = not args.as_stored, args.page
    if picture != "-":
        return open_image(dropped_path(picture), upright=upright, page=page)
    try:
        content = sys.stdin.buffer.read(DEFAULT_LIMITS.max_file_bytes + 1)
    except OSError as error:
        raise ImageError(
            "The picture can't be read from standard input: {why}.",
            hint="Check what it is redirected from.",
            why=error.strerror,
        ) from error
    return open_image(content, upright=upright, page=page)


def _draft(file: str | None, picture: str | None) -> str:
    """Return the draft text, or "". Raises UsageError for a file without plain text."""
    if file is None:
        return ""
    if file != "-":
        return open_draft_text(dropped_path(file))
    if picture == "-":
        raise UsageError(
            "Standard input can't be both the picture and the draft text.",
            hint="Write one of them to a file.",
        )
    return read_draft_text(sys.stdin.buffer, "-")


def _print_loaded(model: LocalEngine, console: Console) -> None:
    plan = plan_as_dict(model.plan)
    loaded = {"event": "loaded", "plan": plan, "remarks": list(model.remarks)}
    console.line(to_json(loaded))


def _print_json(part: _Part, events: Iterator[Event], console: Console) -> None:
    about: dict[str, object] = {}
    if part.count > 1:
        about = {"part": part.number, "parts": part.count}
    for event in events:
        if isinstance(event, Finished):
            if part.image is not None:
                about |= opened_json(part.image, part.notices)
            console.line(event_json(event, **about))
            return
        console.line(event_json(event, **about))
