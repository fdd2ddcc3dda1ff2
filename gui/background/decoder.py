"""Decodes pictures in a child process, because a damaged file may crash the decoder.

Run as a program, this module is that child. With `fit` or `square` it reads a picture file from
standard input, and writes a line of JSON and the pixels, or a line with the error; a third argument
is the page to read. With `small` it reads lines with a path in JSON, and writes such an answer for
each.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cogvlm2_lite.errors import CogVLM2LiteError, ImageError
from cogvlm2_lite.text import Text, read_templates, with_templates

SIDE = 1344
"""Side of the model's input in pixels; a preview is not larger."""
_TIMEOUT_S = 60


@dataclass(frozen=True, kw_only=True)
class DecodedPicture:
    """A picture to show.

    rgb     [height, width, 3] bytes
    format  of the file, as are original_width and original_height
    page    the page or frame that was read, from 1, of so many `pages`
    notices how the picture was read, where a person would not expect it
    """

    width: int
    height: int
    rgb: bytes
    format: str
    original_width: int
    original_height: int
    page: int = 1
    pages: int = 1
    notices: tuple[Text, ...] = ()


def child_command(how: str, side: int) -> list[str]:
    """Return the command of the child process. how: "fit", "square" or "small"; side in pixels."""
    return [sys.executable, "-P", "-m", "gui.background.decoder", how, str(side)]


def preview(data: bytes, *, page: int | None = None, as_model_sees: bool = False) -> DecodedPicture:
    """Decode a picture file in a child process.

    page           of a file with several, from 1; None: the one that open_image chooses
    as_model_sees  resized to a square of 1344 pixels, as the model gets it
    Raises ImageError if it is not a picture, or if the child crashes or hangs.
    """
    command = child_command("square" if as_model_sees else "fit", SIDE)
    if page is not None:
        command.append(str(page))
    try:
        done = subprocess.run(
            command, input=data, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ImageError("The picture took too long to read.") from error
    head, _, pixels = done.stdout.partition(b"\n")
    try:
        header = read_templates(json.loads(head))
    except ValueError as error:
        raise ImageError(
            "The picture can't be read: its decoder crashed.",
            hint="Save it again as PNG or JPEG with another program.",
        ) from error
    if "error" in header:
        raise ImageError(header["error"], hint=header["hint"])
    header["notices"] = tuple(header["notices"])
    return DecodedPicture(rgb=pixels, **header)


def _child(how: str, side: int, page: int | None = None) -> None:
    if how == "small":
        for line in sys.stdin.buffer:
            _answer(Path(json.loads(line)), how, side)
    else:
        _answer(sys.stdin.buffer.read(), how, side, page)


def _answer(source: bytes | Path, how: str, side: int, page: int | None = None) -> None:
    from PIL import Image

    from cogvlm2_lite.inputs.image import open_image

    try:
        opened = open_image(source, page=page)
    except CogVLM2LiteError as error:
        _write(with_templates({"error": error.message, "hint": error.hint}))
        return
    image = Image.fromarray(opened.rgb)
    if how == "square":
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    else:
        image.thumbnail((side, side))
    width, height = opened.original_size
    header = {
        "width": image.width,
        "height": image.height,
        "format": opened.format,
        "original_width": width,
        "original_height": height,
        "page": opened.page,
        "pages": opened.pages,
        "notices": list(opened.notices),
    }
    _write(with_templates(header), image.tobytes())


def _write(header: dict[str, object], pixels: bytes = b"") -> None:
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + pixels)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    _child(sys.argv[1], *map(int, sys.argv[2:]))
