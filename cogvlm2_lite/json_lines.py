"""A file of JSON objects, one per line, which survives a kill at any moment.

Each line is on disk before the work continues. A last line that a kill cut off is removed when the
next one is written; lines that this program did not write are never touched.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Generic, TypeVar

from cogvlm2_lite.errors import DoesNotFitError, UsageError
from cogvlm2_lite.file_names import to_json

Record = TypeVar("Record")

_BOM = b"\xef\xbb\xbf"
_NOT_A_RECORD = (ValueError, TypeError, KeyError, RecursionError)


class JsonLines(Generic[Record]):
    """The lines of a file.

    start    how every line of the file begins
    read     returns the record of a line; raises ValueError, TypeError or KeyError for another one
    command  the command that writes the file, for messages
    failed   a line could not be written
    """

    failed = False

    def __init__(
        self, file: Path, *, start: bytes, read: Callable[[bytes], Record], command: str
    ) -> None:
        self.file = file
        self._start, self._read_record, self._command = start, read, command
        self._whole_bytes: int | None = None
        """Where the last line begins that was cut off; None: no line was."""
        self._needs_break = False
        self._state: tuple[int, int] | None = None

    @property
    def is_changed(self) -> bool:
        """Whether another program wrote the file after `scan`."""
        return self._state != self._file_state()

    def _file_state(self) -> tuple[int, int] | None:
        try:
            status = self.file.stat()
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns

    def check_writable(self) -> None:
        """Create the folder. Raises DoesNotFitError if no line could be written there.

        A model takes minutes to load; this is to be called before.
        """
        folder = self.file.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self.file.exists():
                self.file.open("ab").close()
            else:
                with TemporaryFile(dir=folder, prefix=".cogvlm2-"):
                    pass
        except OSError as error:
            raise unwritten(self.file, error) from error

    def scan(self) -> Iterator[tuple[int, Record]]:
        """Yield the place and record of each line, oldest first. Nothing is written.

        Raises UsageError for a file that can't be read or that has other lines.
        """
        self._whole_bytes, self._needs_break = None, False
        self._state = self._file_state()
        try:
            if self.file.exists() and not stat.S_ISREG(self.file.stat().st_mode):
                raise self._unreadable("it is not an ordinary file")
            place = 0
            with self.file.open("rb") as stream:
                for line in stream:
                    if line.strip():
                        record = self._read(line)
                        if record is None:
                            self._whole_bytes = place
                            return
                        yield place, record
                    place += len(line)
                    self._needs_break = not line.endswith(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unreadable(error.strerror or error) from error

    def _read(self, line: bytes) -> Record | None:
        """Return the record of a line; None for a last line of this program that was cut off."""
        try:
            return self._read_record(line)
        except _NOT_A_RECORD as error:
            start = line.removeprefix(_BOM).rstrip(b"\0")
            if not line.endswith(b"\n") and start[: len(self._start)] == self._start[: len(start)]:
                return None
            raise UsageError(
                "{file} has lines that {command} did not write.",
                hint="Move it away, or choose another folder with --output.",
                file=self.file,
                command=self._command,
            ) from error

    def _unreadable(self, why: object) -> UsageError:
        return UsageError(
            "{file} can't be read: {why}.",
            hint="Choose another folder with --output.",
            file=self.file,
            why=why,
        )

    def read_at(self, places: Sequence[int]) -> list[Record]:
        """Return the records of lines. Raises UsageError if the file was changed meanwhile."""
        if not places:
            return []
        try:
            with self.file.open("rb") as stream:
                return [self._read_line(stream.seek(place), stream.readline()) for place in places]
        except OSError as error:
            raise self._unreadable(error.strerror or error) from error

    def _read_line(self, _place: int, line: bytes) -> Record:
        try:
            return self._read_record(line.removeprefix(_BOM))
        except _NOT_A_RECORD as error:
            raise UsageError(
                "{file} was changed by another program during this run.",
                hint="Run the same command again; saved answers are kept.",
                file=self.file,
            ) from error

    def add(self, values: dict[str, Any]) -> int:
        """Write one line and return its place; it is on disk when this returns.

        Raises DoesNotFitError if it can't be written: the work can't be resumed without this file.
        """
        line = to_json(values).encode() + b"\n"
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("ab") as stream:
                if self._whole_bytes is not None:
                    stream.truncate(self._whole_bytes)
                    self._whole_bytes = None
                place = stream.seek(0, os.SEEK_END)
                if self._needs_break:
                    place += stream.write(b"\n")
                    self._needs_break = False
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            self.failed = True
            raise unwritten(self.file, error) from error
        return place


def unwritten(file: Path, error: OSError) -> DoesNotFitError:
    """Return the error for a file of answers that can't be written."""
    return DoesNotFitError(
        "{file} can't be written: {why}.",
        hint="Free some space or make its folder writable, then run the same command to resume.",
        file=file,
        why=error.strerror or error,
    )
