"""`cogvlm2-lite demo`: the whole way on a small model, from a 16-bit folder to answers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from cogvlm2_lite.cli.answers import AnswerView, Loader, describe, load_model
from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.parser import Parser, add_compute_options, load_options
from cogvlm2_lite.cli.preview import draw, shows_colours
from cogvlm2_lite.cli.target import import_target
from cogvlm2_lite.demo.shipped import (
    SamplePicture,
    SampleQuestion,
    checkpoint_folder,
    fingerprint,
    sample_pictures,
)
from cogvlm2_lite.errors import CheckpointError
from cogvlm2_lite.events import FinishReason
from cogvlm2_lite.forecast.table import draw_table
from cogvlm2_lite.inputs.image import OpenedImage, open_image
from cogvlm2_lite.places import cache_folder
from cogvlm2_lite.units import format_seconds
from cogvlm2_lite.worker.client import LocalEngine

_QUANTIZE, _VERIFY = "quantize.command:main", "quantize.command:verify_main"
_ANY_PICTURE = ("What is in the picture?", "How many shapes are there?", "图里有什么?")

_NEXT = """\
The same with the real model (19.5 billion parameters, for photographs, documents, charts):
  1. Download cogvlm2-llama3-chat-19B, or cogvlm2-llama3-chinese-chat-19B, into a folder: 39 GB.
  2. cogvlm2-lite quantize cogvlm2-llama3-chat-19B cogvlm2-nf4
  3. cogvlm2-lite ask cogvlm2-nf4 photo.jpg "What is written on the sign?"
`cogvlm2-lite doctor cogvlm2-llama3-chat-19B` tells beforehand whether it fits this computer.

Go on with the small one: cogvlm2-lite chat demo --image "{picture}"
"""


def build_parser() -> Parser:
    """Declare the options of `demo`."""
    parser = Parser(
        usage="demo [IMAGE] [QUESTION] [options]",
        description="Make the small shipped model 4-bit and let it answer about a picture.\n"
        "It has the architecture of CogVLM2 and was trained on drawn pictures: shapes, signs with\n"
        "words and numbers, bar charts; in English and Chinese.",
    )
    parser.add_argument(
        "image",
        metavar="IMAGE",
        nargs="?",
        help="a picture file, or one of the shipped ones: "
        + ", ".join(picture.path.stem for picture in sample_pictures()),
    )
    parser.add_argument("question", metavar="QUESTION", nargs="?", help="asked instead of three")
    add_compute_options(parser)
    return parser


def main(argv: Sequence[str], *, load: Loader = load_model, console: Console | None = None) -> int:
    """Run `demo`; gives the exit code."""
    began = time.perf_counter()
    args = build_parser().read(argv)
    console = console or Console()
    picture = choose_picture(args.image, args.question)
    image = open_image(picture.path)  # before the work, so that a wrong path costs no time
    console.line(
        "CogVLM2 Lite on a small model of the same architecture: "
        "6 million weights instead of 19.5 billion."
    )
    console.line()
    console.heading("1. Make it 4-bit")
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
    console.line(f"All of this took {format_seconds(time.perf_counter() - began)}.")
    console.line()
    console.write(_NEXT.format(picture=picture.path))
    return 0


def choose_picture(image: str | None, question: str | None) -> SamplePicture:
    """Decide what is asked about: a file, a shipped picture by name, or the first shipped one."""
    shipped = sample_pictures()
    named = {picture.path.stem: picture for picture in shipped}
    picture = shipped[0]
    if image is not None and (Path(image).exists() or image not in named):
        asked = tuple(SampleQuestion(question=text) for text in _ANY_PICTURE)
        picture = SamplePicture(path=Path(image).expanduser(), questions=asked)
    elif image is not None:
        picture = named[image]
    if question is None:
        return picture
    return SamplePicture(path=picture.path, questions=(SampleQuestion(question=question),))


def converted_folder(console: Console) -> Path:
    """Give the 4-bit copy of the demo model, making it when there is none or it is damaged."""
    source = checkpoint_folder()
    # A new release of the demo model gets a new name, so an old copy is never mistaken for it.
    folder = cache_folder() / f"demo-nf4-{fingerprint(source)}"
    if folder.is_dir():
        console.line(f"$ cogvlm2-lite verify {folder}")
        if import_target(_VERIFY)([str(folder)]) == 0:
            return folder
        console.remark("It is made again.")
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
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
    console.line()


def _ask(
    model: LocalEngine, image: OpenedImage, question: SampleQuestion, console: Console
) -> None:
    for before in question.history:
        console.line(f"Q: {before.question}")
        console.line(f"A: {before.answer}   (said before)")
    console.line(f"Q: {question.question}")
    events = model.answer(question.question, image, question.history)
    finished = AnswerView(console, timings=True, label="A: ").show(events)
    if finished.reason is FinishReason.EOS and question.answer not in ("", finished.text.strip()):
        console.remark(f"  (That is wrong: {question.answer})")
    console.line()
