"""Files that the user saves: names, and writing that replaces nothing unasked. No Qt here.

write_atomic (settings.py) makes private files; these are readable by others as the umask says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from cogvlm2_lite.batch.table import rows_as_csv
from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.file_names import cut_name, valid_text
from cogvlm2_lite.files import write_new, write_whole

_MOST_NAME_BYTES = 120
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*\u2028\u2029\u202a-\u202e\u2066-\u2069]+')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)


class How(Enum):
    """How a file is written."""

    NEW = "new"  # there must be no file
    REPLACE = "replace"  # the user agreed to replace the file
    ADD = "add"  # at the end of the file


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of file that can be chosen.

    label   as the dialog shows it, without the suffix
    adds    something can be added at the end of such a file
    """

    suffix: str
    label: str
    others: tuple[str, ...] = ()
    adds: bool = False

    @property
    def filter(self) -> str:
        """The text of the kind in a file dialog."""
        return f"{self.label} (*{self.suffix})"


class SaveError(CogVLM2LiteError):
    """A file can't be saved. What is on disk is not changed."""


def name_from(title: str, without: str = "") -> str:
    """Return a file name without a suffix that is valid everywhere, made from a title.

    without  the name if nothing of the title can be used
    """
    name = _NOT_IN_NAMES.sub(" ", valid_text(title))
    name = cut_name(" ".join(name.split()), _MOST_NAME_BYTES).strip(" .")
    if _RESERVED.fullmatch(name):
        name += "-"
    return name or without


def with_suffix(file: Path, chosen: str, kinds: Sequence[Kind]) -> Path:
    """Return the file with the suffix of its kind.

    chosen  the filter that is chosen in the dialog; "": unknown

    A kind that the user chose decides. As long as it is still the first one, which the dialog
    began with, a suffix that the user typed decides.
    """
    wanted = next((kind for kind in kinds if kind.filter == chosen), None)
    typed = next((k for k in kinds if file.suffix.lower() in (k.suffix, *k.others)), None)
    if typed is not None and wanted in (None, kinds[0], typed):
        return file
    kind = wanted or kinds[0]
    base = file.stem if typed is not None else file.name
    return file.with_name(cut_name(base, 255 - len(kind.suffix)) + kind.suffix)


def save_table(rows: Sequence[Sequence[str]], file: Path, how: How = How.NEW) -> None:
    """Write rows, of which the first is the head, as CSV. Raises SaveError.

    Rows that are added to a file come without their head. Cells that a spreadsheet would run are
    made safe.
    """
    if how is How.ADD and file.exists():
        text = rows_as_csv(rows[1:])
    else:
        # A byte order mark makes spreadsheets read the file as UTF-8.
        text = "\ufeff" + rows_as_csv(rows)
    save(file, text.encode(), how)


def check_free(file: Path, how: How) -> None:
    """Raise SaveError if a new file is wanted and its name is taken."""
    if how is How.NEW and os.path.lexists(file):
        raise _taken(file)


def save(file: Path, data: bytes, how: How = How.NEW, *, between: bytes = b"") -> None:
    """Write a file, all of it or nothing.

    between  comes before the data, after a line break, if it is added to a file with content

    Raises SaveError.
    """
    try:
        _write(file, data, how, between)
    except FileExistsError as error:
        raise _taken(file) from error
    except OSError as error:
        raise SaveError(
            "{file} can't be written: {why}.",
            hint="Choose another place.",
            file=file,
            why=error.strerror or error,
        ) from error


def _taken(file: Path) -> SaveError:
    return SaveError(
        "{file} already exists and is not overwritten.", hint="Choose another name.", file=file
    )


def _write(file: Path, data: bytes, how: How, between: bytes) -> None:
    if how is How.NEW:
        write_new(file, data)
        return
    file = file.resolve()  # a link stays, and its file is replaced
    if how is How.ADD and file.exists():
        before = file.read_bytes()
        if before and not before.endswith(b"\n"):
            before += b"\n"
        data = before + (between if before else b"") + data
    write_whole(file, lambda temporary: temporary.write_bytes(data))
