"""Reads a conversation that `export` wrote as JSON. The file may come from anybody: all of it is
checked before anything is kept. No Qt here."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.events import FinishReason
from cogvlm2_lite.inputs.image import DEFAULT_LIMITS
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import MIB, format_bytes
from gui.data.state import Conversation, Stats, Status, Turn

MOST_BYTES = 2 * DEFAULT_LIMITS.max_file_bytes + 64 * MIB
_MOST_TURNS = 10_000
_HINT = "Only files that this program exported as JSON can be imported. Nothing was saved."


@dataclass(frozen=True, kw_only=True)
class TakenIn:
    """A conversation with the file's own numbers, and its picture; b"" without one."""

    conversation: Conversation
    picture: bytes


def read_export(path: Path) -> TakenIn:
    """Read a file; CogVLM2LiteError says what is wrong with it."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            _refuse(
                "{file} has {size}, more than an export can have.",
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


def parse_export(data: bytes, name: str) -> TakenIn:
    """Check the content of an exported file. name: what sentences call it."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CogVLM2LiteError("{file} is not JSON.", hint=_HINT, file=name) from error
    if not isinstance(content, dict) or content.get("program") != "CogVLM2 Lite":
        _refuse("{file} is not a conversation of this program.", file=name)
    try:
        turns = _turns(content["turns"])
        picture = _picture(content["picture"])
        leaf = None if content["leaf"] is None else _whole(content["leaf"])
        if leaf is not None and leaf not in turns:
            _wrong("the turn that is shown is missing")
        conversation = Conversation(id=0, title=_text(content["title"]), leaf=leaf, turns=turns)
    except KeyError as error:
        _refuse("{file} is damaged: {key} is missing.", file=name, key=error)
    except _WrongError as error:
        _refuse("{file} is damaged: {why}.", file=name, why=error.why)
    return TakenIn(conversation=conversation, picture=picture)


class _WrongError(Exception):
    """What is wrong, the rest of a sentence."""

    def __init__(self, why: Text) -> None:
        super().__init__(why)
        self.why = why


def _refuse(template: str, **values: object) -> NoReturn:
    raise CogVLM2LiteError(Text(template, **values), hint=_HINT)


def _wrong(why: str) -> NoReturn:
    raise _WrongError(Text(why))


def _turns(values: object) -> dict[int, Turn]:
    """Give the turns by number; a parent stands before its children, so there is no circle."""
    if not isinstance(values, list) or len(values) > _MOST_TURNS:
        _wrong("its turns are not a list, or too many")
    turns: dict[int, Turn] = {}
    for value in values:
        if not isinstance(value, dict):
            _wrong("a turn is not an object")
        turn = _turn(value)
        if turn.id in turns:
            _wrong("two turns have the same number")
        if turn.parent is not None and turn.parent not in turns:
            _wrong("a turn comes before the one that it follows")
        turns[turn.id] = turn
    return turns


def _turn(value: Mapping[str, Any]) -> Turn:
    try:
        status = Status(value["status"])
    except ValueError:
        _wrong("a turn has an unknown status")
    parent = value["parent"]
    notes = value["notes"]
    if not isinstance(notes, list):
        _wrong("notes are not a list")
    return Turn(
        id=_whole(value["id"]),
        parent=None if parent is None else _whole(parent),
        question=_text(value["question"]),
        answer=_text(value["answer"]),
        # An answer that was coming when the file was written comes no more.
        status=status if status.is_over else Status.INTERRUPTED,
        notes=tuple(_text(note) for note in notes),
        error=_text(value["error"]),
        stats=None if value["stats"] is None else _stats(value["stats"]),
        created=_number(value["created"]),
    )


def _stats(value: object) -> Stats:
    if not isinstance(value, dict) or not set(value) <= {item.name for item in fields(Stats)}:
        _wrong("the statistics of an answer are not valid")
    ids = value.get("token_ids", [])
    if not isinstance(ids, list):
        _wrong("tokens are not a list")
    if value["reason"] not in [reason.value for reason in FinishReason]:
        _wrong("an answer ended for an unknown reason")
    return Stats(
        prompt_tokens=_whole(value["prompt_tokens"]),
        image_tokens=_whole(value["image_tokens"]),
        completion_tokens=_whole(value["completion_tokens"]),
        encode_s=_number(value["encode_s"]),
        prefill_s=_number(value["prefill_s"]),
        decode_s=_number(value["decode_s"]),
        reason=value["reason"],
        token_ids=tuple(_whole(i) for i in ids),
    )


def _picture(value: object) -> bytes:
    if value is None:
        return b""
    try:
        data = base64.b64decode(_text(value), validate=True)
    except binascii.Error:
        _wrong("its picture can't be read")
    if len(data) > DEFAULT_LIMITS.max_file_bytes:
        _wrong("its picture is too large")
    return data


def _text(value: object) -> str:
    if not isinstance(value, str):
        _wrong("a string is expected, but a number was found")
    # Halves of letters, which JSON can write and no file can hold, become "?".
    return value.encode("utf-8", errors="replace").decode("utf-8")


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        _wrong("a number is not valid")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _wrong("a number is not valid")
    # Times up to the year 5138: later ones no calendar of the system can write.
    if not math.isfinite(value) or not 0 <= value < 1e11:
        _wrong("a number is out of range")
    return float(value)
