"""Splits the Markdown of an answer into text and code blocks. No Qt here."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*([^\n]*)")


@dataclass(frozen=True, kw_only=True)
class Text:
    """Markdown without fenced code."""

    markdown: str


@dataclass(frozen=True, kw_only=True)
class Code:
    """The code between two fences. language: the first word after the opening fence, or "" """

    code: str
    language: str = ""


Block = Text | Code


def split(markdown: str) -> list[Block]:
    """Split at code fences (CommonMark, section 4.5).

    A block that is not closed yet extends to the end. Fences inside of lists stay in the text.
    """
    blocks: list[Block] = []
    lines: list[str] = []
    fence, language = "", ""
    for line in markdown.splitlines():
        match = _FENCE.fullmatch(line)
        if fence:
            if match and match[1].startswith(fence) and not match[2].strip():
                blocks.append(Code(code="\n".join(lines), language=language))
                fence, lines = "", []
            else:
                lines.append(line)
        elif match and not (match[1][0] == "`" and "`" in match[2]):
            _add_text(blocks, lines)
            fence, lines = match[1], []
            language = match[2].split()[0] if match[2].split() else ""
        else:
            lines.append(line)
    if fence:
        blocks.append(Code(code="\n".join(lines), language=language))
    else:
        _add_text(blocks, lines)
    return blocks


def _add_text(blocks: list[Block], lines: list[str]) -> None:
    if any(line.strip() for line in lines):
        blocks.append(Text(markdown="\n".join(lines)))
