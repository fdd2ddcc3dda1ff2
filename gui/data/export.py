"""Exports a conversation as Markdown, HTML, JSON or text. No Qt here."""

from __future__ import annotations

import base64
import html
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from cogvlm2_lite.file_names import cut_name
from gui.data.rendering import to_html as answer_as_html
from gui.data.rendering import to_plain
from gui.data.saving import How, Kind, check_free, save
from gui.data.state import Conversation, Part, Turn

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
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>:root{{color-scheme:light dark}}
body{{font:16px/1.5 sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}}
img{{max-width:100%}}.q{{background:#8cb4a433;border-radius:.8rem;padding:.6rem 1rem;white-space:pre-wrap}}
.p{{font-size:.9rem;opacity:.8;margin-bottom:0}}.p:empty{{display:none}}
.when{{font-size:.8rem;opacity:.7;margin:1.5rem 0 .2rem}}.a{{padding:0 1rem}}
.a h1{{font-size:1.5rem}}.a h2{{font-size:1.25rem}}.a h3{{font-size:1.1rem}}
table{{border-collapse:collapse}}td,th{{border:1px solid #8888;padding:.25rem .6rem;text-align:left}}
blockquote{{border-left:3px solid #8888;margin-left:0;padding-left:1rem}}
pre{{background:#8882;border-radius:.5rem;padding:.6rem;overflow-x:auto}}</style></head>
<body><h1>{title}</h1>{picture}
{turns}
</body></html>
"""  # noqa: E501 - a policy has no line breaks

KINDS = (
    Kind(suffix=".md", label="Markdown", others=(".markdown",), adds=True),
    Kind(suffix=".html", label="HTML", others=(".htm",)),
    Kind(suffix=".json", label="JSON"),
    Kind(suffix=".txt", label="Text", adds=True),
)


def export(conversation: Conversation, picture: bytes, target: Path, how: How = How.NEW) -> None:
    """Write a conversation in the format of the file's suffix: .md, .html, .json or .txt.

    All but JSON have the branch that is shown. The picture is written next to a Markdown file, and
    never replaces another one.

    Raises SaveError if the file exists or can't be written.
    """
    between = b""
    match target.suffix.lower():
        case ".json":
            data = to_json(conversation, picture)
        case ".html" | ".htm":
            data = to_html(conversation, picture)
        case ".txt":
            data, between = to_text(conversation), b"\n"
        case _:
            data, between = to_markdown(conversation, ""), b"\n"
            if picture:
                check_free(target, how)
                data = to_markdown(conversation, _save_picture(target, picture))
    save(target, data.encode(), how, between=between)


def _save_picture(target: Path, picture: bytes) -> str:
    """Write the picture next to a Markdown file and return its name.

    It gets a name that is free; a file that is this very picture is used.
    """
    kind, number = picture_kind(picture), 1
    while True:
        end = f".{kind}" if number == 1 else f"-{number}.{kind}"
        file = target.with_name(cut_name(target.stem, 255 - len(end)) + end)
        if not os.path.lexists(file):
            save(file, picture)
            return file.name
        if _has(file, picture):
            return file.name
        number += 1


def _has(file: Path, content: bytes) -> bool:
    try:
        return file.is_file() and file.read_bytes() == content
    except OSError:  # it may not be read
        return False


def to_markdown(conversation: Conversation, picture: str) -> str:
    """Return the shown branch as Markdown. picture: file name of the picture, or ""."""
    parts = [f"# {conversation.title}"]
    if picture:
        parts.append(f"![]({picture})" if " " not in picture else f"![](<{picture}>)")
    for turn in conversation.path():
        asked = "\n".join(f"> {line}" for line in turn.question.splitlines())
        place = f"*{about(turn.parts)}*" if turn.parts else ""
        parts += [f"*{_escaped(_head(turn))}*", place, asked, turn.answer.strip()]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_text(conversation: Conversation) -> str:
    """Return the shown branch as plain text: tables with tabs, formulas as they were written."""
    parts = [conversation.title]
    for turn in conversation.path():
        asked = f"[{_head(turn)}] {turn.question}"
        parts += [about(turn.parts), asked, to_plain(turn.answer)]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_html(conversation: Conversation, picture: bytes) -> str:
    """Return the shown branch as one HTML page that loads nothing and runs nothing."""
    image = ""
    if picture:
        kind = {"jpg": "jpeg", "tif": "tiff"}.get(picture_kind(picture), picture_kind(picture))
        image = f'<img alt="" src="data:image/{kind};base64,{base64.b64encode(picture).decode()}">'
    turns = "\n".join(
        f'<p class="when">{html.escape(_head(turn))}</p>'
        f'<p class="p">{html.escape(about(turn.parts))}</p>'
        f'<p class="q">{html.escape(turn.question)}</p>\n'
        f'<div class="a">{answer_as_html(turn.answer)}</div>'
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


def _head(turn: Turn) -> str:
    """Return when a question was asked, about which file and page, and with which adapter."""
    page = f"page {turn.page}" if turn.page is not None else ""
    adapter = f"adapter {turn.adapter}" if turn.adapter else ""
    return ", ".join(filter(None, (_time(turn.created), turn.file, page, adapter)))


def _escaped(text: str) -> str:
    """Return Markdown that shows a text as it is, inside of a line."""
    return re.sub(r"([\\`*_\[\]<>#|~&])", r"\\\1", text)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
