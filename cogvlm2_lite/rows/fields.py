"""From the fields of one row, as programs write them, to a picture and the turns about it."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from cogvlm2_lite.inputs.formats import readable_suffixes
from cogvlm2_lite.rows.row import Reason, SkipRowError, Turn

PICTURE_KEYS = ("image", "images", "image_path", "picture", "img", "file_name")
ANSWER_KEYS = ("response", "answer", "output", "target", "completion", "text", "caption")
CONVERSATION_KEYS = ("messages", "conversations", "conversation")
_QUESTION_KEYS = ("query", "prompt", "input", "instruction", "question", "problem")
_REFUSED_KEYS = (
    "loss_scale", "weight", "rejected_response", "tools", "tool_calls", "videos", "audios",
)  # fmt: skip
_ROLES = {
    "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant",
    "system": "system",
}  # fmt: skip
_PLACE_KEYS = ("image", "path", "url", "image_url")
"""Where a part of a message, or an entry of `images`, has its picture."""

_MARK = re.compile(r"<image>\n|\n?<image>")
_REMOTE = re.compile(r"(?i)(?!file:)[a-z][a-z0-9+.-]+://")
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{300,}={0,2}")
"""Longer than any file name."""
_MOST_PICTURE_BYTES = 50_000_000


@dataclass
class _Seen:
    """The pictures of a row: their places, and how often its texts show one.

    places  as written; one that is named twice in different fields is one picture
    marks   `<image>` and parts without a place
    """

    places: list[str] = field(default_factory=list)
    marks: int = 0

    def picture(self) -> str | None:
        """Return the place of the only picture, or None without a picture."""
        if self.marks > 1 or len(set(self.places)) > 1:
            raise SkipRowError(Reason.SEVERAL_PICTURES)
        if self.marks and not self.places:
            raise SkipRowError(Reason.MISSING, "<image> without a picture")
        return self.places[0] if self.places else None


def read_fields(fields: Mapping[str, Any]) -> tuple[tuple[Turn, ...], str | None]:
    """Return the turns of a row, and the place of its picture.

    A caption without a question has one turn with an empty question. Raises SkipRowError.
    """
    _refuse(fields)
    if fields.get("error"):
        raise SkipRowError(Reason.FAILED, str(fields["error"]))
    seen = _Seen(places=_places(fields))
    conversation = next(
        (fields[key] for key in CONVERSATION_KEYS if isinstance(fields.get(key), list)), None
    )
    system = fields.get("system")
    messages: list[_Message] = []
    if isinstance(system, str) and system.strip():
        messages.append(("system", system, False))
    if conversation is not None:
        messages += _messages(conversation, seen)
    else:
        messages += _question_and_answer(fields, seen)
    turns = _pair_up(messages)
    for text in (text for turn in turns for text in (turn.question, turn.answer)):
        _check_encoding(text)
    return turns, seen.picture()


def _refuse(fields: Mapping[str, Any]) -> None:
    for key in _REFUSED_KEYS:
        if fields.get(key) not in (None, "", [], {}):
            raise SkipRowError(Reason.UNSUPPORTED, key)


def _check_encoding(text: str) -> None:
    """Raise SkipRowError for half characters, as bytes that are not UTF-8 are read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SkipRowError(Reason.ENCODING) from error


# --- pictures -------------------------------------------------------------------------------------


def _places(fields: Mapping[str, Any]) -> list[str]:
    """Return the places of a row's pictures outside of its conversation."""
    places = []
    for key in PICTURE_KEYS:
        value = fields.get(key)
        entries = value if isinstance(value, list) else [value]
        found = [place for place in (_place(each, key) for each in entries) if place]
        if len(found) > 1:
            raise SkipRowError(Reason.SEVERAL_PICTURES, key)
        places += found
    return places


def _place(value: Any, key: str) -> str:
    """Return where a picture is, "" for none."""
    if isinstance(value, dict):
        value = next((value[each] for each in _PLACE_KEYS if value.get(each)), "")
        if isinstance(value, dict):
            value = value.get("url")
    if value is None:
        return ""
    if not isinstance(value, str):
        raise SkipRowError(Reason.UNSUPPORTED, key)
    return value.strip()


def find_picture(where: str, base: Path) -> Path | bytes:
    """Return the file of a picture, or the bytes of a data: URL. Raises SkipRowError.

    where  a data: URL or its base64 text alone, a file: URL, or a path relative to the data's
           folder or to `images` in it; Windows' separators are accepted
    base   the data's folder: a file outside of it is refused, whatever links say
    """
    if where[:5].lower() == "data:":
        return _decode(where)
    if _BASE64.fullmatch(where):  # tables of benchmarks have the bytes as they are
        return _decode(f"data:;base64,{where}")
    if _REMOTE.match(where):
        raise SkipRowError(Reason.REMOTE, where)
    for path in _candidates(where):
        for folder in (base, base / "images"):
            found = _existing(folder / path, base)
            if found is not None:
                return found
    raise SkipRowError(Reason.MISSING, where)


def _decode(url: str) -> bytes:
    head, _, body = url.partition(",")
    try:
        if head.lower().endswith(";base64"):
            data = base64.b64decode(re.sub(r"\s", "", unquote(body)), validate=True)
        else:
            data = unquote_to_bytes(body)
    except (binascii.Error, ValueError):
        data = b""
    if not data:
        raise SkipRowError(Reason.UNREADABLE, "data: URL")
    if len(data) > _MOST_PICTURE_BYTES:
        raise SkipRowError(Reason.LARGE, "data: URL")
    return data


