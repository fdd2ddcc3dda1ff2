"""The conversations of a chat, and writing them to a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cogvlm2_lite import __version__
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.events import FinishReason, Turn
from cogvlm2_lite.file_names import escape_line, to_json, valid_text
from cogvlm2_lite.files import write_whole
from cogvlm2_lite.inputs.image import OpenedImage


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A question, its answer, when it was asked and why the answer ended.

    adapter  the adapter that answered; None: none did
    """

    question: str
    answer: str
    asked_at: datetime
    reason: FinishReason
    adapter: str | None = None


@dataclass(kw_only=True)
class Conversation:
    """A conversation about one picture, or without a picture.

    path  the picture's file
    """

    image: OpenedImage | None = None
    path: Path | None = None
    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def history(self) -> tuple[Turn, ...]:
        """The turns in the form that `answer` takes, oldest first."""
        return tuple(Turn(e.question, e.answer) for e in self.exchanges)


def save_transcript(
    path: Path, conversations: Sequence[Conversation], *, model: str, replace: bool
) -> int:
    """Write conversations to a Markdown or JSON file, by its suffix; return the number of turns.

    replace  whether an existing file may be replaced, which is done in one step

    Raises UsageError for another suffix, an existing file, nothing to save or a write error.
    """
    writers = {".md": markdown, ".json": as_json}
    held = [c for c in conversations if c.exchanges]
    if path.suffix.lower() not in writers:
        raise UsageError(
            "The name {file} must end in .md or .json.",
            hint="For example /save chat.md",
            file=escape_line(path.name),
        )
    if not held:
        raise UsageError("There is nothing to save yet.", hint="Ask something first.")
    if os.path.lexists(path) and not replace:
        raise UsageError(
            "{file} already exists and is not overwritten.", hint="Choose another name.", file=path
        )
    text = writers[path.suffix.lower()](held, model)
    try:
        write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            "{file} can't be written: {why}.",
            hint="Choose a file in another folder.",
            file=path,
            why=getattr(error, "strerror", None) or error,
        ) from error
    return sum(len(c.exchanges) for c in held)


def markdown(conversations: Sequence[Conversation], model: str) -> str:
    """Return conversations as Markdown."""
    blocks = [f"# Conversations with {model}", f"CogVLM2 Lite {__version__}"]
    for conversation in conversations:
        image = conversation.image
        blocks.append(f"## {image.name if image else 'Without a picture'}")
        if image is not None:
            page = f", page {image.page} of {image.pages}" if image.pages > 1 else ""
            kind = f"{image.width} x {image.height} {image.format}{page}"
            blocks.append(f"{kind}, sha256 {image.sha256}")
        for exchange in conversation.exchanges:
            ended = "" if exchange.reason is FinishReason.EOS else f" ({exchange.reason.value})"
            blocks.append(f"**You**, {exchange.asked_at:%Y-%m-%d %H:%M:%S}\n\n{exchange.question}")
            name = f"{model}:{exchange.adapter}" if exchange.adapter else model
            blocks.append(f"**{name}**{ended}\n\n{exchange.answer}")
    return valid_text("\n\n".join(blocks) + "\n")


def as_json(conversations: Sequence[Conversation], model: str) -> str:
    """Return conversations as JSON."""
    content = {
        "program": f"cogvlm2-lite {__version__}",
        "model": model,
        "conversations": [
            {
                "picture": conversation.image
                and {
                    "name": conversation.image.name,
                    "sha256": conversation.image.sha256,
                    "page": conversation.image.page,
                    "pages": conversation.image.pages,
                },
                "turns": [
                    {
                        "question": exchange.question,
                        "answer": exchange.answer,
                        "asked_at": exchange.asked_at.isoformat(timespec="seconds"),
                        "reason": exchange.reason.value,
                        **({"adapter": exchange.adapter} if exchange.adapter else {}),
                    }
                    for exchange in conversation.exchanges
                ],
            }
            for conversation in conversations
        ],
    }
    return to_json(content, indent=2) + "\n"
