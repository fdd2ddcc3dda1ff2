"""Reads the TSV files of VLMEvalKit.

A file may have gigabytes of pictures in base64. It is read once, row by row; of a picture, only the
place in the file and a hash are kept, and it is decoded when it is asked about.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import BinaryIO

from cogvlm2_lite.errors import DataError, ImageError
from cogvlm2_lite.evaluate.files import (
    GET_AGAIN,
    FilePicture,
    check_pictures,
    check_start,
    is_file,
    leads_out,
    not_utf8,
    unreadable_file,
)
from cogvlm2_lite.evaluate.items import MISSING_WORDS, DataFile, Picture, no_picture
from cogvlm2_lite.evaluate.literals import list_of_texts
from cogvlm2_lite.evaluate.rows import (
    LETTERS,
    Row,
    is_original_id,
    mmmu_id_of_picture,
    number_text,
)
from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.inputs.limits import DEFAULT_LIMITS
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import format_bytes

_MOST_ROW_BYTES = 2 * DEFAULT_LIMITS.max_file_bytes
_BUFFER = 1 << 22
"""Rows are long: with the usual buffer of 8 KB, reading them takes three times as long."""
_MOST_REFERENCE = 64
"""Characters of an image cell that names the row with the picture; pictures are longer."""
_LONGEST_NAME = 1000
"""Bytes of a cell that may name a file; pictures are longer."""
_BOM = b"\xef\xbb\xbf"
_IN_QUOTES = re.compile(rb"""'([^'"]*)'|"([^'"]*)\"""")
_LABELS = ("category", "l2-category", "split", "capability", "question_types")


@dataclass(frozen=True, kw_only=True)
class TsvPicture:
    """A picture in base64 within a cell.

    start, end  bytes of the cell in the file, with its quotes
    number      from 0 within a cell that has a list; None: the cell is the picture
    """

    path: Path
    start: int
    end: int
    name: str
    key: str
    number: int | None = None

    def read(self) -> bytes:
        """Return the bytes of the picture file. Raises ImageError."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.start)
                cell = _unquote(stream.read(self.end - self.start))
        except OSError as error:
            raise ImageError(
                "{file} can't be read: {why}.", file=self.name, why=error.strerror
            ) from error
        if self.number is not None:
            found = _base64_list(cell)
            cell = found[self.number] if self.number < len(found) else b"%"
        return decode_base64(cell, self.name)


def decode_base64(text: bytes, name: str) -> bytes:
    """Return the bytes of base64 text. Raises ImageError."""
    try:
        return base64.b64decode(text.translate(None, b" \t\r\n"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise no_picture(name, Text("it is not valid base64")) from error


@dataclass(frozen=True, kw_only=True)
class TsvFile:
    """A TSV file: the columns of its header, its rows, and remarks."""

    file: DataFile
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notices: tuple[Text, ...]


def read_tsv(path: Path) -> TsvFile:
    """Read a TSV file. Raises DataError, with one sentence, if it is not a whole one."""
    try:
        with path.open("rb", buffering=_BUFFER) as stream:
            check_start(path, stream)
            table = _Table(path, stream)
            cells = list(table.cells())
    except OSError as error:
        raise unreadable_file(path, error) from error
    if not cells:
        raise DataError(
            "{file} has a header but no rows.", hint=GET_AGAIN, file=escape_line(path.name)
        )
    rows, notices = _rows(path, table.columns, cells)
    size, md5 = table.size, table.digest.hexdigest()
    return TsvFile(
        file=DataFile(path=path, size=size, md5=md5),
        columns=table.columns,
        rows=tuple(rows),
        notices=notices,
    )


def is_tsv_of_questions(path: Path) -> bool:
    """Return whether a file has VLMEvalKit's columns; a table whose pictures are files has not."""
    try:
        with path.open("rb", buffering=_BUFFER) as stream:
            head, first = (stream.readline(_MOST_ROW_BYTES) for _ in range(2))
    except OSError as error:
        raise unreadable_file(path, error) from error
    columns = [_unquote(each.strip()) for each in head.removeprefix(_BOM).split(b"\t")]
    if not {b"index", b"question"} <= set(columns):
        return False
    cells = [_unquote(each.strip()) for each in first.split(b"\t")]
    image = dict(zip(columns, cells, strict=False)).get(b"image", b"")
    name = image.decode("utf-8", "replace")
    return not (image and len(image) < _LONGEST_NAME and is_file(path.parent / name))


@dataclass(frozen=True, kw_only=True)
class _Cells:
    """A row: its texts by column, and where its image cell is.

    image     the id of the row that has the picture, or a missing word
    place     bytes of the image cell in the file, if it has a picture
    key       hash of that cell
    pictures  how many, if the cell has a list; None: it is one picture
    """

    texts: dict[str, str]
    image: str = ""
    place: tuple[int, int] | None = None
    key: str = ""
    pictures: int | None = None

    @property
    def id(self) -> str:
        return number_text(self.texts["index"])


class _Table:
    """Splits a file into rows and cells, as csv and pandas do.

    columns  of the header
    digest   md5 of all bytes, when all cells were read
    """

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._path, self._stream = path, stream
        self._number = 0
        self.columns: tuple[str, ...] = ()
        self.digest = hashlib.md5(usedforsecurity=False)
        self.size = 0

    def cells(self) -> Iterator[_Cells]:
        """Yield the cells of each row after the header. Raises DataError."""
        self.columns = self._header()
        while True:
            start = self.size
            row = bytearray(self._line())
            if not row:
                return
            if not row.strip(b"\r\n"):
                continue
            self._number += 1
            spans = list(self._spans(row))
            if len(spans) != len(self.columns):
                raise self._wrong_width(len(spans))
            yield self._read(start, row, spans)

    def _line(self) -> bytes:
        line = self._stream.readline(_MOST_ROW_BYTES)
        self._check_length(len(line))
        self.digest.update(line)
        self.size += len(line)
        return line

    def _check_length(self, length: int) -> None:
        if length >= _MOST_ROW_BYTES:
            raise DataError(
                "{file} has a row of more than {most}; a quotation mark may be missing.",
                hint=GET_AGAIN,
                file=escape_line(self._path.name),
                most=format_bytes(_MOST_ROW_BYTES),
            )

    def _spans(self, row: bytearray) -> Iterator[tuple[int, int]]:
        """Yield first and last byte of each cell. Adds lines to a row while a cell is open."""
        first = 0
        while True:
            after = self._closing(row, first) if row[first : first + 1] == b'"' else first
            last = row.find(b"\t", after)
            if last < 0:
                yield first, after + len(row[after:].rstrip(b"\r\n"))
                return
            yield first, last
            first = last + 1

    def _closing(self, row: bytearray, first: int) -> int:
        """Return the place after the quote that closes a cell."""
        place = first + 1
        while True:
            place = row.find(b'"', place)
            if place < 0:
                place = len(row)
                line = self._line()
                if not line:
                    raise self._cut()
                row += line
                self._check_length(len(row))
            elif row[place + 1 : place + 2] == b'"':
                place += 2
            else:
                return place + 1

    def _header(self) -> tuple[str, ...]:
        row = bytearray(self._line())
        if row.startswith(_BOM):
            del row[: len(_BOM)]
        columns = tuple(self._text(_unquote(bytes(row[a:b]))) for a, b in self._spans(row))
        missing = {"index", "question"} - set(columns)
        if missing:
            raise DataError(
                "{file} has no column {name!r}.",
                hint="Use a TSV file as VLMEvalKit has them, with tabs between the columns.",
                file=escape_line(self._path.name),
                name=min(missing),
            )
        if "image" not in columns and "image_path" not in columns:
            raise DataError(
                "{file} has no pictures: neither a column 'image' nor 'image_path'.",
                hint="Use a TSV file as VLMEvalKit has them.",
                file=escape_line(self._path.name),
            )
        return columns

    def _read(self, start: int, row: bytearray, spans: Sequence[tuple[int, int]]) -> _Cells:
        texts: dict[str, str] = {}
        image: bytes = b""
        place = (0, 0)
        for column, (first, last) in zip(self.columns, spans, strict=True):
            if column == "image":
                image, place = _unquote(bytes(row[first:last])), (start + first, start + last)
                if not image.isascii():
                    self._text(image)
            else:
                texts.setdefault(column, self._text(_unquote(bytes(row[first:last]))))
        if not row.endswith(b"\n") and _is_cut_list(bytes(row[slice(*spans[-1])])):
            raise self._cut()
        if len(image) <= _MOST_REFERENCE:
            return _Cells(texts=texts, image=self._text(image).strip())
        pictures = len(_base64_list(image)) if image.lstrip().startswith(b"[") else 0
        key = hashlib.sha256(image).hexdigest()
        return _Cells(texts=texts, place=place, key=key, pictures=pictures or None)

    def _text(self, cell: bytes) -> str:
        try:
            return cell.decode("utf-8")
        except UnicodeDecodeError as error:
            where = Text("row {number}", number=self._number) if self._number else Text("header")
            raise not_utf8(self._path, where) from error

    def _wrong_width(self, width: int) -> DataError:
        if width < len(self.columns) and not self._stream.read(1):
            return self._cut()
        return DataError(
            "{file}, row {number} has {width} cells, but the header has {columns}.",
            hint=GET_AGAIN,
            file=escape_line(self._path.name),
            number=self._number,
            width=width,
            columns=len(self.columns),
        )

    def _cut(self) -> DataError:
        return DataError(
            "{file} ends in the middle of row {number}: the file is cut.",
            hint=GET_AGAIN,
            file=escape_line(self._path.name),
            number=self._number,
        )


def _unquote(cell: bytes) -> bytes:
    """Return a cell without its quotes; text after the closing quote is kept, as csv does."""
    if not cell.startswith(b'"'):
        return cell
    closing = 1
    while True:
        closing = cell.find(b'"', closing)
        if closing < 0:
            return cell[1:].replace(b'""', b'"')
        if cell[closing + 1 : closing + 2] != b'"':
            return cell[1:closing].replace(b'""', b'"') + cell[closing + 1 :]
        closing += 2


def _is_cut_list(cell: bytes) -> bool:
    return cell.startswith((b"[", b'"[')) and not cell.rstrip(b'"').endswith(b"]")


def _base64_list(cell: bytes) -> list[bytes]:
    """Return the texts in the text of a list."""
    return [first or second for first, second in _IN_QUOTES.findall(cell)]


def _rows(
    path: Path, columns: Sequence[str], cells: Sequence[_Cells]
) -> tuple[list[Row], tuple[Text, ...]]:
    """Return the rows with their pictures, and remarks."""
    if "image" not in columns:
        found = [(row, _files(path, row)) for row in cells]
        check_pictures([one for _, pictures in found for one in pictures])
        rows = [_row(path, row, [p for p in ps if not isinstance(p, str)]) for row, ps in found]
        return rows, _about_local(path)
    with_pictures = {row.id: row for row in reversed(cells) if row.place}
    kept = [row for row in cells if row.place or row.image not in MISSING_WORDS]
    rows = [_row(path, row, _in_cell(path, row, with_pictures)) for row in kept]
    dropped = len(cells) - len(kept)
    if not rows:
        raise DataError(
            "{file} has no pictures: all image cells are empty.", file=escape_line(path.name)
        )
    if not dropped:
        return rows, ()
    return rows, (
        Text(
            "Rows of {file} without a picture are left out, as in VLMEvalKit: {count}.",
            count=dropped,
            file=escape_line(path.name),
        ),
    )


def _about_local(path: Path) -> tuple[Text, ...]:
    if not path.stem.endswith("_local"):
        return ()
    return (
        Text(
            "The pictures of {file} were saved again as JPEG of quality 75, so they differ from "
            "those of the full file.",
            file=escape_line(path.name),
        ),
    )


def _where(path: Path, row: _Cells) -> str:
    return escape_line(f"{path.name}, index {row.id[:40]}")


def _in_cell(path: Path, row: _Cells, with_pictures: dict[str, _Cells]) -> list[Picture]:
    """Return the pictures of an image cell, or of the row that it names."""
    where = _where(path, row)
    holder = row if row.place else with_pictures.get(number_text(row.image))
    if holder is None or holder.place is None:
        raise DataError(
            "{where} names the row {id!r} for its picture, but no row with this index has one.",
            hint=GET_AGAIN,
            where=where,
            id=row.image,
        )
    start, end = holder.place
    numbers = [None] if holder.pictures is None else range(holder.pictures)
    return [
        TsvPicture(
            path=path,
            start=start,
            end=end,
            name=where,
            key=holder.key if number is None else f"{holder.key} {number}",
            number=number,
        )
        for number in numbers
    ]


def _files(path: Path, row: _Cells) -> list[Picture | str]:
    """Return the pictures that a row names; the name where there is no such file."""
    text = row.texts["image_path"]
    names = list_of_texts(text) or ([] if text in MISSING_WORDS else [text])
    if not names:
        raise DataError("{where} has no picture.", hint=GET_AGAIN, where=_where(path, row))
    return [_file(path, name, _where(path, row)) for name in names]


def _file(path: Path, name: str, where: str) -> Picture | str:
    """Return the picture of a name.

    VLMEvalKit writes absolute paths of the computer that made the file, so the folder of the
    pictures beside the file comes next.
    """
    base = PureWindowsPath(name).name  # takes both kinds of slashes
    beside = path.parent / "images" / path.stem.removesuffix("_local") / base
    places = [Path(name)] if Path(name).is_absolute() else []
    places += [] if leads_out(name) else [path.parent / name]
    places += [beside] if base and base != ".." else []
    found = next((place for place in places if is_file(place)), None)
    return name if found is None else FilePicture(path=found, name=f"{where}: {escape_line(base)}")


def _row(path: Path, row: _Cells, pictures: Sequence[Picture]) -> Row:
    texts = row.texts
    named = list_of_texts(texts.get("image_path", "")) or (texts.get("image_path", ""),)
    id = texts.get("id", "")
    ids = (texts.get("question_id"), texts.get("questionId"), id if is_original_id(id) else "")
    return Row(
        where=_where(path, row),
        id=row.id,
        question=texts["question"],
        hint=texts.get("hint", ""),
        options={letter: texts[letter] for letter in LETTERS if texts.get(letter)},
        answer=texts.get("answer"),
        labels={name: texts[name] for name in _LABELS if texts.get(name)},
        question_id=next((id for id in ids if id), mmmu_id_of_picture(named[0])),
        group=number_text(texts.get("g_index", "")),
        pictures=tuple(pictures),
    )
