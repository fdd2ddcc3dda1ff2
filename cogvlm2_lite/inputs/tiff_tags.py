"""Reads the directories of TIFF files: which pages there are, and the tags of each.

Classic TIFF and BigTIFF, both byte orders. Only the tags listed here are read, and no length in the
file is believed before it is compared with the size of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from os import SEEK_END
from typing import BinaryIO

from cogvlm2_lite.units import MIB

_MOST_DIRECTORIES = 65_536
_MOST_ENTRIES = 4096
_MOST_TAG_BYTES = 64 * MIB
_MOST_NUMBERS = 2_000_000
_TYPES = {
    1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f",
    12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q",
}  # fmt: skip
_RATIONALS = (5, 10)


class Tag(IntEnum):
    """The tags that this program uses, by their numbers in the TIFF 6.0 specification."""

    NEW_SUBFILE_TYPE = 254
    SUBFILE_TYPE = 255
    WIDTH = 256
    HEIGHT = 257
    BITS_PER_SAMPLE = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES_PER_PIXEL = 277
    ROWS_PER_STRIP = 278
    STRIP_BYTE_COUNTS = 279
    PLANAR_CONFIGURATION = 284
    PREDICTOR = 317
    COLOR_MAP = 320
    TILE_WIDTH = 322
    TILE_LENGTH = 323
    TILE_OFFSETS = 324
    TILE_BYTE_COUNTS = 325
    SUB_DIRECTORIES = 330
    INK_SET = 332
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    MIN_SAMPLE_VALUE = 340
    MAX_SAMPLE_VALUE = 341
    JPEG_TABLES = 347
    YCBCR_COEFFICIENTS = 529
    YCBCR_SUBSAMPLING = 530
    REFERENCE_BLACK_WHITE = 532
    COLOR_PROFILE = 34675
    DNG_VERSION = 50706


class BrokenTiffError(Exception):
    """The directories of a file can't be read.

    end  the place that the file should reach at least; 0 if that is not what is wrong
    """

    def __init__(self, what: str, end: int = 0) -> None:
        super().__init__(what)
        self.end = end


class Source:
    """An open file with its byte order and size."""

    def __init__(self, stream: BinaryIO) -> None:
        """Read the header. Raises BrokenTiffError for a file that is no TIFF."""
        self._stream = stream
        self.size = stream.seek(0, SEEK_END)
        head = self.read(0, 16)
        self.order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        if not self.order or len(head) < 8:
            raise BrokenTiffError("no header")
        magic = struct.unpack(f"{self.order}H", head[2:4])[0]
        self.big = magic == 43
        if self.big and len(head) == 16:
            self.first = struct.unpack(f"{self.order}Q", head[8:16])[0]
        elif magic == 42:
            self.first = struct.unpack(f"{self.order}I", head[4:8])[0]
        else:
            raise BrokenTiffError("unknown version")

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file; fewer where it ends."""
        if offset >= self.size or length <= 0:
            return b""
        self._stream.seek(offset)
        return self._stream.read(min(length, self.size - offset))

    def numbers(self, form: str, data: bytes) -> tuple[int | float, ...]:
        """Return numbers of a struct format in the byte order of the file."""
        return struct.unpack(f"{self.order}{form}", data)


@dataclass(frozen=True)
class Directory:
    """One directory of a file: the description of a page, a thumbnail or a mask.

    offset   its place in the file
    entries  of each known tag: type, number of values, and the field with the values or their place
    """

    source: Source
    offset: int
    entries: Mapping[int, tuple[int, int, bytes]]

    def __contains__(self, tag: Tag) -> bool:
        return tag in self.entries

    def data(self, tag: Tag) -> bytes:
        """Return the bytes of a tag's values as stored; empty if it is missing or incomplete."""
        if tag not in self.entries:
            return b""
        kind, count, field = self.entries[tag]
        length = struct.calcsize("=" + _TYPES[kind]) * count
        if length <= len(field):
            return field[:length]
        if length > _MOST_TAG_BYTES:
            return b""
        form = "Q" if self.source.big else "I"
        data = self.source.read(int(self.source.numbers(form, field)[0]), length)
        return data if len(data) == length else b""

    def values(self, tag: Tag) -> tuple[int | float, ...]:
        """Return the numbers of a tag; none if it is missing or incomplete."""
        data = self.data(tag)
        if not data:
            return ()
        kind, count, _ = self.entries[tag]
        if count > _MOST_NUMBERS:
            return ()
        numbers = self.source.numbers(f"{count * len(_TYPES[kind])}{_TYPES[kind][0]}", data)
        if kind in _RATIONALS:
            pairs = zip(numbers[::2], numbers[1::2], strict=True)
            return tuple(above / below if below else 0.0 for above, below in pairs)
        return numbers

    def integers(self, tag: Tag) -> tuple[int, ...]:
        """Return the numbers of a tag as integers."""
        return tuple(int(v) for v in self.values(tag) if v == v and abs(v) < 1 << 63)

    def integer(self, tag: Tag, default: int = 0) -> int:
        """Return the first number of a tag."""
        return (*self.integers(tag), default)[0]

    @cached_property
    def is_page(self) -> bool:
        """Whether this is a page, and neither a smaller copy of one nor a mask."""
        flags = self.integer(Tag.NEW_SUBFILE_TYPE)
        return not flags & 0b101 and self.integer(Tag.SUBFILE_TYPE, 1) != 2


def read_directories(source: Source) -> list[Directory]:
    """Return the directories of a file in their order.

    A broken directory after the first ends the list. Raises BrokenTiffError if no directory can be
    read.
    """
    found: list[Directory] = []
    seen: set[int] = set()
    offset = source.first
    while offset and offset not in seen and len(found) < _MOST_DIRECTORIES:
        seen.add(offset)
        try:
            entries, following = _read_entries(source, offset)
        except BrokenTiffError:
            if not found:
                raise
            break
        found.append(Directory(source, offset, entries))
        offset = following
    if not found:
        raise BrokenTiffError("no directory")
    return found


def _read_entries(source: Source, offset: int) -> tuple[dict[int, tuple[int, int, bytes]], int]:
    """Return the entries at a place, and the place of the next directory or 0."""
    count_form, entry_form, next_form = ("Q", "HHQ8s", "Q") if source.big else ("H", "HHI4s", "I")
    count_size = struct.calcsize("=" + count_form)
    entry_size, next_size = struct.calcsize("=" + entry_form), struct.calcsize("=" + next_form)
    head = source.read(offset, count_size)
    if len(head) < count_size:
        raise BrokenTiffError("the directory is behind the end", end=offset + count_size)
    count = int(source.numbers(count_form, head)[0])
    if not 0 < count <= _MOST_ENTRIES:
        raise BrokenTiffError("impossible number of entries")
    body = source.read(offset + count_size, count * entry_size + next_size)
    if len(body) < count * entry_size:
        raise BrokenTiffError("incomplete", end=offset + count_size + count * entry_size)
    known = set(Tag)
    entries: dict[int, tuple[int, int, bytes]] = {}
    for start in range(0, count * entry_size, entry_size):
        tag, kind, values, field = struct.unpack_from(source.order + entry_form, body, start)
        if tag in known and kind in _TYPES and values:
            entries.setdefault(tag, (kind, values, field))
    following = body[count * entry_size :]
    if len(following) < next_size:
        return entries, 0
    return entries, int(source.numbers(next_form, following)[0])
