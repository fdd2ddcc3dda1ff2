"""Pictures for the page that a browser can't show: HEIC, TIFF and others, as small JPEG files.

They are decoded in a child process, because a damaged file may crash the decoder. Run as a program,
this module is that child: it reads a file from standard input, and writes a JPEG file, or the error
as JSON.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from io import BytesIO

from cogvlm2_lite.errors import CogVLM2LiteError, ImageError
from cogvlm2_lite.inputs.image import open_image
from cogvlm2_lite.text import Text

SIDE = 1024
"""Pixels of the longer side of a preview."""
_TIMEOUT_S = 60
_AT_ONCE = 2
_ERROR_CODE = 3


class Previews:
    """Makes previews, few at the same time: each decodes a whole picture."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def make(self, picture: bytes, page: int | None) -> bytes:
        """Return a JPEG file. Raises ImageError if the picture can't be read."""
        async with self._free:
            return await asyncio.to_thread(_decoded, picture, page)


def _decoded(picture: bytes, page: int | None) -> bytes:
    command = [sys.executable, "-P", "-m", "cogvlm2_lite.server.preview", str(page or 0)]
    try:
        done = subprocess.run(
            command, input=picture, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ImageError("The picture took too long to read.") from None
    if done.returncode == _ERROR_CODE:
        raise ImageError(Text.read(json.loads(done.stdout)))
    if done.returncode:
        raise ImageError(
            "The picture can't be read: its decoder crashed.",
            hint="Save it again as PNG or JPEG with another program.",
        )
    return done.stdout


def main() -> int:
    """Write the preview of standard input. Returns the exit code."""
    from PIL import Image

    try:
        opened = open_image(sys.stdin.buffer.read(), page=int(sys.argv[1]) or None)
    except CogVLM2LiteError as error:
        sys.stdout.write(json.dumps(error.text.as_dict()))
        return _ERROR_CODE
    image = Image.fromarray(opened.rgb)
    image.thumbnail((SIDE, SIDE))
    out = BytesIO()
    image.save(out, "JPEG", quality=88)
    sys.stdout.buffer.write(out.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main())
