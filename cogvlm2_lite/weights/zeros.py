"""Finds weights that were never written: all-zero tensors and long runs of zeros.

Download programs reserve the space of a file first, and a lost or unfinished part stays zero. Such
a file has the right names, shapes and sizes. No torch here.

Some tensors may rightly be zero: biases, single vectors (CLS, boi, eoi), and in the embedding and
lm_head the rows of tokens that training never met (Llama 3 reserves 256).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from cogvlm2_lite.architectures.architecture import Part, Role
from cogvlm2_lite.errors import CheckpointError
from cogvlm2_lite.text import Text, join
from cogvlm2_lite.units import MIB, format_bytes
from cogvlm2_lite.weights.catalog import Catalog, StoredTensor
from cogvlm2_lite.weights.header import Piece, Shard

PAGE = 4096
"""Bytes; holes in files and lost parts are multiples of it."""

_UNUSED_TOKENS = 512
_PROBE = 512
_CHUNK = 8 * MIB
_CHECKED = ("weight", "absmax", "scale")
_NF4_ZEROS = 0x77
"""Two NF4 codes of 0.0: what a matrix of zeros becomes."""

REPEAT_DOWNLOAD = Text(
    "The download of the file was not complete, or the disk lost a part. Download or copy it again."
)


# --- runs in a buffer -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The runs of one byte value in consecutive bytes.

    size     number of bytes
    head     length of the run at the beginning
    tail     length of the run at the end
    longest  length of the longest run; runs shorter than PAGE may count as 0
    place    its first byte
    """

    size: int = 0
    head: int = 0
    tail: int = 0
    longest: int = 0
    place: int = 0

    def followed_by(self, other: Runs) -> Runs:
        """Return the runs of these bytes and those of `other` behind them."""
        across = (self.tail + other.head, self.size - self.tail)
        inside = (self.longest, self.place), (other.longest, self.size + other.place)
        longest, place = max(across, *inside, key=lambda run: (run[0], -run[1]))
        return Runs(
            size=self.size + other.size,
            head=self.size + other.head if self.head == self.size else self.head,
            tail=other.size + self.tail if other.tail == other.size else other.tail,
            longest=longest,
            place=place,
        )


def find_runs(data: bytes | bytearray | memoryview, value: int = 0) -> Runs:
    """Return the runs of a byte value in a buffer.

    It looks at one byte in 512 first, so ordinary weights take almost no time.
    """
    array = np.frombuffer(data, dtype=np.uint8)
    probes = np.flatnonzero(array[::_PROBE] == value)
    longest, place = 0, 0
    breaks = np.flatnonzero(np.diff(probes) != 1) + 1
    for group in np.split(probes, breaks):
        if len(group) < PAGE // _PROBE - 1:
            continue
        begin = max(int(group[0]) * _PROBE - _PROBE, 0)
        length, at = _longest_run(array[begin : (int(group[-1]) + 1) * _PROBE], value)
        if length > longest:
            longest, place = length, begin + at
    head, tail = _head(array, value), _head(array[::-1], value)
    for length, at in ((head, 0), (tail, len(array) - tail)):
        if length > longest:
            longest, place = length, at
    return Runs(size=len(array), head=head, tail=tail, longest=longest, place=place)


def _longest_run(array: np.ndarray[tuple[int], np.dtype[np.uint8]], value: int) -> tuple[int, int]:
    """Return length and first index of the longest run of a value."""
    others = np.flatnonzero(array != value)
    edges = np.concatenate(([-1], others, [len(array)]))
    lengths = np.diff(edges) - 1
    at = int(np.argmax(lengths))
    return int(lengths[at]), int(edges[at]) + 1


def _head(array: np.ndarray[tuple[int], np.dtype[np.uint8]], value: int) -> int:
    """Return how many bytes at the beginning have a value."""
    step, done = 64, 0
    while done < len(array):
        others = np.flatnonzero(array[done : done + step] != value)
        if len(others):
            return done + int(others[0])
        done += step
        step *= 4
    return len(array)


# --- one piece of a tensor ------------------------------------------------------------------------


def checked_roles(stored: StoredTensor) -> tuple[str, ...]:
    """Return the pieces of a tensor that must not be zero; none for a tensor that may be."""
    spec = stored.spec
    if spec.role is Role.BIAS or (spec.role is Role.TABLE and spec.numel == spec.shape[-1]):
        return ()
    return tuple(role for role in _CHECKED if role in stored.pieces)


