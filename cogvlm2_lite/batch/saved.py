"""answers.jsonl: one line per answer, from which later runs resume.

Only the places of the lines are in memory, so that a hundred thousand answers take little of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile

from cogvlm2_lite.batch.answered import Answered
from cogvlm2_lite.errors import DoesNotFitError, UsageError
from cogvlm2_lite.file_names import to_json

JSONL = "answers.jsonl"

_START = b'{"picture": "'
_BOM = b"\xef\xbb\xbf"


class SavedAnswers:
    """The saved answers of a folder.

    failed  an answer could not be written
    """

    failed = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / JSONL
        self._places: dict[str, tuple[int, ...]] = {}
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
            status = self._file.stat()
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns

    def check_writable(self) -> None:
        """Create the folder. Raises DoesNotFitError if no answer could be saved there.

        A model takes minutes to load; this is to be called before.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self._file.exists():
                self._file.open("ab").close()
            else:
                with TemporaryFile(dir=self.folder, prefix=".cogvlm2-"):
                    pass
        except OSError as error:
            raise _unwritten(self._file, error) from error

    def scan(self) -> Iterator[Answered]:
        """Yield the answers of earlier runs, oldest first, and remember where they are.

        Nothing is written. Raises UsageError for a file that can't be read or that `batch` did not
        write.
        """
        self._places.clear()
        self._whole_bytes, self._needs_break = None, False
        self._state = self._file_state()
        try:
            if self._file.exists() and not stat.S_ISREG(self._file.stat().st_mode):
                raise self._unreadable("it is not an ordinary file")
            place = 0
            with self._file.open("rb") as stream:
                for line in stream:
                    if line.strip():
                        answered = self._read(line)
                        if answered is None:
                            self._whole_bytes = place
                            return
                        self._remember(answered.picture, place)
                        yield answered
                    place += len(line)
                    self._needs_break = not line.endswith(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unreadable(error.strerror or error) from error

    def _read(self, line: bytes) -> Answered | None:
        """Return the answer of a line; None for a last line of this program that was cut off."""
        try:
            return Answered.read(line)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            start = line.removeprefix(_BOM).rstrip(b"\0")
            if not line.endswith(b"\n") and start[: len(_START)] == _START[: len(start)]:
                return None
            raise UsageError(
                "{file} has lines that batch did not write.",
                hint="Move it away, or choose another folder with --output.",
                file=self._file,
            ) from error

    def _unreadable(self, why: object) -> UsageError:
        return UsageError(
            "{file} can't be read: {why}.",
            hint="Choose another folder with --output.",
            file=self._file,
            why=why,
        )

    def _remember(self, picture: str, place: int) -> None:
        self._places[picture] = (*self._places.get(picture, ()), place)

    @property
    def pictures(self) -> frozenset[str]:
        """The pictures that have lines."""
        return frozenset(self._places)

    def places(self, picture: str) -> Sequence[int]:
        """Return the places of a picture's lines, the newest last."""
        return self._places.get(picture, ())

    def read_at(self, places: Sequence[int]) -> list[Answered]:
        """Return the answers of lines. Raises UsageError if the file was changed meanwhile."""
        if not places:
            return []
        try:
            with self._file.open("rb") as stream:
                return [self._read_line(stream.seek(place), stream.readline()) for place in places]
        except OSError as error:
            raise self._unreadable(error.strerror or error) from error

    def _read_line(self, _place: int, line: bytes) -> Answered:
        try:
            return Answered.read(line.removeprefix(_BOM))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UsageError(
                "{file} was changed by another program during this run.",
                hint="Run the same command again; saved answers are kept.",
                file=self._file,
            ) from error

    def records(self, picture: str) -> list[Answered]:
        """Return all answers about a picture, oldest first."""
        return self.read_at(self.places(picture))

    def add(self, answered: Answered) -> int:
        """Save one answer and return its place; it is on disk when this returns.

        Raises DoesNotFitError if it can't be written: the work can't be resumed without this file.
        """
        line = to_json(answered.as_dict()).encode() + b"\n"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab") as stream:
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
            raise _unwritten(self._file, error) from error
        self._remember(answered.picture, place)
        return place


class KnownAnswers(Mapping[str, Answered]):
    """The answers that stand, by picture, read from the file when they are looked at."""

    def __init__(self, saved: SavedAnswers, places: Mapping[str, int]) -> None:
        self._saved, self._places = saved, places

    def __getitem__(self, picture: str) -> Answered:
        (answered,) = self._saved.read_at([self._places[picture]])
        return answered

    def __contains__(self, picture: object) -> bool:
        return picture in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def places(self) -> Mapping[str, int]:
        """The place of each answer in the file."""
        return self._places


def _unwritten(file: Path, error: OSError) -> DoesNotFitError:
    """Return the error for a file of answers that can't be written."""
    return DoesNotFitError(
        "{file} can't be written: {why}.",
        hint="Free some space or make its folder writable, then run the same command to resume.",
        file=file,
        why=error.strerror or error,
    )
