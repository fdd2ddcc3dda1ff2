"""The held-out rows of a run, kept beside its state: `OUT/training/held_out.jsonl`. No torch here.

`merge` and `evaluate` compare models on them. The file has the pictures' places on this disk, so it
is no part of the adapter that is shared.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from pathlib import Path

import msgspec

from cogvlm2_lite.rows.row import Row, Turn
from cogvlm2_lite.weights.writer import write_file_durably

NAME = "held_out.jsonl"


class _Turn(msgspec.Struct, frozen=True):
    question: str
    answer: str
    trained: bool = True


class _Line(msgspec.Struct, frozen=True):
    source: str
    line: int
    turns: list[_Turn]
    picture: str | None = None
    """Its file."""
    data: str | None = None
    """Its bytes in Base64, if it has no file."""
    upright: bool = True
    """Whether the orientation in a photo's EXIF tag counts."""


def write_held_out(file: Path, rows: Iterable[Row], *, upright: bool) -> None:
    """Write rows, each of them once. Raises OSError.

    upright  whether the orientation in a photo's EXIF tag counts
    """
    lines = [
        msgspec.json.encode(
            _Line(
                source=row.source,
                line=row.line,
                turns=[_Turn(turn.question, turn.answer, turn.trained) for turn in row.turns],
                picture=str(row.picture.absolute()) if isinstance(row.picture, Path) else None,
                data=base64.b64encode(row.picture).decode()
                if isinstance(row.picture, bytes)
                else None,
                upright=upright,
            )
        )
        for row in {id(row): row for row in rows}.values()
    ]
    write_file_durably(file, b"".join(line + b"\n" for line in lines))


def read_held_out(file: Path) -> tuple[list[Row], bool]:
    """Return the rows of a file, and `upright`; no rows without a file, or if it is damaged.

    Pictures on other machines are left out: the file may come from somebody else.
    """
    try:
        lines = file.read_bytes().splitlines()
        found = [msgspec.json.decode(line, type=_Line) for line in lines]
        rows = [_row(line) for line in found if not (line.picture or "").startswith(("//", "\\\\"))]
    except (OSError, ValueError, binascii.Error):  # msgspec's errors are ValueErrors
        return [], True
    return rows, all(line.upright for line in found)


def _row(line: _Line) -> Row:
    picture: Path | bytes | None = None if line.picture is None else Path(line.picture)
    if line.data is not None:
        picture = base64.b64decode(line.data, validate=True)
    turns = tuple(Turn(turn.question, turn.answer, turn.trained) for turn in line.turns)
    return Row(source=line.source, line=line.line, turns=turns, picture=picture)