def longest_allowed(stored: StoredTensor, role: str) -> int:
    """Return the longest run of zeros that a piece may have, in bytes."""
    piece, spec = stored.pieces[role], stored.spec
    rows = spec.shape[0] if len(spec.shape) > 1 else 1
    allowed = 2
    if spec.part in (Part.EMBEDDING, Part.LM_HEAD):
        allowed = max(min(_UNUSED_TOKENS, rows // 8), 2)
    return min(max(PAGE, allowed * piece.nbytes // rows), piece.nbytes) - 1


class PieceCheck:
    """Checks the bytes of one piece, which are added in order."""

    def __init__(self, stored: StoredTensor, role: str) -> None:
        self._limit = longest_allowed(stored, role)
        four_bit = role == "weight" and stored.kind == "nf4"
        self._runs = {value: Runs() for value in ((0, _NF4_ZEROS) if four_bit else (0,))}

    def add(self, data: bytes | bytearray | memoryview) -> None:
        """Add the next bytes."""
        for value, runs in self._runs.items():
            self._runs[value] = runs.followed_by(find_runs(data, value))

    def add_runs(self, runs: Runs) -> None:
        """Add the next bytes, of which only the runs of zeros are known."""
        self._runs[0] = self._runs[0].followed_by(runs)

    def problem(self) -> Text | None:
        """Return what is wrong with the piece; None if nothing is."""
        for runs in self._runs.values():
            if runs.longest > self._limit:
                return describe_run(runs.longest, runs.place, runs.size)
        return None


def describe_run(length: int, place: int, size: int) -> Text:
    """Return the description of a run of zeros in a piece."""
    if length == size:
        return Text("it contains only zeros")
    return Text("{size} of zeros follow its byte {place}", size=format_bytes(length), place=place)


def zeros_error(tensor: str, file: str, problem: Text) -> CheckpointError:
    """Return the error for a tensor with zeros that it should not have."""
    return CheckpointError(
        "{tensor} in {file} was not downloaded completely: {problem}.",
        hint=REPEAT_DOWNLOAD,
        tensor=tensor,
        file=file,
        problem=problem,
    )


# --- a whole folder -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ZerosFound:
    """A tensor with zeros that it should not have."""

    tensor: str
    file: str
    problem: Text

    @property
    def error(self) -> CheckpointError:
        return zeros_error(self.tensor, self.file, self.problem)

    @property
    def warning(self) -> Text:
        """The sentences that are shown when the model is loaded in spite of it."""
        return join(self.error.message, Text("Answers may be wrong."), self.error.hint)


def look_for_zeros(catalog: Catalog, *, most_bytes: int) -> Iterator[ZerosFound]:
    """Yield tensors with zeros that they should not have; read about `most_bytes` at most.

    If all checked pieces are smaller together, they are read completely. Otherwise the file system
    is asked for holes, and pages spread over all pieces are read; a page of zeros leads to a look
    at its whole piece. Raises CheckpointError if a file can't be read.
    """
    pieces = [
        (name, stored, role)
        for name, stored in catalog.tensors.items()
        for role in checked_roles(stored)
    ]
    whole = sum(stored.pieces[role].nbytes for _, stored, role in pieces) <= most_bytes
    pages = max(most_bytes // PAGE, 1)
    step, each = max(len(pieces) // pages, 1), max(pages // max(len(pieces), 1), 1)
    for shard in catalog.shards:
        mine = [entry for entry in pieces if entry[1].pieces[entry[2]].file == shard.file]
        try:
            with shard.file.open("rb", buffering=0) as stream:
                holes = [] if whole else list(_holes(stream, shard))
                for number, (name, stored, role) in enumerate(mine):
                    sampled = each if number % step == 0 else 0
                    problem = _look(stream, stored, role, holes, whole=whole, pages=sampled)
                    if problem:
                        yield ZerosFound(tensor=name, file=shard.file.name, problem=problem)
        except OSError as error:
            raise CheckpointError(
                "{file} can't be read: {why}.", file=shard.file, why=error.strerror or error
            ) from error


def _look(
    stream: BinaryIO,
    stored: StoredTensor,
    role: str,
    holes: list[tuple[int, int]],
    *,
    whole: bool,
    pages: int,
) -> Text | None:
    piece = stored.pieces[role]
    for begin, end in holes:
        first, last = max(begin, piece.begin), min(end, piece.end)
        if last - first > longest_allowed(stored, role):
            return describe_run(last - first, first - piece.begin, piece.nbytes)
    if whole or any(_page_is_zero(stream, piece, i, pages) for i in range(pages)):
        check = PieceCheck(stored, role)
        for begin in range(piece.begin, piece.end, _CHUNK):
            check.add(_read(stream, begin, min(_CHUNK, piece.end - begin)))
        return check.problem()
    return None


def _page_is_zero(stream: BinaryIO, piece: Piece, number: int, pages: int) -> bool:
    count = min(PAGE, piece.nbytes)
    begin = (piece.nbytes - count) * (2 * number + 1) // (2 * pages)
    data = _read(stream, piece.begin + begin, count)
    return data.count(data[:1]) == len(data) and data[:1] in (b"\x00", bytes([_NF4_ZEROS]))


def _read(stream: BinaryIO, begin: int, count: int) -> bytes:
    stream.seek(begin)
    return stream.read(count)


def _holes(stream: BinaryIO, shard: Shard) -> Iterator[tuple[int, int]]:
    """Yield begin and end of the holes of a file, where the file system reports them."""
    if not hasattr(os, "SEEK_HOLE"):
        return
    number, position = stream.fileno(), 0
    while position < shard.size:
        try:
            begin = os.lseek(number, position, os.SEEK_HOLE)
        except OSError:
            return
        if begin >= shard.size:
            return
        try:
            position = os.lseek(number, begin, os.SEEK_DATA)
        except OSError:  # no data behind the hole
            position = shard.size
        yield begin, position
