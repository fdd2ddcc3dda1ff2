"""The header of one safetensors file, checked before any weight is read. No torch here.

A file is 8 bytes of header length (little endian), the header (a JSON object: tensor name to dtype,
shape and data_offsets), and the data area. Every byte of the data area belongs to exactly one
tensor. A file that breaks one of these rules is damaged, truncated or malicious; the error names
the file and the rule.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cogvlm2_lite.errors import CheckpointError
from cogvlm2_lite.folders.contents import HEAD_BYTES, wrong_content
from cogvlm2_lite.units import format_bytes

DTYPE_BYTES: Mapping[str, int] = MappingProxyType({"F32": 4, "F16": 2, "BF16": 2, "U8": 1, "I8": 1})
"""The types of a CogVLM2 checkpoint, 16-bit or quantized. All others are rejected."""

MAX_HEADER_BYTES = 16 * 1024**2
"""Limit, because parsed JSON takes much more memory. The quantized 19B model in one file needs 0.7
MiB."""

_MAX_AXES = 8
_METADATA = "__metadata__"
_DAMAGED = "The file is damaged or was not downloaded completely. Copy or download it again."


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One tensor of a file: its type, shape and bytes."""

    file: Path
    dtype: str
    """A key of DTYPE_BYTES."""
    shape: tuple[int, ...]
    begin: int
    """First byte, counted from the start of the file."""
    end: int
    """One past the last byte."""

    @property
    def nbytes(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One safetensors file: the content of its header, and its size and time when it was read."""

    file: Path
    size: int
    modified_ns: int
    header_sha256: str
    pieces: Mapping[str, Piece]
    """By tensor name, in file order."""


def read_shard(file: Path) -> Shard:
    """Return the checked header of a safetensors file.

    Raises CheckpointError if the file is missing or unreadable, or its header breaks a rule.
    """
    try:
        # Check before opening: a pipe or a device would block or never end.
        if not stat.S_ISREG(file.stat().st_mode):
            raise CheckpointError("{file} is not a regular file.", file=file)
        with file.open("rb") as stream:
            status = os.fstat(stream.fileno())
            _refuse_other_content(file, stream.read(HEAD_BYTES), status.st_size)
            stream.seek(0)
            raw = _header_bytes(file, stream.read(8), status.st_size, stream.read)
    except FileNotFoundError:
        raise CheckpointError("{file} does not exist.", hint=_DAMAGED, file=file) from None
    except OSError as error:
        raise CheckpointError(
            "{file} can't be read: {why}.", file=file, why=error.strerror or error
        ) from error
    entries = parse_json_object(raw, where=f"The header of {file}")
    return Shard(
        file=file,
        size=status.st_size,
        modified_ns=status.st_mtime_ns,
        header_sha256=hashlib.sha256(raw).hexdigest(),
        pieces=_pieces(file, entries, 8 + len(raw), status.st_size),
    )


def _refuse_other_content(file: Path, head: bytes, size: int) -> None:
    """Raise CheckpointError if the file is a web page, a pointer, an archive and so on."""
    if head[8:9] == b"{":  # as in every safetensors file
        return
    if found := wrong_content(file, head, size):
        raise found


def parse_json_object(raw: bytes, *, where: str) -> dict[str, Any]:
    """Return a parsed JSON object.

    where  what the bytes are, as the start of a sentence; used in the error

    Raises CheckpointError for invalid UTF-8, a repeated key, and anything that is not an object.
    """
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except UnicodeDecodeError:
        raise CheckpointError("{where} is not valid UTF-8.", hint=_DAMAGED, where=where) from None
    except RecursionError:
        raise CheckpointError("{where} is nested too deeply.", hint=_DAMAGED, where=where) from None
    except ValueError as error:
        raise CheckpointError(
            "{where} is not valid JSON: {why}.", hint=_DAMAGED, where=where, why=error
        ) from None
    if not isinstance(value, dict):
        raise CheckpointError("{where} is not a JSON object.", hint=_DAMAGED, where=where)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; reject a repeated key, because readers disagree on which one counts."""
    built = dict(pairs)
    if len(built) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {printable(twice)} is given twice")
    return built


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")


def _header_bytes(file: Path, first: bytes, size: int, read: Any) -> bytes:
    """Return the JSON part, after checking its length against the file's size and the limit."""
    if len(first) < 8:
        raise CheckpointError(
            "{file} has only {size} bytes, too few for a header.",
            hint=_DAMAGED,
            file=file,
            size=size,
        )
    length = int.from_bytes(first, "little")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            "The header of {file} claims to be {size} long; at most {most} is allowed.",
            hint="The file is damaged, or it is not a safetensors file.",
            file=file,
            size=format_bytes(length),
            most=format_bytes(MAX_HEADER_BYTES),
        )
    raw: bytes = read(length) if length <= size - 8 else b""
    if len(raw) != length:
        raise CheckpointError(
            "The header of {file} claims to be {count} bytes long, but only {size} follow.",
            hint=_DAMAGED,
            file=file,
            count=length,
            size=max(size - 8, 0),
        )
    return raw


