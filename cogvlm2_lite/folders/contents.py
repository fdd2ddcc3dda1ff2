"""Recognizes files that are not what their name says, by their first bytes.

A download may leave a web page, a message of the server or a Git LFS pointer under the right name.
Such a file is not damaged, and "copy it again" would not help.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cogvlm2_lite.errors import CheckpointError
from cogvlm2_lite.text import Text, marked
from cogvlm2_lite.units import format_bytes

HEAD_BYTES = 4096
"""Bytes at the beginning of a file that `wrong_content` looks at."""

GET_SAFETENSORS = marked("Get the safetensors version of the model, with its config.json.")
UNPACK = marked("Unpack it, and use the folder that contains config.json.")
_GET_FILE = marked(
    "Download the file itself, not the page about it. If the site asks, sign in and accept the "
    "licence first."
)

_ARCHIVES = (
    b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd",
    b"BZh",
)  # fmt: skip
_MARKUP = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<error")
_LFS = b"version https://git-lfs.github.com/spec/"
_LONGEST_MESSAGE = 2048
"""Bytes of a text that may be a server's message, such as "Entry not found"."""
_MESSAGE_KEYS = ("error", "message", "detail", "Message", "msg")


def wrong_content(file: Path, head: bytes, size: int) -> CheckpointError | None:
    """Return the error for a file that is something else; None if it may be what it should be.

    head  the first HEAD_BYTES of the file
    size  bytes of the whole file
    """
    if head.startswith(_LFS):
        return _lfs_pointer(file, head, size)
    if head and not any(head):
        return CheckpointError(
            "{file} begins with {count} zero bytes: its space was reserved, but its content was "
            "not downloaded.",
            hint="Continue or repeat its download.",
            file=file,
            count=len(head),
        )
    if head.startswith(b"GGUF"):
        return CheckpointError(
            "{file} is a GGUF file, the format of llama.cpp, which CogVLM2 Lite can't read.",
            hint=GET_SAFETENSORS,
            file=file,
        )
    if (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05") or (
        head.startswith(b"PK\x03\x04") and b"data.pkl" in head
    ):
        return CheckpointError(
            "{file} is a pickle file of PyTorch, which can run any program when it is opened.",
            hint="Get the safetensors version of the model. CogVLM2 Lite never opens pickle files.",
            file=file,
        )
    if head.startswith((b"PK\x03\x04", *_ARCHIVES)) or head[257:262] == b"ustar":
        return CheckpointError("{file} is a packed archive.", hint=UNPACK, file=file)
    return _text_content(file, head, size)


def unreadable_json(file: Path, content: bytes, error: Exception) -> CheckpointError:
    """Return the error for a JSON file that can't be parsed: what it is, or that it is cut."""
    if found := wrong_content(file, content[:HEAD_BYTES], len(content)):
        return found
    if not content.strip():
        return CheckpointError(
            "{file} is empty.", hint="Continue or repeat its download.", file=file
        )
    return CheckpointError(
        "{file} can't be read: {why}.",
        hint="The file is not complete, or it was changed. Copy or download it again.",
        file=file,
        why=error,
    )


def server_message(raw: Mapping[str, Any]) -> str | None:
    """Return the message if a JSON object is a server's error; None for any other object."""
    if len(raw) > 6 or "architectures" in raw or "hidden_size" in raw:
        return None
    for key in _MESSAGE_KEYS:
        value = raw.get(key)
        if isinstance(value, dict):
            value = value.get("message")
        if isinstance(value, str) and value:
            return _shortened(value)
    return None


def message_in_place(file: Path, message: str) -> CheckpointError:
    """Return the error for a file that contains only a server's message."""
    return CheckpointError(
        "{file} contains a message of the server instead of the file: {message}",
        hint=_GET_FILE,
        file=file,
        message=message,
    )


def _lfs_pointer(file: Path, head: bytes, size: int) -> CheckpointError:
    found = re.search(rb"^size (\d{1,18})\s*$", head, re.MULTILINE)
    real = format_bytes(int(found[1])) if found else Text("unknown size")
    return CheckpointError(
        "{file} is a Git LFS pointer of {count} bytes: the file itself ({size}) was not "
        "downloaded.",
        hint="Run `git lfs pull` in its folder, or download the file itself.",
        file=file,
        count=size,
        size=real,
    )


def _text_content(file: Path, head: bytes, size: int) -> CheckpointError | None:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:16].lower().startswith(_MARKUP):
        return CheckpointError(
            "{file} is a web page or a message of the server (HTML or XML), not the file.",
            hint=_GET_FILE,
            file=file,
        )
    text = _message_text(head, size)
    if text is None:
        return None
    try:
        parsed = json.loads(text)
    except ValueError:
        # The beginning of a JSON object is a file that was cut.
        is_message = " " in text and not text.startswith(("{", "["))
        return message_in_place(file, _shortened(text)) if is_message else None
    except RecursionError:
        return None
    message = server_message(parsed) if isinstance(parsed, dict) else None
    return None if message is None else message_in_place(file, message)


def _message_text(head: bytes, size: int) -> str | None:
    """Return a short file as text if it is printable text."""
    if not 8 < size <= min(_LONGEST_MESSAGE, len(head)):
        return None
    try:
        text = head.decode("utf-8").strip()
    except UnicodeDecodeError:
        return None
    return text if all(c.isprintable() or c in "\r\n\t" for c in text) else None


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    cut = line if len(line) <= 160 else f"{line[:157]}..."
    return cut if cut.isprintable() else ascii(cut)
