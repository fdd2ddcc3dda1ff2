"""The messages between the engine's process and its owner: typed values in small frames.

A frame is two big-endian 32-bit lengths, a JSON object of the first length and raw bytes of the
second, which are used only for a picture. JSON can't contain code, so neither side has to trust the
other. No torch here: the window and the server import this module.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, BinaryIO, get_args

import msgspec
from msgspec import Meta, Struct

from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import EngineError, UsageError
from cogvlm2_lite.events import Count, Event, Seconds
from cogvlm2_lite.inputs.limits import DEFAULT_LIMITS
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import MIB, format_bytes

MAX_JSON_BYTES = 64 * MIB
MAX_BLOB_BYTES = DEFAULT_LIMITS.max_file_bytes
_HEADER = struct.Struct(">II")

Number = Annotated[int, Meta(ge=1)]


class CutOffError(EngineError):
    """The stream ended in the middle of a message: the other process is gone."""


class _Message(
    Struct, frozen=True, kw_only=True, tag_field="what", tag=True, forbid_unknown_fields=True
):
    """A message. In JSON: {"what": "CancelRequest", "request": 3}."""


class Load(_Message, frozen=True, kw_only=True):
    """Open a model folder; answered by Loaded or LoadFailed.

    warm_up  first load the weights that every token needs; Loading reports the progress
    """

    options: LoadOptions
    warm_up: bool = False


class SheetPicture(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A picture of a sheet: the bytes of its file, and its page as in Ask."""

    nbytes: Number
    page: Number | None = None


class DecodedImage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an Ask with pixels says about them; the fields are those of inputs.image.OpenedImage."""

    width: Number
    height: Number
    sha256: str
    format: str
    original_size: tuple[Count, Count]
    page: Number = 1
    pages: Number = 1
    notices: tuple[Text, ...] = ()


class Ask(_Message, frozen=True, kw_only=True):
    """Answer a question; answered by Emitted messages, the last one with Finished, or by Failed.

    image    the bytes of a picture file, decoded in the engine's process
    decoded  set: `image` is the pixels of a picture that the owner has decoded before,
             [height, width, 3] bytes
    page     the page or frame of the picture, from 1; None: the one that open_image chooses
    sheet    the pictures to put on one sheet (inputs/sheet.py); image has their files, one after
             the other. (): there is one picture or none
    continue_from, continue_ids  as for Model.answer
    prompt_ids, score_prompt, score_last, draft_text     as in engine.answer.Request
    adapter  the adapter that answers: a name of Loaded.adapters; "": none; None: the first one, if
             there is one
    """

    request: Number
    question: str
    image: bytes | None = None
    decoded: DecodedImage | None = None
    page: Number | None = None
    sheet: tuple[SheetPicture, ...] = ()
    history: tuple[tuple[str, str], ...] = ()
    sampling: Sampling = msgspec.field(default_factory=Sampling)
    template: str | None = None
    upright: bool = True
    continue_from: str = ""
    continue_ids: tuple[Count, ...] = ()
    prompt_ids: tuple[Count, ...] = ()
    score_prompt: bool = False
    score_last: Count = 0
    adapter: str | None = None
    draft_text: str = ""


class CancelRequest(_Message, frozen=True, kw_only=True):
    """Stop an answer within one token; it still ends with Finished."""

    request: Number


class Unload(_Message, frozen=True, kw_only=True):
    """Release the model and its memory; answered by Unloaded."""


class Shutdown(_Message, frozen=True, kw_only=True):
    """End the process."""


class Loading(_Message, frozen=True, kw_only=True):
    """How much of the weights is in memory that a Load with warm_up loads."""

    done_bytes: Count
    total_bytes: Count


class Loaded(_Message, frozen=True, kw_only=True):
    """The model is ready.

    plan          forecast.table.plan_as_dict()
    compute       device and number type, and why they were chosen
    context       maximum tokens of question, picture and answer together
    image_tokens  tokens of one picture
    parallel      conversations that are answered at once
    warnings      sentences about files that are probably not complete, and about untested GPUs
    adapters      names of the adapters, one of which may act on an answer
    adapter_remarks  sentences about the adapters
    """

    plan: Mapping[str, Any]
    compute: str
    context: Count
    image_tokens: Count
    parallel: Number = 1
    warnings: tuple[Text, ...] = ()
    adapters: tuple[str, ...] = ()
    adapter_remarks: tuple[Text, ...] = ()

    @property
    def streams(self) -> bool:
        """Whether weights are loaded again for each use, because memory is short."""
        devices = self.plan.get("devices", ())
        return any(phase["streamed_bytes"] for device in devices for phase in device["phases"])


class LoadFailed(_Message, frozen=True, kw_only=True):
    """The model could not be opened.

    kind   the name of a class in errors.py
    param  the option at fault, if it is one
    """

    kind: str
    message: Text
    hint: Text
    param: str | None = None


class Unloaded(_Message, frozen=True, kw_only=True):
    """No model is in memory."""


class Emitted(_Message, frozen=True, kw_only=True):
    """An event of an answer."""

    request: Number
    event: Event


class Failed(_Message, frozen=True, kw_only=True):
    """An answer ended with an error. kind and param as for LoadFailed."""

    request: Number
    kind: str
    message: Text
    hint: Text
    param: str | None = None


class Heartbeat(_Message, frozen=True, kw_only=True):
    """The process is alive; sent every second (worker/heartbeat.py).

    stalled_s    seconds since the last progress of the work; 0 if there is nothing to do
    plausible_s  seconds that the current step may take
    """

    stalled_s: Seconds = 0.0
    plausible_s: Seconds = 0.0


@dataclass(frozen=True, kw_only=True)
class Died:
    """The process ended unexpectedly; never sent: EngineProcess itself reports it."""

    reason: Text


Command = Load | Ask | CancelRequest | Unload | Shutdown
Report = Loading | Loaded | LoadFailed | Unloaded | Emitted | Failed | Heartbeat
Message = Command | Report

_KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in get_args(Message)}


def write_message(stream: BinaryIO, message: Message) -> None:
    """Write one frame and flush. Raises OSError if the other process has ended."""
    stream.write(encode(message))
    stream.flush()


def read_message(stream: BinaryIO) -> Message | None:
    """Return the message of the next frame; None at the end of the stream.

    Raises CutOffError if the stream ends inside a frame, EngineError for an invalid frame.
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
    """Return the frame of a message."""
    values = msgspec.to_builtins(message, enc_hook=_written, builtin_types=(bytes,))
    blob = b""
    if isinstance(message, Ask) and message.image is not None:
        values["image"], blob = True, message.image  # the bytes follow the JSON
    # json writes lone surrogates, which a question may contain; msgspec does not.
    body = json.dumps(values).encode("ascii")
    return _HEADER.pack(len(body), len(blob)) + body + blob