def _pieces(file: Path, entries: Mapping[str, Any], data: int, size: int) -> Mapping[str, Piece]:
    """Return all pieces. Each is checked, and together they must cover the data area exactly."""
    _check_metadata(file, entries.get(_METADATA, {}))
    pieces = [
        (name, _piece(file, name, entry, data))
        for name, entry in entries.items()
        if name != _METADATA
    ]
    pieces.sort(key=lambda item: (item[1].begin, item[1].end))
    end = max((piece.end for _, piece in pieces), default=data)
    if end > size:
        raise CheckpointError(
            "{file} is incomplete: it has {size} of the {expected} bytes that its header lists "
            "({missing} are missing).",
            hint="Its download or copy ended early. Continue it, or download the file again.",
            file=file,
            size=size,
            expected=end,
            missing=format_bytes(end - size),
        )
    position = data
    for name, piece in pieces:
        if piece.begin != position:
            raise CheckpointError(
                "{file} has a gap of {count} bytes before {tensor}."
                if piece.begin > position
                else "{file} has an overlap of {count} bytes before {tensor}.",
                hint=_DAMAGED,
                file=file,
                count=abs(piece.begin - position),
                tensor=printable(name),
            )
        position = piece.end
    if position != size:
        raise CheckpointError(
            "The {count} tensors of {file} end at byte {end}, but the file has {size} bytes.",
            hint=_DAMAGED,
            file=file,
            count=len(pieces),
            end=position,
            size=size,
        )
    return MappingProxyType(dict(pieces))


def _check_metadata(file: Path, metadata: Any) -> None:
    texts = isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())
    if not texts:
        raise CheckpointError(
            "{key} in {file} must map names to strings.",
            hint=_DAMAGED,
            file=file,
            key=_METADATA,
        )


def _piece(file: Path, name: str, entry: Any, data: int) -> Piece:
    """Return the Piece of one header entry, checked except for the size of the file."""
    where = f"{file}: {printable(name)}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(
            "{where} must have exactly dtype, shape and data_offsets.", hint=_DAMAGED, where=where
        )
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise CheckpointError(
            "{where} has the unknown type {dtype!r}; the known ones are {names}.",
            hint="This is not a checkpoint that CogVLM2 Lite or transformers wrote.",
            where=where,
            dtype=str(dtype)[:40],
            names=", ".join(DTYPE_BYTES),
        )
    if not _naturals(shape) or len(shape) > _MAX_AXES:
        raise CheckpointError(
            "{where} has the invalid shape {shape}.",
            hint=_DAMAGED,
            where=where,
            shape=str(shape)[:80],
        )
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(
            "{where} has the invalid data_offsets {offsets}.",
            hint=_DAMAGED,
            where=where,
            offsets=str(offsets)[:80],
        )
    begin, end = data + offsets[0], data + offsets[1]
    if end - begin != prod(shape) * DTYPE_BYTES[dtype]:
        raise CheckpointError(
            "{where} has {size} bytes, but {dtype} of shape {shape} needs {expected}.",
            hint=_DAMAGED,
            where=where,
            size=end - begin,
            dtype=dtype,
            shape=tuple(shape),
            expected=prod(shape) * DTYPE_BYTES[dtype],
        )
    return Piece(file=file, dtype=dtype, shape=tuple(shape), begin=begin, end=end)


def _naturals(value: Any) -> bool:
    """Return whether a value is a list of non-negative 63-bit integers (bool does not count)."""
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def printable(name: str) -> str:
    """Return a name from a file in a form that is safe to print: short, no control characters."""
    cut = name if len(name) <= 120 else f"{name[:117]}..."
    return cut if cut.isprintable() else ascii(cut)
