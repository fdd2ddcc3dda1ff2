"""`cogvlm2-lite demo`: converts the small included model and asks it about a picture."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from cogvlm2_lite.cli.answers import AnswerView, Loader, describe, load_model, show_notices
from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.parser import Parser, add_compute_options, load_options
from cogvlm2_lite.cli.preview import draw, shows_colours
from cogvlm2_lite.cli.target import import_target
from cogvlm2_lite.cli.words import as_text, dropped_path
from cogvlm2_lite.demo.lesson import FILE, NEW_SHAPE, write_training_data
from cogvlm2_lite.demo.shipped import (
    SamplePicture,
    SampleQuestion,
    checkpoint_folder,
    fingerprint,
    sample_pictures,
)
from cogvlm2_lite.errors import CheckpointError, FolderError, UsageError
from cogvlm2_lite.events import FinishReason
from cogvlm2_lite.forecast.table import draw_table
from cogvlm2_lite.inputs.image import OpenedImage, open_image
from cogvlm2_lite.places import cache_folder, prepare_cache
from cogvlm2_lite.units import format_seconds
from cogvlm2_lite.worker.client import LocalEngine

_QUANTIZE, _VERIFY = "quantize.command:main", "quantize.command:verify_main"
_ANY_PICTURE = ("What is in the picture?", "How many shapes are there?", "图里有什么?")

_NEXT = """\
To do the same with the real model (19.5 billion parameters; photos, documents, charts):
  1. Download cogvlm2-llama3-chat-19B, or cogvlm2-llama3-chinese-chat-19B, into a folder: 39 GB.
  2. cogvlm2-lite quantize cogvlm2-llama3-chat-19B cogvlm2-nf4
  3. cogvlm2-lite ask cogvlm2-nf4 photo.jpg "What is written on the sign?"
Before the download, `cogvlm2-lite plan 19b` shows how it would run on this computer.

To try more with the small model: cogvlm2-lite chat demo --image "{picture}"
"""


def build_parser() -> Parser:
    """Declare the options of `demo`."""
    parser = Parser(
        usage="demo [IMAGE] [QUESTION] [options]",
        description="Convert the small included model to 4 bits and ask it about a picture.\n\n"
        "The model has the architecture of CogVLM2. It was trained on drawn pictures (shapes,\n"
        "signs with words and numbers, bar charts) and answers in English and Chinese.",
        epilog="examples:\n  cogvlm2-lite demo\n"
        '  cogvlm2-lite demo sign "What is written on the sign?"\n',
    )
    parser.add_argument(
        "image",
        metavar="IMAGE",
        nargs="?",
        help="a picture file, or one of the included pictures: "
        + ", ".join(picture.path.stem for picture in sample_pictures()),
    )
    parser.add_argument(
        "question",
        metavar="QUESTION",
        nargs="?",
        type=as_text,
        help="ask this instead of the three questions of the picture",
    )
    parser.add_argument(
        "--training-data",
        type=Path,
        metavar="FOLDER",
        help="write drawn pictures of a shape that the model does not know, with questions and "
        "answers, to try `finetune`; nothing is converted or asked",
    )
    add_compute_options(parser)
    return parser


def main(argv: Sequence[str], *, load: Loader = load_model, console: Console | None = None) -> int:
    """Run `demo` and return its exit code."""
    began = time.perf_counter()
    args = build_parser().read(argv)
    console = console or Console()
    if args.training_data is not None:
        _write_training_data(args.training_data, console)
        return 0
    picture = choose_picture(args.image, args.question)
    image = open_image(picture.path)  # first, so that a wrong path is reported at once
    console.line(
        "This runs CogVLM2 Lite on a small model of the same architecture: "
        "6 million weights instead of 19.5 billion."
    )
    console.line()
    folder = converted_folder(console)
    console.line()
    console.heading("2. Plan the memory")
    with console.working("Loading the model"):
        model = load(load_options(args, folder))
    for remark in model.remarks:
        console.remark(remark)
    console.line(draw_table(model.plan))
    console.line()
    console.heading(f"3. Ask about a picture: {describe(image)}")
    _show_picture(image, picture.path, console)
    for question in picture.questions:
        _ask(model, image, question, console)
    console.line(f"The demo took {format_seconds(time.perf_counter() - began)}.")
    console.line()
    console.write(_NEXT.format(picture=picture.path))
    return 0


def _write_training_data(folder: Path, console: Console) -> None:
    if folder.exists():
        raise UsageError(
            "{folder} exists already.", hint="Choose a new folder for the pictures.", folder=folder
        )
    try:
        pictures, rows = write_training_data(folder)
    except OSError as error:
        raise FolderError(
            "{folder} can't be written to: {why}.", folder=folder, why=error.strerror or error
        ) from error
    console.line(f"{pictures} pictures with an {NEW_SHAPE}, {rows} questions: {folder / FILE}")
    console.line(f'Next: cogvlm2-lite finetune demo "{folder}" my-adapter --preset both')


def choose_picture(image: str | None, question: str | None) -> SamplePicture:
    """Return the picture: a file, an included picture by name, or the first included one."""
    shipped = sample_pictures()
    named = {picture.path.stem: picture for picture in shipped}
    picture = shipped[0]
    if image is not None and (image not in named or Path(image).exists()):
        asked = tuple(SampleQuestion(question=text) for text in _ANY_PICTURE)
        picture = SamplePicture(path=dropped_path(image), questions=asked)
    elif image is not None:
        picture = named[image]
    if question is None:
        return picture
    if not question.strip():
        raise UsageError(
            "The question is empty.", hint='Write it in quotation marks: "What is it?"'
        )
    return SamplePicture(path=picture.path, questions=(SampleQuestion(question=question),))


def converted_folder(console: Console) -> Path:
    """Return the 4-bit copy of the demo model; make it if it is missing or damaged."""
    source = checkpoint_folder()
    # The name depends on the content, so the copy of an older demo model is not used.
    folder = cache_folder() / f"demo-nf4-{fingerprint(source)}"
    if folder.is_dir():
        console.heading("1. Check its 4-bit copy, which an earlier run made")
        console.line(f"$ cogvlm2-lite verify {folder}")
        if import_target(_VERIFY)([str(folder)]) == 0:
            return folder
        prepare_cache()
        console.remark("The copy is damaged and is made again.")
        shutil.rmtree(folder, ignore_errors=True)  # quantize reports what is left
    else:
        prepare_cache()
        console.heading("1. Convert it to 4 bits")
    console.line(f"$ cogvlm2-lite quantize {source} {folder}")
    if import_target(_QUANTIZE)([str(source), str(folder), "--yes", "--calibrate", "none"]) != 0:
        raise CheckpointError(
            "The demo model could not be converted to 4 bits; the reason is shown above."
        )
    return folder


def _show_picture(image: OpenedImage, path: Path, console: Console) -> None:
    if console.has_styles and shows_colours():
        console.preview(draw(image))
    console.line(f"({path})")
    show_notices(image.notices, console)
    console.line()


def _ask(
    model: LocalEngine, image: OpenedImage, question: SampleQuestion, console: Console
) -> None:
    for before in question.history:
        console.line(f"Q: {before.question}")
        console.line(f"A: {before.answer}   (earlier turn)")
    console.line(f"Q: {question.question}")
    events = model.answer(question.question, image, question.history)
    finished = AnswerView(console, timings=True, label="A: ").show(events)
    if finished.reason is FinishReason.EOS and question.answer not in ("", finished.text.strip()):
        console.remark(f"  (Wrong. The right answer is: {question.answer})")
    console.line()
