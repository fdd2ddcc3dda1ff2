"""What the engine's process and its owner say to each other: typed messages in small frames.

A frame is two big-endian 32-bit lengths, a JSON object of the first length and raw bytes of the
second, which only a picture uses. JSON carries numbers and text and no code, so neither side has to
trust the other. No torch here: windows and servers import this module.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import EngineError, UsageError
from cogvlm2_lite.events import (
    Event,
    Finished,
    FinishReason,
    ImageEncoded,
    Notice,
    Prefilled,
    Progress,
    Replanned,
    Streaming,
    TextDelta,
    TokenLikelihood,
    TokenScore,
    TurnsDropped,
)
from cogvlm2_lite.inputs.image import DEFAULT_LIMITS
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import MIB, format_bytes

MAX_JSON_BYTES = 64 * MIB
MAX_BLOB_BYTES = DEFAULT_LIMITS.max_file_bytes
_HEADER = struct.Struct(">II")


class CutOffError(EngineError):
    """The stream ended in the middle of a message: the other process is gone."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Open a model folder; answered by Loaded or LoadFailed."""

    options: LoadOptions


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Answer a question; answered by Told messages, the last one with Finished, or by Failed.

    image  the bytes of a picture file, decoded in the engine's process
    begun, begun_ids  as for Model.answer: what the answer has said already
    """

    request: int
    question: str
    image: bytes | None = field(default=None, repr=False)
    history: tuple[tuple[str, str], ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    template: str | None = None
    upright: bool = True
    begun: str = ""
    begun_ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CancelRequest:
    """Stop an answer within one token; it still ends with Finished."""

    request: int


@dataclass(frozen=True, kw_only=True)
class Unload:
    """Forget the model and give its memory back; answered by Unloaded."""


@dataclass(frozen=True, kw_only=True)
class Shutdown:
    """End the process."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The model is ready.

    plan          forecast.table.plan_as_dict()
    compute       device and number type, and why
    context       tokens of question, picture and answer together
    image_tokens  those of one picture
    parallel      conversations that are answered at once
    """

    plan: Mapping[str, Any]
    compute: str
    context: int
    image_tokens: int
    parallel: int = 1


@dataclass(frozen=True, kw_only=True)
class LoadFailed:
    """The model could not be opened.

    kind   the name of a class in errors.py
    param  the option at fault, if it is one
    """

    kind: str
    message: Text
    hint: Text
    param: str | None = None


@dataclass(frozen=True, kw_only=True)
class Unloaded:
    """No model is in memory."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """An event of an answer."""

    request: int
    event: Event


@dataclass(frozen=True, kw_only=True)
class Failed:
    """An answer ended with an error. kind and param as for LoadFailed."""

    request: int
    kind: str
    message: Text
    hint: Text
    param: str | None = None


@dataclass(frozen=True, kw_only=True)
class Beat:
    """The process is alive; sent every second (worker/heartbeat.py).

    still_s      for how long the work has made no step; 0 when there is none
    plausible_s  how long such a step may take
    """

    still_s: float = 0.0
    plausible_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Died:
    """The process ended without being asked to; never sent, but told by its owner."""

    reason: Text


Command = Load | Ask | CancelRequest | Unload | Shutdown
Report = Loaded | LoadFailed | Unloaded | Told | Failed | Beat
Message = Command | Report

_MESSAGES: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (
        Load, Ask, CancelRequest, Unload, Shutdown,
        Loaded, LoadFailed, Unloaded, Told, Failed, Beat,
    )
}  # fmt: skip
_EVENTS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        TurnsDropped, Progress, ImageEncoded, Prefilled, TextDelta, Notice, Streaming, Replanned,
        Finished,
    )
}  # fmt: skip


def write_message(stream: BinaryIO, message: Message) -> None:
    """Write one frame and flush. Raises OSError when the other side has gone."""
    stream.write(encode(message))
    stream.flush()


def read_message(stream: BinaryIO) -> Message | None:
    """Return the message of one frame; None at the stream's end.

    Raises CutOffError when the stream ends inside a frame, EngineError for what is no frame.
    """
    head = stream.read(_HEADER.size)
    if not head:
        return None
    if len(head) < _HEADER.size:
        raise CutOffError("A message of the engine's process was cut off.")
    length, blob_length = _HEADER.unpack(head)
    if length > MAX_JSON_BYTES or blob_length > MAX_BLOB_BYTES:
        raise _broken(Text("it has {size}", size=format_bytes(length + blob_length)))
    body = stream.read(length + blob_length)
    if len(body) < length + blob_length:
        raise CutOffError("A message of the engine's process was cut off.")
    return decode(body[:length], body[length:])


def encode(message: Message) -> bytes:
    """Give the frame of a message."""
    blob = message.image if isinstance(message, Ask) and message.image is not None else b""
    body = json.dumps(_plain(message), default=str).encode("ascii")  # default: for a Path
    return _HEADER.pack(len(body), len(blob)) + body + blob


def decode(body: bytes, blob: bytes = b"") -> Message:
    """Turn a frame's JSON and bytes into a message. Raises EngineError for anything unknown."""
    try:
        values = json.loads(body, object_hook=_read_text)
        kind = _MESSAGES[values.pop("what")]
        if kind is Ask:
            values = _ask_values(values, blob)
        elif kind is Told:
            values["event"] = _event(values["event"])
        elif kind is Load:
            values["options"] = _load_options(values["options"])
        _check_names(kind, values)
        return kind(**values)
    except (
        ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError,
    ) as error:  # fmt: skip
        raise _broken(f"{type(error).__name__}: {error}") from error


