"""A row of training data, and the reasons to skip one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from cogvlm2_lite.text import Text


class Reason(Enum):
    """Why a row is skipped."""

    NO_ANSWER = "no answer"
    EMPTY_ANSWER = "empty answer"
    EMPTY_QUESTION = "empty question"
    ROLES = "roles do not alternate"
    ROLE = "unknown role"
    SEVERAL_PICTURES = "more than one picture"
    MISSING = "picture missing"
    OUTSIDE = "picture outside of the data's folder"
    REMOTE = "picture on the network"
    UNREADABLE = "picture not decodable"
    LARGE = "picture larger than 50 MB"
    PIXELS = "picture larger than 89 megapixels"
    SPECIAL_TOKEN = "special token in the text"
    ENCODING = "invalid UTF-8"
    JSON = "invalid JSON"
    CELLS = "more cells than columns"
    UNSUPPORTED = "unsupported key"
    TOO_LONG = "question too long"
    FAILED = "row with an error"
    REPLACED = "answered again in a later row"
    TWICE = "the same row again"

    @property
    def is_loss(self) -> bool:
        """Return whether the row had something to learn: what is there again, had not."""
        return self not in (Reason.REPLACED, Reason.TWICE)


@dataclass(frozen=True)
class Turn:
    """One question and its answer; `trained` is False for a past that is only shown."""

    question: str
    answer: str
    trained: bool = True


@dataclass(frozen=True, kw_only=True)
class Row:
    """A picture, or none, and a conversation about it.

    source, line  where it is, for messages; in a JSON list, line is the number of the row
    picture       a file, or the bytes of a data URL
    """

    source: str
    line: int
    turns: tuple[Turn, ...]
    picture: Path | bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A row that is not used."""

    source: str
    line: int
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What a data set has.

    form     its form, in words
    remarks  what a person would not expect of how it was read
    """

    form: str
    rows: tuple[Row, ...]
    skipped: tuple[Skipped, ...]
    remarks: tuple[Text, ...] = ()

    def commonest(self, most: int = 5) -> list[tuple[Reason, int]]:
        """Return the most frequent reasons for skipped rows."""
        return Counter(each.reason for each in self.skipped).most_common(most)


class SkipRowError(Exception):
    """Raised for a row that can't be used; never leaves this package."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason.value)
        self.reason, self.detail = reason, detail
