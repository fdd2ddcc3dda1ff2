"""answers.jsonl: one line per answer, from which later runs resume.

Only the places of the lines are in memory, so that a hundred thousand answers take little of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cogvlm2_lite.batch.answered import Answered
from cogvlm2_lite.json_lines import JsonLines

JSONL = "answers.jsonl"

_START = b'{"picture": "'


class SavedAnswers(JsonLines[Answered]):
    """The saved answers of a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / JSONL, start=_START, read=Answered.read, command="batch")
        self.folder = folder
        self._places: dict[str, tuple[int, ...]] = {}

    def scan_answers(self) -> Iterator[Answered]:
        """Yield the answers of earlier runs, oldest first, and remember where they are.

        Nothing is written. Raises UsageError for a file that can't be read or that `batch` did not
        write.
        """
        self._places.clear()
        for place, answered in self.scan():
            self._remember(answered.picture, place)
            yield answered

    def _remember(self, picture: str, place: int) -> None:
        self._places[picture] = (*self._places.get(picture, ()), place)

    @property
    def pictures(self) -> frozenset[str]:
        """The pictures that have lines."""
        return frozenset(self._places)

    def places(self, picture: str) -> Sequence[int]:
        """Return the places of a picture's lines, the newest last."""
        return self._places.get(picture, ())

    def records(self, picture: str) -> list[Answered]:
        """Return all answers about a picture, oldest first."""
        return self.read_at(self.places(picture))

    def add_answer(self, answered: Answered) -> int:
        """Save one answer and return its place; it is on disk when this returns.

        Raises DoesNotFitError if it can't be written: the work can't be resumed without this file.
        """
        place = self.add(answered.as_dict())
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
