"""Exports a conversation as Markdown, HTML or JSON. No Qt here."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from cogvlm2_lite.file_names import cut_name
from gui.data.history import HistoryError
from gui.data.settings import write_atomic
from gui.data.state import Conversation, Part

_KINDS = {
    rb"\x89PNG": "png",
    rb"\xff\xd8\xff": "jpg",
    rb"GIF8": "gif",
    rb"RIFF....WEBP": "webp",
    rb"BM": "bmp",
    rb"....ftyp(avif|avis)": "avif",
    rb"....ftyp": "heic",
}

_PAGE = """<!doctype html>
<html><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>body{{font:16px/1.5 sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}}
img{{max-width:100%}}.q{{background:#e6f0ec;border-radius:.8rem;padding:.6rem 1rem}}
.p{{color:#616964;font-size:.9rem;margin-bottom:0}}.p:empty{{display:none}}
.a{{white-space:pre-wrap;padding:.4rem 1rem}}</style></head>
<body><h1>{title}</h1>{picture}
{turns}
</body></html>
"""  # noqa: E501 - a policy has no line breaks


def export(
    conversation: Conversation, picture: bytes, target: Path, *, replace: bool = False
) -> None:
    """Write the branch that is shown, in the format of the file's suffix: .md, .html or .json.

    The picture is written next to a Markdown file, and never replaces another one.

    replace  whether the user agreed to replace an existing file

    Raises HistoryError if the file exists or can't be written.
    """
    if not replace and target.exists():
        raise HistoryError(
            "{file} already exists and is not overwritten.",
            hint="Choose another name.",
            file=target,
        )
    try:
        if target.suffix.lower() == ".json":
            write_atomic(target, to_json(conversation, picture).encode())
        elif target.suffix.lower() in (".html", ".htm"):
            write_atomic(target, to_html(conversation, picture).encode())
        else:
            name = ""
            if picture:
                name = _picture_name(target, picture)
                write_atomic(target.with_name(name), picture)
            write_atomic(target, to_markdown(conversation, name).encode())
    except OSError as error:
        raise HistoryError(
            "{file} can't be written: {why}.",
            hint="Choose another place.",
            file=target,
            why=error.strerror or error,
        ) from error


def _picture_name(target: Path, picture: bytes) -> str:
    """Return a name next to a Markdown file that is free, or that has this very picture."""
    kind, number = picture_kind(picture), 1
    while True:
        end = f".{kind}" if number == 1 else f"-{number}.{kind}"
        file = target.with_name(cut_name(target.stem, 255 - len(end)) + end)
        if not file.exists() or (file.is_file() and file.read_bytes() == picture):
            return file.name
        number += 1


def to_markdown(conversation: Conversation, picture: str) -> str:
    """Return the shown branch as Markdown. picture: file name of the picture, or ""."""
    parts = [f"# {conversation.title}"]
    if picture:
        parts.append(f"![]({picture})" if " " not in picture else f"![](<{picture}>)")
    for turn in conversation.path():
        asked = "\n".join(f"> {line}" for line in turn.question.splitlines())
        place = f"*{about(turn.parts)}*" if turn.parts else ""
        parts += [f"*{_time(turn.created)}*", place, asked, turn.answer.strip()]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_html(conversation: Conversation, picture: bytes) -> str:
    """Return the shown branch as one HTML page that loads nothing. Texts are escaped."""
    image = ""
    if picture:
        kind = {"jpg": "jpeg", "tif": "tiff"}.get(picture_kind(picture), picture_kind(picture))
        image = f'<img alt="" src="data:image/{kind};base64,{base64.b64encode(picture).decode()}">'
    turns = "\n".join(
        f'<p class="p">{html.escape(about(turn.parts))}</p>'
        f'<p class="q">{html.escape(turn.question)}</p>'
        f'<div class="a">{html.escape(turn.answer.strip())}</div>'
        for turn in conversation.path()
    )
    return _PAGE.format(title=html.escape(conversation.title), picture=image, turns=turns)


def to_json(conversation: Conversation, picture: bytes) -> str:
    """Return the whole tree of turns and the picture (base64) as JSON."""
    turns = [asdict(turn) | {"status": turn.status.value} for turn in conversation.turns.values()]
    content = {
        "program": "CogVLM2 Lite",
        "title": conversation.title,
        "leaf": conversation.leaf,
        "page": conversation.page,
        "picture": base64.b64encode(picture).decode() if picture else None,
        "turns": turns,
    }
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def about(parts: Sequence[Part]) -> str:
    """Return which parts of the picture a question is about; "" for the whole picture."""
    return "; ".join(map(_place, parts))


def _place(part: Part) -> str:
    page = f", page {part.page}" if part.page is not None else ""
    turned = f", turned by {90 * part.rotation} degrees" if part.rotation else ""
    size = f"{part.width} x {part.height} pixels"
    return f"Part of the picture: {size} at ({part.x}, {part.y}){page}{turned}"


def picture_kind(picture: bytes) -> str:
    """Return the suffix of a picture file by its first bytes."""
    kinds = (kind for head, kind in _KINDS.items() if re.match(head, picture, re.DOTALL))
    return next(kinds, "tif")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
