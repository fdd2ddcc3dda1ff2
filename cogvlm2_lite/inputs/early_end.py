"""Pictures whose file ends early or is flawed: what can still be read, and how much is missing."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cogvlm2_lite.text import Text

_END_OF_JPEG = b"\xff\xd9"
_LONG_ZEROS = 4096
_GIF_PASSES = ((0, 8), (4, 8), (2, 4), (1, 2))
_SOF_NAMES = {
    0xC3: Text("lossless compression"), 0xC5: Text("hierarchical compression"),
    0xC6: Text("hierarchical compression"), 0xC7: Text("lossless compression"),
    0xCB: Text("lossless compression"), 0xF7: Text("lossless compression (JPEG-LS)"),
}  # fmt: skip


def ended_jpeg(data: bytes) -> bytes:
    """Return a JPEG file with an end mark, so that the decoder fills what is missing with grey.

    A download that was interrupted may have the full size, with zeros at the end.
    """
    kept = data.rstrip(b"\0")
    return (kept if len(data) - len(kept) > _LONG_ZEROS else data) + _END_OF_JPEG


def bare_jpeg(data: bytes) -> bytes:
    """Return a JPEG file without comments and application data, which may be what is broken.

    The segment that tells how colors are stored (Adobe's) is kept.
    """
    parts, last = [data[:2]], 2
    for marker, start, end in _segments(data):
        dropped = marker == 0xFE or (0xE0 <= marker <= 0xEF and marker != 0xEE)
        if not dropped:
            parts.append(data[start:end])
        last = end
    return b"".join([*parts, data[last:]])


def jpeg_variant(data: bytes) -> Text | None:
    """Return the name of the variant of a JPEG file that libjpeg does not decode, or None."""
    for marker, start, _ in _segments(data):
        if marker in _SOF_NAMES:
            return _SOF_NAMES[marker]
        if 0xC0 <= marker <= 0xC2 and len(data) > start + 4 and data[start + 4] != 8:
            return Text("{bits} bits per sample", bits=data[start + 4])
    return None


def is_progressive(data: bytes) -> bool:
    """Return whether a JPEG file stores the whole picture several times, in growing detail."""
    return any(marker == 0xC2 for marker, _, _ in _segments(data))


def grey_share(image: Image.Image) -> float:
    """Return the share of the pixels at the end that are middle grey, with which libjpeg fills.

    The last row of blocks that has a picture may be grey from some column on.
    """
    pixels: NDArray[np.uint8] = np.asarray(image)
    height, width = pixels.shape[:2]
    flat = pixels.reshape(height, width, -1)
    grey = np.asarray(np.logical_and(flat >= 127, flat <= 129).all(axis=2))
    rows = _tail(np.asarray(grey.all(axis=1)))
    partly = 0
    for block in {8, 16, height % 8 or 8, height % 16 or 16}:
        above = grey[max(0, height - rows - block) : height - rows]
        # The first row of a block is mixed with the colors above it.
        known = above[1:] if above.shape[0] > 1 else above
        if known.size:
            partly = max(partly, _tail(np.asarray(known.all(axis=0))) * above.shape[0])
    return float((rows * width + partly) / (width * height))


def constant_share(image: Image.Image) -> float:
    """Return the share of the rows that have one value at the end, as a decoder leaves them.

    Rows are counted in their order and in that of interlaced GIF files: every eighth row, then
    those between.
    """
    pixels: NDArray[np.uint8] = np.asarray(image)
    height = pixels.shape[0]
    flat = pixels.reshape(height, -1, pixels.shape[2] if pixels.ndim == 3 else 1)
    filled = np.asarray(np.equal(flat, flat[-1, -1]).all(axis=(1, 2)))
    order = [row for first, step in _GIF_PASSES for row in range(first, height, step)]
    return float(max(_tail(filled), _tail(filled[order])) / height)


def padded_webp(data: bytes) -> tuple[bytes, float]:
    """Return a WebP file as long as it says it is, and the share that was missing."""
    expected = struct.unpack_from("<I", data, 4)[0] + 8
    missing = max(0, expected - len(data))
    # The bounded length: a header may claim 4 GiB.
    if missing > len(data):
        return data, 1.0
    return data + bytes(missing), missing / expected


def _tail(filled: NDArray[np.bool_]) -> int:
    """Return how many values at the end are true."""
    known = np.flatnonzero(~filled)
    return len(filled) - (int(known[-1]) + 1 if known.size else 0)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment of a JPEG file before its pixels."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        if marker in (0xDA, 0xD9) or 0xD0 <= marker <= 0xD8:
            return
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        yield marker, place, end
        place = end
