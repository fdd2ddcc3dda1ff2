"""One answer of a benchmark, its line in answers.jsonl, and the answers of a run folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple

from cogvlm2_lite.json_lines import JsonLines

ANSWERS = "answers.jsonl"


class Key(NamedTuple):
    """The identity of an asked question. A saved answer is used only if all of it is equal.

    query    sha256 of the template and text that were sent
    picture  sha256 of the bytes of the picture's file
    """

    id: str
    query: str
    picture: str


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The answer to one item.

    id, group   of the item
    picture     sha256 of the picture's file; "" without a picture, or if it can't be read
    query       the text as sent, without the template
    template    the prompt template
    answer      the text without blanks around it; empty answers are kept
    reason      why the answer ended (FinishReason); "" if there is an error
    tokens      that the model produced, the end token included
    seconds     of work on this question, as the engine reports it
    picture_s   those of them that a new picture took; 0.0: the picture was already encoded
    error       one sentence and a hint; empty without an error
    losses      of the expected answer, for rows: the sum over its tokens, and their number, by the
                form of the answer
    """

    id: str
    group: str
    picture: str
    query: str
    answer: str
    reason: str
    tokens: int
    seconds: float
    error: str = ""
    template: str = "chat"
    picture_s: float = 0.0
    losses: Mapping[str, tuple[float, int]] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """What the answer belongs to."""
        return Key(self.id, query_hash(self.template, self.query), self.picture)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON; benchmarks have no losses."""
        values = asdict(self)
        if not self.losses:
            del values["losses"]
        return values

    @classmethod
    def read(cls, line: bytes) -> Answered:
        """Return the answer of a line of answers.jsonl.

        Raises ValueError, TypeError or KeyError for a line that `evaluate` did not write.
        """
        values = json.loads(line)
        if not isinstance(values, dict) or not values.keys() >= _ALWAYS:
            raise TypeError("not an answer")
        for name, value in values.items():
            if not isinstance(value, _KINDS.get(name, str)) or isinstance(value, bool):
                raise TypeError(f"{name} is {type(value).__name__}")
        losses = values.pop("losses", {})
        read = {str(name): (float(total), int(count)) for name, (total, count) in losses.items()}
        return cls(**values, losses=read)


_KINDS: Mapping[str, type | UnionType] = {
    "tokens": int,
    "seconds": int | float,
    "picture_s": int | float,
    "losses": dict,
}
_ALWAYS = frozenset(one.name for one in fields(Answered)) - {
    "error", "template", "picture_s", "losses",
}  # fmt: skip


def query_hash(template: str, query: str) -> str:
    """Return the sha256 of what is sent. Lone surrogates are allowed in a query."""
    return hashlib.sha256(f"{template}\n{query}".encode("utf-8", "surrogatepass")).hexdigest()


class SavedAnswers(JsonLines[Answered]):
    """answers.jsonl of a run folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder / ANSWERS, start=b'{"id": "', read=Answered.read, command="evaluate"
        )

    def newest(self) -> dict[str, Answered]:
        """Return the newest answer to each item, by id. An answer replaces a later error.

        Raises UsageError for a file that can't be read or that `evaluate` did not write.
        """
        found: dict[str, Answered] = {}
        for answered in self._all():
            old = found.get(answered.id)
            if old is None or not answered.error or old.error or old.key != answered.key:
                found[answered.id] = answered
        return found

    def _all(self) -> Iterator[Answered]:
        for _, answered in self.scan():
            yield answered
