"""Reads the chunks of a PNG file: what they say of colors, and whether the file ends early.

A flaw in a chunk that has no pixels (a wrong checksum, a text of megabytes, a broken profile) must
not cost the picture. Pillow rejects such files, so it gets a copy with the chunks of pixels only.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from itertools import pairwise
from os import SEEK_END
from typing import BinaryIO

from cogvlm2_lite.inputs.colour import SRGB, Primaries
from cogvlm2_lite.units import MIB

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXEL_CHUNKS = {
    b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT",
}  # fmt: skip
_ANIMATION_CHUNKS = {b"acTL", b"fcTL", b"fdAT"}
_COLOR_CHUNKS = {b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"sBIT", b"eXIf"}
_MOST_CHUNKS = 1_000_000
_MOST_PROFILE_BYTES = 32 * MIB
_LARGE_CHUNK_BYTES = MIB // 2
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""Of interlacing: first column and row, and the steps to the next ones."""


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    kind: bytes
    start: int  # of its data
    length: int  # of its data, as far as the file has them
    complete: bool


@dataclass(frozen=True, kw_only=True)
class PngFile:
    """The chunks of a file up to its end.

    flawed  Pillow would reject or misread a chunk that has no pixels
    ended   the file has its end mark
    colors  the data of the chunks about colors
    """

    stream: BinaryIO = field(repr=False)
    chunks: tuple[_Chunk, ...]
    flawed: bool
    ended: bool
    colors: dict[bytes, bytes]

    def pixels_only(self, *, animated: bool) -> BytesIO:
        """Return a PNG file of the chunks with pixels, all of them complete.

        animated  with the frames of an animation, or with the first picture only
        """
        parts = [SIGNATURE]
        kept = _PIXEL_CHUNKS if animated else _PIXEL_CHUNKS - _ANIMATION_CHUNKS
        for number, chunk in enumerate(self.chunks):
            repeated_header = chunk.kind == b"IHDR" and number > 0
            if chunk.kind in kept and chunk.kind != b"IEND" and not repeated_header:
                parts += _written(chunk.kind, self._data(chunk))
        return BytesIO(b"".join([*parts, *_written(b"IEND", b"")]))

    def profile(self) -> bytes:
        """Return the embedded color profile; empty without one and for a damaged one."""
        name, _, body = self.colors.get(b"iCCP", b"").partition(b"\0")
        if not name or body[:1] != b"\0":
            return b""
        unpacker = zlib.decompressobj()
        try:
            profile = unpacker.decompress(body[1:], _MOST_PROFILE_BYTES)
        except zlib.error:
            return b""
        return profile if unpacker.eof else b""

    @property
    def has_profile(self) -> bool:
        """Whether there is a profile, readable or not."""
        return b"iCCP" in self.colors

    def color_code(self) -> tuple[int, int] | None:
        """Return primaries and transfer function by their numbers in ITU-T H.273, or None."""
        data = self.colors.get(b"cICP", b"")
        return (data[0], data[1]) if len(data) == 4 and data[2:] == b"\0\1" else None

    def gamma_and_primaries(self) -> tuple[float, Primaries] | None:
        """Return the exponent that makes values linear (0: that of sRGB) and the primaries.

        None if the file says nothing, or that it is sRGB.
        """
        gamma, primaries = self.colors.get(b"gAMA", b""), self.colors.get(b"cHRM", b"")
        if b"sRGB" in self.colors or not (gamma or primaries):
            return None
        exponent, found = 0.0, SRGB
        if len(gamma) == 4 and (number := struct.unpack(">I", gamma)[0]):
            exponent = 100_000 / number
        if len(primaries) == 32:
            x = [number / 100_000 for number in struct.unpack(">8I", primaries)]
            found = Primaries(
                white=(x[0], x[1]), red=(x[2], x[3]), green=(x[4], x[5]), blue=(x[6], x[7])
            )
        return exponent, found

    def significant_bits(self) -> tuple[int, int]:
        """Return how many bits of a color and of alpha are significant; 0 for what is not said."""
        bits = self.colors.get(b"sBIT", b"")
        _, _, _, kind = self.header()
        colors = 3 if kind in (2, 3, 6) else 1
        return max(bits[:colors], default=0), max(bits[colors : colors + 1], default=0)

    def header(self) -> tuple[int, int, int, int]:
        """Return width, height, bits of a sample, and the type of the colors; zeros without any."""
        header = next((self._data(c) for c in self.chunks if c.kind == b"IHDR"), b"")
        return struct.unpack_from(">IIBB", header) if len(header) == 13 else (0, 0, 0, 0)

    def missing_share(self) -> float:
        """Return the share of the first picture's pixels that the file does not have, 0 to 1.

        The compressed data are read to their end or to the first damage.
        """
        header = next((self._data(c) for c in self.chunks if c.kind == b"IHDR"), b"")
        if len(header) != 13:
            return 1.0
        width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", header)
        bits = depth * _SAMPLES.get(kind, 1)
        passes = _PASSES if interlaced else ((0, 0, 1, 1),)
        expected = 0
        for left, top, across, down in passes:
            columns, rows = -(-max(width - left, 0) // across), -(-max(height - top, 0) // down)
            expected += rows * (1 + -(-columns * bits // 8)) if columns else 0
        unpacker, known = zlib.decompressobj(), 0
        try:
            for chunk in self.chunks:
                data = self._data(chunk) if chunk.kind == b"IDAT" else b""
                while data and not unpacker.eof and known < expected:
                    known += len(unpacker.decompress(data, MIB))
                    data = unpacker.unconsumed_tail
        except zlib.error:
            pass
        return max(0.0, 1 - known / expected) if expected else 1.0

    def _data(self, chunk: _Chunk) -> bytes:
        self.stream.seek(chunk.start)
        return self.stream.read(chunk.length)


def read_png(stream: BinaryIO) -> PngFile:
    """Return the chunks of a PNG file, and the data of those about colors."""
    size = stream.seek(0, SEEK_END)
    chunks = tuple(_chunks(stream, size))
    # Pillow reads only the first run of chunks with pixels.
    runs = sum(
        chunk.kind == b"IDAT" and before.kind != b"IDAT" for before, chunk in pairwise(chunks)
    )
    flawed = runs > 1
    colors: dict[bytes, bytes] = {}
    for chunk in chunks:
        if chunk.kind in _COLOR_CHUNKS and chunk.length <= _MOST_PROFILE_BYTES:
            stream.seek(chunk.start)
            data, check = stream.read(chunk.length), stream.read(4)
            if check == struct.pack(">I", zlib.crc32(chunk.kind + data)):
                colors.setdefault(chunk.kind, data)
            else:
                flawed = True
                colors.setdefault(chunk.kind, b"")
        elif chunk.kind not in _PIXEL_CHUNKS:
            flawed = flawed or chunk.length > _LARGE_CHUNK_BYTES or not _sound(stream, chunk)
    # An entry of nothing but a broken checksum is kept only for the profile, which has a notice.
    kept = {kind: data for kind, data in colors.items() if data or kind == b"iCCP"}
    ended = bool(chunks) and chunks[-1].kind == b"IEND"
    return PngFile(stream=stream, chunks=chunks, flawed=flawed, ended=ended, colors=kept)


def _chunks(stream: BinaryIO, size: int) -> Iterator[_Chunk]:
    start = len(SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        stream.seek(start)
        head = stream.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        if not kind.isalpha():
            return
        there = min(length, size - start - 8)
        yield _Chunk(kind=kind, start=start + 8, length=there, complete=start + 12 + length <= size)
        start += 12 + length
        if kind == b"IEND" or start >= size:
            return


def _sound(stream: BinaryIO, chunk: _Chunk) -> bool:
    """Return whether Pillow may read a chunk of text or of another kind without pixels."""
    if not chunk.complete:
        return False
    stream.seek(chunk.start)
    data, check = stream.read(chunk.length), stream.read(4)
    if check != struct.pack(">I", zlib.crc32(chunk.kind + data)):
        return False
    if chunk.kind not in (b"zTXt", b"iTXt"):
        return True
    # A compressed text may be much larger than its chunk.
    return not (len(data) > 64 and _unpacks_to_much(data))


def _unpacks_to_much(data: bytes) -> bool:
    """Return whether the text at the end of a chunk is compressed and large, or damaged."""
    start = data.find(b"\x78", data.find(b"\0"))
    if start < 0:
        return False
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(data[start:], _LARGE_CHUNK_BYTES)
    except zlib.error:
        return True
    return not unpacker.eof


def _written(kind: bytes, data: bytes) -> tuple[bytes, bytes, bytes]:
    head = struct.pack(">I4s", len(data), kind)
    return head, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
