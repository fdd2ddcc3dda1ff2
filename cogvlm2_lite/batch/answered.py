"""One answer of a batch, and its line in answers.jsonl."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import UnionType
from typing import Any

from cogvlm2_lite.events import FinishReason
from cogvlm2_lite.file_names import escape_name, unescape_name

EDITED = "edited"
"""The reason of an answer that a person wrote or changed."""


@dataclass(frozen=True, kw_only=True)
class WrittenText:
    """A text file with an answer, as this program wrote it.

    file    its path relative to the folder of the text files, with / between names
    sha256  of the whole file: with another hash, a person has changed it since
    start, end  the bytes that are the answer; the others were there before (--existing append)
    """

    file: str
    sha256: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The result for one picture.

    picture  its path relative to the folder, with / between names
    answer   empty if there was an error, except if the answer repeated itself
    error    one sentence and a hint, empty without an error; a Text in the run that made it
    reason   why the answer ended (FinishReason), or EDITED
    notices  what a person would not expect of how the picture was read
    sha256   of the picture's file
    stamp    size and times of that file: with the same ones it need not be read again
    model    weights.identity.identify_model; settings: Task.settings_key
    text     the text file that has the answer; None: none

    Lines of version 0.2 have no field below `seconds`.
    """

    picture: str
    question: str
    answer: str = ""
    error: str = ""
    reason: str = ""
    tokens: int = 0
    seconds: float = 0.0
    notices: tuple[str, ...] = ()
    sha256: str = ""
    stamp: str = ""
    model: str = ""
    settings: str = ""
    text: WrittenText | None = None

    @property
    def stands(self) -> bool:
        """Whether this is an answer to keep, also if its text file could not be written."""
        return bool(self.answer.strip()) and self.reason != FinishReason.REPETITION.value

    @property
    def is_recorded(self) -> bool:
        """Whether it is known which model was asked, with which settings."""
        return bool(self.model)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON. Names that are not UTF-8 are escaped (file_names.py)."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["picture"] = escape_name(self.picture)
        values["notices"] = list(self.notices)
        if self.text is not None:
            values["text"] = {**asdict(self.text), "file": escape_name(self.text.file)}
        return values

    @classmethod
    def read(cls, line: bytes) -> Answered:
        """Return the answer of a line of answers.jsonl.

        Raises ValueError, TypeError or KeyError for a line that `batch` did not write.
        """
        values = json.loads(line)
        if not isinstance(values, dict):
            raise TypeError("not an object")
        text = values.get("text")
        if text is not None:
            values["text"] = WrittenText(**{**text, "file": unescape_name(text["file"])})
        values["notices"] = tuple(values.get("notices", ()))
        _check_fields(values)
        values["picture"] = unescape_name(values["picture"])
        return cls(**values)


_KINDS: Mapping[str, type | UnionType] = {
    "tokens": int,
    "seconds": int | float,
    "notices": tuple,
    "text": WrittenText | None,
}


_ALWAYS = frozenset({"picture", "question", "answer", "error", "reason", "tokens", "seconds"})
"""The fields that every version wrote: a person's own list of answers lacks some of them."""


def _check_fields(values: Mapping[str, object]) -> None:
    if not values.keys() >= _ALWAYS:
        raise TypeError("fields are missing")
    for name, value in values.items():
        if not isinstance(value, _KINDS.get(name, str)):
            raise TypeError(f"{name} is {type(value).__name__}")
