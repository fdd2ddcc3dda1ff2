"""The text that each benchmark asks with, by protocol.

Sources: VLMEvalKit at e8e78f05 and at 45751449 (days after the release of CogVLM2), with its
adapter for CogVLM2; the advice of CogVLM's authors to ask short answers with the template "vqa".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.evaluate.items import Item

PROTOCOLS = ("vlmevalkit", "vlmevalkit-2024", "vqa-template")
"""The first is the default."""

Template = Literal["chat", "vqa", "base"]

_SHORT_ANSWERS = ("textvqa", "docvqa", "chartqa")
_CHOICES = ("mmbench", "mmbench_cn", "mmmu")
_SHORT = "Answer the question using a single word or phrase."
_SHORT_2024 = "Please try to answer the question with short words or phrases if possible\n."
_LETTER = "Answer with the option's letter from the given choices directly."
_LETTER_CHINESE = "请直接回答选项字母。"
_SHORT_LETTER = "Short Answer."
_CHINESE = re.compile("[\u4e00-\u9fff]")


@dataclass(frozen=True)
class Query:
    """What is asked: the text, and the chat template that it is put into."""

    text: str
    template: Template


def query(benchmark: str, item: Item, protocol: str) -> Query:
    """Return the query for an item. Raises UsageError for an unknown protocol."""
    if protocol not in PROTOCOLS:
        raise UsageError(
            "Unknown protocol {name!r}.",
            hint="Choose one of {names}.",
            name=protocol,
            names=", ".join(PROTOCOLS),
        )
    if benchmark in _SHORT_ANSWERS:
        if protocol == "vqa-template":
            return Query(item.question, "vqa")
        suffix = _SHORT_2024 if protocol == "vlmevalkit-2024" else _SHORT
        return Query(f"{item.question}\n{suffix}", "chat")
    if benchmark in _CHOICES:
        if protocol == "vqa-template" and benchmark == "mmmu" and not item.options:
            return Query(f"{item.question}\n\n{_SHORT}", "chat")
        return Query("\n".join(_choice_lines(item, protocol)), "chat")
    return Query(item.question, "chat")


def _choice_lines(item: Item, protocol: str) -> Iterator[str]:
    """Yield the lines of a choice question.

    The line about the letter is there for open questions of MMMU, too, as in the reference.
    """
    lines = [item.shown_hint] if item.shown_hint else []
    lines.append(item.question)
    lines += [f"{letter}. {text}" for letter, text in item.shown_options.items()]
    yield from lines
    yield _LETTER_CHINESE if _CHINESE.search("\n".join(lines)) else _LETTER
    if protocol != "vlmevalkit-2024":
        yield _SHORT_LETTER