def _candidates(where: str) -> Iterator[str]:
    """Yield the paths that a text may mean."""
    if where[:5].lower() == "file:":
        where = re.sub(r"^(?://(?:localhost)?(?=/))?", "", unquote(where[5:]))
        if re.match(r"/[A-Za-z]:", where):  # file:///C:/a.png
            where = where[1:]
    yield where
    if "\\" in where:
        yield where.replace("\\", "/")


def _existing(file: Path, base: Path) -> Path | None:
    """Return a file inside the data's folder, links resolved, or None if it does not exist."""
    try:
        real = file.resolve(strict=True)
        if not real.is_relative_to(base.resolve()):
            raise SkipRowError(Reason.OUTSIDE, str(file))
        if not real.is_file():
            return None
        if real.stat().st_size > _MOST_PICTURE_BYTES:
            raise SkipRowError(Reason.LARGE, str(file))
    except (OSError, ValueError, RuntimeError):  # missing, a loop of links, a zero byte in the name
        return None
    return real


def is_picture(file: Path) -> bool:
    """Return whether a file is a picture by its name; hidden ones, such as ._a.jpg, are not."""
    return file.suffix.lower() in readable_suffixes() and not file.name.startswith(".")


# --- conversations --------------------------------------------------------------------------------

_Message = tuple[str, str, bool]
"""Role, text, and whether it is trained."""


def _messages(conversation: Sequence[Any], seen: _Seen) -> Iterator[_Message]:
    for entry in conversation:
        if not isinstance(entry, dict):
            raise SkipRowError(Reason.ROLE, type(entry).__name__)
        _refuse(entry)
        trained = _is_trained(entry)
        if "human" in entry and "assistant" in entry:
            yield "user", _text(entry["human"], seen), True
            yield "assistant", _text(entry["assistant"], seen), trained
            continue
        word = str(entry.get("role", entry.get("from", "")))
        role = _ROLES.get(word.strip().lower())
        if role is None:
            raise SkipRowError(Reason.ROLE, word)
        yield role, _text(entry.get("content", entry.get("value")), seen), trained


def _is_trained(entry: Mapping[str, Any]) -> bool:
    loss = entry.get("loss")
    if loss not in (None, True, False):
        raise SkipRowError(Reason.UNSUPPORTED, "loss")
    return loss is None or bool(loss)


def _question_and_answer(fields: Mapping[str, Any], seen: _Seen) -> Iterator[_Message]:
    # The answers of the history are learnt, too, as in the programs that have this form.
    history = fields.get("history") or []
    if not isinstance(history, list):
        raise SkipRowError(Reason.ROLES, "history")
    for pair in history:
        if not isinstance(pair, list) or len(pair) != 2:
            raise SkipRowError(Reason.ROLES, "history")
        yield "user", _text(pair[0], seen), True
        yield "assistant", _text(pair[1], seen), True
    question, answer = _first(fields, _QUESTION_KEYS), _first(fields, ANSWER_KEYS)
    if question in ("input", "instruction") and isinstance(fields.get("instruction"), str):
        parts = (fields["instruction"], fields.get("input"))  # Alpaca's form
        asked = "\n".join(part for part in parts if isinstance(part, str) and part.strip())
    else:
        asked = "" if question is None else fields[question]
    if answer is None:
        raise SkipRowError(Reason.NO_ANSWER)
    yield "user", _text(asked, seen), True
    yield "assistant", _text(fields[answer], seen), True


def _first(fields: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    return next((key for key in keys if fields.get(key) is not None), None)


def _text(content: Any, seen: _Seen) -> str:
    """Return the text of a message; pictures among its parts are added to `seen`."""
    if isinstance(content, list):
        content = "".join(_part(part, seen) for part in content)
    if isinstance(content, int | float) and not isinstance(content, bool):
        content = str(content)  # "how many": 3
    if not isinstance(content, str):
        raise SkipRowError(Reason.NO_ANSWER, f"a text is {type(content).__name__}")
    seen.marks += content.count("<image>")
    return _MARK.sub("", content)


def _part(part: Any, seen: _Seen) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise SkipRowError(Reason.UNSUPPORTED, type(part).__name__)
    kind = part.get("type", "text" if "text" in part else "image" if "image" in part else None)
    if kind == "text" and isinstance(part.get("text"), str):
        text: str = part["text"]
        return text
    if kind not in ("image", "image_url"):
        raise SkipRowError(Reason.UNSUPPORTED, f"type {kind}")
    place = _place(part, "content")
    if place:
        seen.places.append(place)
    else:
        seen.marks += 1  # the picture is in `images`
    return ""


def _pair_up(messages: Sequence[_Message]) -> tuple[Turn, ...]:
    """Return the turns; questions in a row are joined, and one at the end is dropped.

    The model has no system role: its text stands before the question that follows, as in `serve`.
    """
    asked: list[str] = []
    users = 0
    turns: list[Turn] = []
    for role, text, trained in messages:
        if role != "assistant":
            users += role == "user"
            if text.strip():
                asked.append(text.strip())
        elif not users:
            raise SkipRowError(Reason.ROLES, "an answer without a question")
        else:
            turns.append(Turn("\n".join(asked), text.strip(), trained))
            asked, users = [], 0
    if not turns:
        raise SkipRowError(Reason.NO_ANSWER)
    return tuple(turns)
