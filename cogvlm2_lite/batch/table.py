"""answers.csv: a table of the answers, safe to open in a spreadsheet.

A row is added after each answer; at the end the table is written once more, in the order of the
pictures. A table is this program's if every row of it can be made from answers.jsonl: then nothing
is lost when it is replaced. Any other file of that name is kept, and the table gets another name.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cogvlm2_lite.batch.answered import Answered
from cogvlm2_lite.errors import DoesNotFitError
from cogvlm2_lite.file_names import escape_line, valid_text
from cogvlm2_lite.files import write_whole

CSV = "answers.csv"
HEADER = ("picture", "answer", "error")

_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
_BOM = "\ufeff"
_MOST_CELL = 1 << 24
"""Characters of a cell; more than any answer has."""


def safe_cell(text: str) -> str:
    """Return a cell that a spreadsheet shows as text and never runs as a formula.

    Cells that begin with = + - @ (also in full width), a tab or a line break get an apostrophe in
    front, as a person would type it.
    """
    valid = valid_text(text)
    return f"'{valid}" if valid.startswith(_FORMULA) else valid


def rows_as_csv(rows: Iterable[Sequence[str]]) -> str:
    """Return rows as CSV, with cells as `safe_cell` makes them."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([safe_cell(cell) for cell in r] for r in rows)
    return out.getvalue()


class Table:
    """The table of a run.

    file      where it is written: answers.csv, or answers-2.csv if that one is a person's
    is_moved  another program changed the file during the run, so the table got another name
    """

    is_moved = False

    def __init__(self, file: Path) -> None:
        self.file = file
        self._state: tuple[int, int] | None = None
        self._begun = False

    @property
    def is_another(self) -> bool:
        """Whether answers.csv is a person's."""
        return self.file.name != CSV

    @property
    def is_begun(self) -> bool:
        """Whether this run wrote the table."""
        return self._begun

    def begin(self, answers: Iterable[Answered]) -> None:
        """Write the table with the answers of earlier runs."""
        self._begun = True
        self._write(answers)

    def add(self, answered: Answered) -> None:
        """Add a row. If the file can't be written, nothing is raised: `finish` tries again."""
        if not self._is_untouched():
            return
        row = rows_as_csv([_row(answered)]).encode()
        try:
            with self.file.open("ab", buffering=0) as stream:
                before = stream.seek(0, os.SEEK_END)
                if stream.write(row) != len(row):
                    stream.truncate(before)
            self._state = _state(self.file)
        except OSError:
            return

    def finish(self, answers: Iterable[Answered]) -> None:
        """Write the whole table in order. Raises DoesNotFitError if it can't be written.

        If another program changed the file during the run, it is kept and the table gets another
        name.
        """
        if self._begun and not self._is_untouched() and self.file.exists():
            free = (f for f in _candidates(self.file.parent) if not os.path.lexists(f))
            self.file, self.is_moved = next(free), True
        self._write(answers)

    def _is_untouched(self) -> bool:
        try:
            return self._state == _state(self.file)
        except OSError:
            return False

    def _write(self, answers: Iterable[Answered]) -> None:
        def fill(file: Path) -> None:
            # With a byte order mark, spreadsheets read the file as UTF-8.
            with file.open("w", encoding="utf-8", newline="") as stream:
                stream.write(_BOM + rows_as_csv([HEADER]))
                for answered in answers:
                    stream.write(rows_as_csv([_row(answered)]))

        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.file, fill)
            self._state = _state(self.file)
        except OSError as error:
            raise DoesNotFitError(
                "{file} can't be written: {why}.",
                hint="Free some space, or close the program that has the table open. Then run the "
                "same command to resume.",
                file=self.file,
                why=error.strerror or error,
            ) from error


def choose_table(folder: Path, answers: Iterable[Answered]) -> Table:
    """Return the table to write: the first file that does not exist or is this program's.

    answers  all lines of answers.jsonl
    """
    if not (folder / CSV).exists():
        return Table(folder / CSV)
    made = {key for answered in answers for key in _keys(answered)}
    return Table(
        next(f for f in _candidates(folder) if not os.path.lexists(f) or _is_made_from(f, made))
    )


def _candidates(folder: Path) -> Iterator[Path]:
    yield folder / CSV
    number = 2
    while True:
        yield folder / f"answers-{number}.csv"
        number += 1


def _is_made_from(file: Path, made: set[bytes]) -> bool:
    """Return whether a file is a table of which every row is among `made`."""
    if file.is_symlink() or not file.is_file():
        return False
    limit = csv.field_size_limit(_MOST_CELL)
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream, strict=True)
            if tuple(next(rows, ())) != HEADER:
                return False
            return all(_key(row) in made for row in rows)
    except (OSError, ValueError, csv.Error):
        return False
    finally:
        csv.field_size_limit(limit)


def _row(answered: Answered) -> tuple[str, str, str]:
    return escape_line(answered.picture), answered.answer, answered.error


def _keys(answered: Answered) -> Iterator[bytes]:
    row = _row(answered)
    yield _key([safe_cell(cell) for cell in row])
    yield _key(row)  # as version 0.2 wrote it


def _key(row: Sequence[str]) -> bytes:
    return hashlib.blake2b("\0".join(row).encode(errors="replace"), digest_size=12).digest()


def _state(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns
