"""Decodes pictures in a child process, because a damaged file may crash the decoder.

Run as a program, this module is that child. With `full` it reads a picture file from standard
input, and writes a line of JSON and all pixels, or a line with the error; a second argument is the
page to read. With `small SIDE` it reads lines with a path in JSON, and writes a small picture for
each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from cogvlm2_lite.errors import CogVLM2LiteError, ImageError
from cogvlm2_lite.text import Text, read_templates, with_templates

TIMEOUT_S = 60
"""The longest time for one picture."""


@dataclass(frozen=True, kw_only=True)
class DecodedPicture:
    """A picture as the model gets it, before it is resized.

    rgb     [height, width, 3] bytes, upright and in sRGB
    sha256  hash of size and pixels, as in inputs.image.OpenedImage
    format  of the file, as are original_width and original_height
    page    the page or frame that was read, from 1, of so many `pages`
    notices how the picture was read, where a person would not expect it
    """

    width: int
    height: int
    rgb: bytes = field(repr=False)
    sha256: str
    format: str
    original_width: int
    original_height: int
    page: int = 1
    pages: int = 1
    notices: tuple[Text, ...] = ()


class Decoding:
    """One picture that is being decoded. `cancel` may be called from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._cancelled = False

    def decode(self, data: bytes, page: int | None = None) -> DecodedPicture:
        """Decode a picture file in a child process.

        page  of a file with several, from 1; None: the one that open_image chooses
        Raises ImageError if it is not a picture, or if the child crashes, hangs or was cancelled.
        """
        command = child_command("full", *([] if page is None else [page]))
        with self._lock:
            if self._cancelled:
                raise _cancelled()
            pipe = subprocess.PIPE
            self._child = child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            out, _ = child.communicate(data, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            child.kill()
            child.communicate()
            raise ImageError("The picture took too long to read.") from error
        if self._cancelled:
            raise _cancelled()
        return _read_answer(out)

    def cancel(self) -> None:
        """Stop the child."""
        with self._lock:
            self._cancelled = True
            if self._child is not None:
                self._child.kill()


def child_command(how: str, *numbers: int) -> list[str]:
    """Return the command of the child process. how: "full" or "small"."""
    return [sys.executable, "-P", "-m", "gui.background.decoder", how, *map(str, numbers)]


def decode(data: bytes, *, page: int | None = None) -> DecodedPicture:
    """Decode a picture file in a child process, as Decoding.decode does."""
    return Decoding().decode(data, page)


def _cancelled() -> ImageError:
    return ImageError("The picture was removed before it was read.")


def _read_answer(out: bytes) -> DecodedPicture:
    end = out.find(b"\n")
    try:
        header = read_templates(json.loads(out[: max(end, 0)]))
    except ValueError as error:
        raise ImageError(
            "The picture can't be read: its decoder crashed.",
            hint="Save it again as PNG or JPEG with another program.",
        ) from error
    if "error" in header:
        raise ImageError(header["error"], hint=header["hint"])
    header["notices"] = tuple(header["notices"])
    return DecodedPicture(rgb=out[end + 1 :], **header)


def _child(how: str, number: int | None = None) -> None:
    if how == "small":
        for line in sys.stdin.buffer:
            _answer(Path(json.loads(line)), side=number)
    else:
        _answer(sys.stdin.buffer.read(), page=number)


def _answer(source: bytes | Path, *, side: int | None = None, page: int | None = None) -> None:
    from PIL import Image

    from cogvlm2_lite.inputs.image import open_image

    try:
        opened = open_image(source, page=page)
    except CogVLM2LiteError as error:
        _write(with_templates({"error": error.message, "hint": error.hint}))
        return
    pixels: memoryview | bytes = opened.rgb.data
    width, height = opened.width, opened.height
    if side is not None:
        image = Image.fromarray(opened.rgb)
        image.thumbnail((side, side))
        pixels, (width, height) = image.tobytes(), image.size
    header = {
        "width": width,
        "height": height,
        "sha256": opened.sha256,
        "format": opened.format,
        "original_width": opened.original_size[0],
        "original_height": opened.original_size[1],
        "page": opened.page,
        "pages": opened.pages,
        "notices": list(opened.notices),
    }
    _write(with_templates(header), pixels)


def _write(header: dict[str, object], pixels: bytes | memoryview = b"") -> None:
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n")
    sys.stdout.buffer.write(pixels)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    _child(sys.argv[1], *map(int, sys.argv[2:]))