def _read_text(values: dict[str, Any]) -> Any:
    return Text.read(values) if values.keys() == {"template", "values"} else values


def _plain(message: Message) -> dict[str, Any]:
    """Write a message as JSON-ready values; events carry their own name."""
    values: dict[str, Any] = {"what": type(message).__name__}
    for item in fields(message):
        value = getattr(message, item.name)
        if isinstance(value, bytes):
            value = True  # the bytes follow the JSON
        elif is_dataclass(value) and not isinstance(value, type):
            value = {"event": type(value).__name__, **_enums_as_values(asdict(value))}
        values[item.name] = _texts_as_objects(value)
    return values


def _texts_as_objects(value: Any) -> Any:
    """Return a value in which every Text is an object with its template and values."""
    if isinstance(value, Text):
        return value.as_dict()
    if isinstance(value, Mapping):
        return {name: _texts_as_objects(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_texts_as_objects(item) for item in value]
    return value


def _enums_as_values(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v.value if isinstance(v, Enum) else v for k, v in values.items()}


def _load_options(values: dict[str, Any]) -> LoadOptions:
    values.pop("event")
    _check_names(LoadOptions, values)
    kept = values["pictures"]
    return LoadOptions(
        **{
            **values,
            "folder": Path(values["folder"]),
            "pictures": None if kept is None else (Path(kept[0]), kept[1]),
        }
    )


def _ask_values(values: dict[str, Any], blob: bytes) -> dict[str, Any]:
    settings = values["sampling"]
    settings.pop("event")
    settings["stop"] = tuple(settings["stop"])
    _check_names(Sampling, settings)
    return {
        **values,
        "sampling": Sampling(**settings),
        "image": blob if values["image"] else None,
        "history": tuple((question, answer) for question, answer in values["history"]),
        "begun_ids": tuple(values["begun_ids"]),
    }


def _event(values: dict[str, Any]) -> Event:
    kind = _EVENTS[values.pop("event")]
    if kind is Finished:
        values["reason"] = FinishReason(values["reason"])
        values["token_ids"] = tuple(values["token_ids"])
    if kind is Replanned:
        values["budget_bytes"] = tuple(values["budget_bytes"])
    if kind is TextDelta:
        values["tokens"] = tuple(map(_token_score, values["tokens"]))
    _check_names(kind, values)
    return kind(**values)


def _token_score(values: dict[str, Any]) -> TokenScore:
    return TokenScore(
        chosen=_likelihood(values["chosen"]), likeliest=tuple(map(_likelihood, values["likeliest"]))
    )


def _likelihood(values: dict[str, Any]) -> TokenLikelihood:
    data = values["data"]
    return TokenLikelihood(**{**values, "data": None if data is None else tuple(data)})


def _check_names(kind: type[Any], values: Mapping[str, Any]) -> None:
    known = {item.name for item in fields(kind)}
    needed = {
        item.name
        for item in fields(kind)
        if item.default is MISSING and item.default_factory is MISSING
    }
    if not needed <= set(values) <= known:
        raise ValueError(f"{kind.__name__} has other fields: {sorted(values)}")


def _broken(why: str) -> EngineError:
    return EngineError(
        "A message between this program and the engine's process can't be read: {why}.",
        hint="Start the program again; both must be of the same version.",
        why=why,
    )
