"""Reads a conversation that `export` wrote as JSON. No Qt here.

The file may come from anyone, so all of it is checked before anything is saved.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
from msgspec import Meta, Struct, structs

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.events import FinishReason
from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.inputs.limits import DEFAULT_LIMITS
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import MIB, format_bytes
from cogvlm2_lite.weights.header import printable
from gui.data.state import Conversation, Part, Stats, Status, Turn

MOST_BYTES = 2 * DEFAULT_LIMITS.max_file_bytes + 64 * MIB
_HINT = "Only files that this program exported as JSON can be imported. Nothing was saved."

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""Numbers and counts that the database can hold."""
Coordinate = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Seconds = Annotated[float, Meta(ge=0, lt=1e11)]
"""Times up to the year 5138, which the system can still format."""


class _Stats(Struct, kw_only=True, forbid_unknown_fields=True):
    """Stats in an exported file."""

    prompt_tokens: Count
    image_tokens: Count
    completion_tokens: Count
    encode_s: Seconds
    prefill_s: Seconds
    decode_s: Seconds
    reason: FinishReason
    token_ids: tuple[Count, ...] = ()


class _Part(Struct, kw_only=True, forbid_unknown_fields=True):
    """A Part in an exported file."""

    x: Coordinate
    y: Coordinate
    width: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    height: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    page: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    rotation: Annotated[int, Meta(ge=0, le=3)] = 0


class _Turn(Struct, kw_only=True):
    """A Turn in an exported file. Files of earlier versions lack fields that have a default."""

    id: Count
    parent: Count | None
    question: str
    answer: str
    status: Status
    notes: list[str]
    error: str
    stats: _Stats | None
    created: Seconds
    parts: Annotated[list[_Part], Meta(max_length=1000)] = []
    page: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    file: str = ""
    adapter: str = ""
    ended: Count | None = None
    ended_length: Count = 0


class _Export(Struct, kw_only=True):
    """An exported file. picture: base64; page: missing in files of earlier versions."""

    title: str
    leaf: Count | None
    picture: str | None
    page: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    turns: Annotated[list[_Turn], Meta(max_length=10_000)]


@dataclass(frozen=True, kw_only=True)
class ImportedConversation:
    """A conversation with the numbers of the file, and its picture; b"" without one."""

    conversation: Conversation
    picture: bytes


def read_export(path: Path) -> ImportedConversation:
    """Read an exported file. Raises CogVLM2LiteError."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise CogVLM2LiteError(
                "{file} has {size}, more than an export can have.",
                hint=_HINT,
                file=path.name,
                size=format_bytes(size),
            )
        data = path.read_bytes()
    except OSError as error:
        raise CogVLM2LiteError(
            "{file} can't be read: {why}.",
            hint="Choose another file.",
            file=path.name,
            why=error.strerror or error,
        ) from error
    return parse_export(data, path.name)


def parse_export(data: bytes, name: str) -> ImportedConversation:
    """Parse and check the content of an exported file. name: the file's name in error messages."""
    try:
        # An answer may end in half of a surrogate pair, which json accepts and msgspec does not.
        content = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CogVLM2LiteError("{file} is not JSON.", hint=_HINT, file=name) from error
    if not isinstance(content, dict) or content.get("program") != "CogVLM2 Lite":
        raise CogVLM2LiteError(
            "{file} is not a conversation of this program.", hint=_HINT, file=name
        )
    try:
        return _import(msgspec.convert(content, _Export))
    except _WrongError as error:
        raise CogVLM2LiteError(
            "{file} is damaged: {why}.", hint=_HINT, file=name, why=error.why
        ) from error
    except msgspec.ValidationError as error:
        raise CogVLM2LiteError(
            "{file} is damaged: {why}.", hint=_HINT, file=name, why=printable(str(error))
        ) from error


class _WrongError(Exception):
    """The content is wrong. why: the end of the error message."""

    def __init__(self, why: Text) -> None:
        super().__init__(why)
        self.why = why


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _import(export: _Export) -> ImportedConversation:
    """Convert an export, and check what spans several values. Raises _WrongError."""
    turns = _turns(export.turns)
    if export.leaf is not None and export.leaf not in turns:
        raise _WrongError(Text("the turn that is shown is missing"))
    return ImportedConversation(
        conversation=Conversation(
            id=0,
            title=_replace_surrogates(export.title),
            page=export.page,
            leaf=export.leaf,
            turns=turns,
        ),
        picture=_picture(export.picture),
    )


def _turns(values: Sequence[_Turn]) -> dict[int, Turn]:
    """Return the turns by number. A parent comes before its children, so there is no cycle."""
    turns: dict[int, Turn] = {}
    for value in values:
        if value.id in turns:
            raise _WrongError(Text("two turns have the same number"))
        if value.parent is not None and value.parent not in turns:
            raise _WrongError(Text("a turn comes before the one that it follows"))
        turns[value.id] = _turn(value)
    return turns


def _turn(value: _Turn) -> Turn:
    wrong = value.ended is not None and value.ended > len(value.parts)
    if wrong or value.ended_length > len(value.answer):
        raise _WrongError(Text("an answer about several parts lacks some of them"))
    return Turn(
        id=value.id,
        parent=value.parent,
        question=_replace_surrogates(value.question),
        answer=_replace_surrogates(value.answer),
        # An answer that was running when the file was written will never end.
        status=value.status if value.status.is_over else Status.INTERRUPTED,
        notes=tuple(map(_replace_surrogates, value.notes)),
        error=_replace_surrogates(value.error),
        stats=None if value.stats is None else _stats(value.stats),
        created=value.created,
        parts=tuple(Part(**structs.asdict(part)) for part in value.parts),
        page=value.page,
        ended=value.ended,
        ended_length=value.ended_length,
        file=escape_line(_replace_surrogates(value.file)),
        adapter=escape_line(_replace_surrogates(value.adapter)),
    )


def _stats(value: _Stats) -> Stats:
    return Stats(**structs.asdict(value) | {"reason": value.reason.value})


def _picture(text: str | None) -> bytes:
    if text is None:
        return b""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:  # binascii.Error, or letters outside of ASCII
        raise _WrongError(Text("its picture can't be read")) from error
    if len(data) > DEFAULT_LIMITS.max_file_bytes:
        raise _WrongError(Text("its picture is too large"))
    return data


def _replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which JSON can have and UTF-8 can't, by "?"."""
    return text.encode("utf-8", errors="replace").decode("utf-8")