def decode(body: bytes, blob: bytes = b"") -> Message:
    """Return the message of a frame's JSON and bytes. Raises EngineError for anything unknown."""
    try:
        values = json.loads(body, object_hook=_read_text)
        kind = _KINDS[values["what"]]
        if kind is Ask:
            values["image"] = blob if values["image"] else None
            _check_sampling(values["sampling"])
        message: Message = msgspec.convert(values, kind, dec_hook=_read, builtin_types=(bytes,))
    except (
        ValueError, LookupError, TypeError, AttributeError, RecursionError, UsageError,
    ) as error:  # fmt: skip
        raise _broken(f"{type(error).__name__}: {error}") from error
    return message


def _written(value: object) -> Any:
    """Return the JSON form of a value whose type msgspec does not know."""
    if isinstance(value, Text):
        return value.as_dict()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} can't be written")


def _read_text(values: dict[str, Any]) -> Any:
    return Text.read(values) if values.keys() == {"template", "values"} else values


def _read(kind: type[Any], value: object) -> Any:
    """Return a value of a type that msgspec does not know, from its JSON form."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is Text and isinstance(value, str):  # one with a template was read by _read_text
        return Text(value)
    raise ValueError(f"expected {kind.__name__}, got {type(value).__name__}")


def _check_sampling(values: Mapping[str, Any]) -> None:
    """Reject unknown settings, which msgspec ignores in a dataclass."""
    unknown = values.keys() - {item.name for item in fields(Sampling)}
    if unknown:
        raise ValueError(f"unknown settings {sorted(unknown)}")


def _broken(why: str) -> EngineError:
    return EngineError(
        "A message between this program and the engine's process can't be read: {why}.",
        hint="Start the program again; both must be of the same version.",
        why=why,
    )
