"""Finds the draft text beside each picture of a batch, as OCR programs write it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.inputs.draft_text import open_draft_text
from cogvlm2_lite.text import Text


@dataclass(frozen=True, kw_only=True)
class DraftTexts:
    """The draft texts of a folder's pictures.

    suffix  of their names, which begin with the picture's: ".txt" for scan.txt, or scan.png.txt,
            beside scan.png; "": there are none
    """

    folder: Path
    suffix: str

    @classmethod
    def read(cls, folder: Path, suffix: str | None) -> DraftTexts:
        """Return those that an option names. Raises UsageError for what ends no file name."""
        if suffix is None:
            return cls(folder=folder, suffix="")
        if not suffix.strip() or set(suffix) & {"/", "\\", "\0"}:
            raise UsageError(
                "--draft-text-suffix must be the end of a file name, not {value!r}.",
                hint="For example .txt",
                value=suffix,
            )
        return cls(folder=folder, suffix=suffix if "." in suffix else f".{suffix}")

    def count(self, names: tuple[str, ...]) -> int:
        """Return how many of the pictures have a draft text."""
        return sum(self._find(name) is not None for name in names)

    def of(self, name: str) -> tuple[str, tuple[Text, ...]]:
        """Return the draft text of a picture, or "", and a notice if it can't be used."""
        path = self._find(name)
        if path is None:
            return "", ()
        try:
            return open_draft_text(path), ()
        except UsageError as error:
            return "", (error.text,)

    def _find(self, name: str) -> Path | None:
        for candidate in self._candidates(name):
            try:
                if stat.S_ISREG((self.folder / candidate).stat().st_mode):
                    return self.folder / candidate
            except OSError:  # it does not exist, or nobody may look at it
                continue
        return None

    def _candidates(self, name: str) -> Iterator[str]:
        if self.suffix:
            yield str(PurePosixPath(name).with_suffix("")) + self.suffix
            yield name + self.suffix
