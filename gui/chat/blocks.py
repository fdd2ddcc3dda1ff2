"""Splits the Markdown of an answer into blocks that can be laid out one by one. No Qt here."""

from __future__ import annotations

import re
from dataclasses import dataclass

TABLE_ROWS = 16
"""A longer table is laid out in pieces of so many rows."""
LIST_ITEMS = 24
"""A longer list is laid out in pieces of so many items."""

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*([^\n]*)")
_HEADING = re.compile(r" {0,3}#{1,6}(?:[ \t]|$)")
_QUOTE = re.compile(r" {0,3}>")
_ITEM = re.compile(r"( {0,3})(?:[-+*]|(\d{1,9})([.)]))[ \t]+\S")
_RULE = re.compile(r" {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$")
_DELIMITERS = re.compile(r" {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*")
_CELL_END = re.compile(r"(?<!\\)\|")


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


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A part of a Text that is laid out on its own: a paragraph, a heading, a list, a table.

    columns    longest text of each column, if the chunk is a piece of a table in several pieces
    continues  the rows belong to the table before; the first row is an empty head to be removed
    """

    markdown: str
    columns: tuple[str, ...] = ()
    continues: bool = False


def escape_markdown(text: str) -> str:
    """Return Markdown that shows a text as it is."""
    return re.sub(r"([\\`*_\[\]<>#|~&])", r"\\\1", text)


def split(markdown: str) -> list[Block]:
    """Split at code fences (CommonMark, section 4.5).

    A block that is not closed yet extends to the end. Fences inside of lists stay in the text.
    """
    return [block for block, _ in _split(markdown)]


class Splitter:
    """Splits a text that grows. Blocks before the last one are not read again."""

    def __init__(self) -> None:
        self._closed: list[Block] = []
        self._before = ""

    def split(self, markdown: str) -> list[Block]:
        """Return the same as `split`."""
        if not markdown.startswith(self._before):
            self._closed, self._before = [], ""
        found = _split(markdown[len(self._before) :])
        blocks = [*self._closed, *(block for block, _ in found)]
        if len(found) > 1:
            start = len(self._before) + found[-1][1]
            self._closed, self._before = blocks[:-1], markdown[:start]
        return blocks


def _split(markdown: str) -> list[tuple[Block, int]]:
    """Return the blocks, each with the place of its first line."""
    blocks: list[tuple[Block, int]] = []
    lines: list[str] = []
    fence, language = "", ""
    start = place = 0
    for ended in markdown.splitlines(keepends=True):
        line = ended.splitlines()[0]
        match = _FENCE.fullmatch(line)
        if fence:
            if match and match[1].startswith(fence) and not match[2].strip():
                blocks.append((Code(code="\n".join(lines), language=language), start))
                fence, lines, start = "", [], place + len(ended)
            else:
                lines.append(line)
        elif match and not (match[1][0] == "`" and "`" in match[2]):
            _add_text(blocks, lines, start)
            fence, lines, start = match[1], [], place
            language = match[2].split()[0] if match[2].split() else ""
        else:
            lines.append(line)
        place += len(ended)
    if fence:
        blocks.append((Code(code="\n".join(lines), language=language), start))
    else:
        _add_text(blocks, lines, start)
    return blocks


def _add_text(blocks: list[tuple[Block, int]], lines: list[str], start: int) -> None:
    if any(line.strip() for line in lines):
        blocks.append((Text(markdown="\n".join(lines)), start))


def chunks(markdown: str) -> list[Chunk]:
    """Split Markdown without fenced code into parts that can be laid out on their own.

    Text that is added at the end changes only the last chunk, or adds chunks. The one exception is
    the first piece of a table, which gets its `columns` when a second piece begins.
    """
    lines, found, at = markdown.split("\n"), [], 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        if _is_table(lines, at):
            end = _table_end(lines, at)
            found += _table(lines[at:end])
        elif _HEADING.match(lines[at]) or _RULE.match(lines[at]):
            end = at + 1
            found.append(Chunk(markdown=lines[at]))
        elif _ITEM.match(lines[at]):
            end = _list_end(lines, at)
            found += _list(lines[at:end])
        else:
            end = _paragraph_end(lines, at)
            found.append(Chunk(markdown="\n".join(lines[at:end])))
        at = end
    return found


def _is_table(lines: list[str], at: int) -> bool:
    """Return whether a table begins here (GitHub's Markdown, section 4.10)."""
    if at + 1 >= len(lines) or "|" not in lines[at] + lines[at + 1]:
        return False
    if not _DELIMITERS.fullmatch(lines[at + 1]) or lines[at].startswith("    "):
        return False
    return len(_cells(lines[at])) == len(_cells(lines[at + 1]))


def has_table(markdown: str) -> bool:
    """Return whether an answer has a table outside of code, at the start of lines."""
    for block in split(markdown):
        if isinstance(block, Text):
            lines = block.markdown.split("\n")
            if any(_is_table(lines, at) for at in range(len(lines))):
                return True
    return False


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|")
    if inner.endswith("|") and not inner.endswith("\\|"):
        inner = inner[:-1]
    return [cell.strip() for cell in _CELL_END.split(inner)]


def _table_end(lines: list[str], at: int) -> int:
    end = at + 2
    while end < len(lines) and lines[end].strip():
        line = lines[end]
        if any(begins.match(line) for begins in (_HEADING, _QUOTE, _ITEM, _RULE)):
            break
        end += 1
    return end


def _table(lines: list[str]) -> list[Chunk]:
    rows = lines[2:]
    if len(rows) <= TABLE_ROWS:
        return [Chunk(markdown="\n".join(lines))]
    # The widths are settled by the first piece, so that more rows never move those above.
    first = [_cells(line) for line in (lines[0], *rows[:TABLE_ROWS])]
    count = len(first[0])
    columns = tuple(
        max((row[at] for row in first if at < len(row)), key=len) for at in range(count)
    )
    empty = "| " * count + "|"
    pieces = [Chunk(markdown="\n".join(lines[: 2 + TABLE_ROWS]), columns=columns)]
    for start in range(TABLE_ROWS, len(rows), TABLE_ROWS):
        piece = [empty, lines[1], *rows[start : start + TABLE_ROWS]]
        pieces.append(Chunk(markdown="\n".join(piece), columns=columns, continues=True))
    return pieces


def _list_end(lines: list[str], at: int) -> int:
    """Return the end of a list: a blank line and then a line that is neither item nor indented."""
    end = at + 1
    while end < len(lines):
        line = lines[end]
        if _HEADING.match(line) or _RULE.match(line):
            break
        after_blank = not lines[end - 1].strip()
        if line.strip() and after_blank and not line.startswith("  ") and not _ITEM.match(line):
            break
        end += 1
    return end


def _list(lines: list[str]) -> list[Chunk]:
    head = _ITEM.match(lines[0])
    assert head is not None
    indent = head[1]
    places = [
        at
        for at, line in enumerate(lines)
        if (item := _ITEM.match(line)) is not None and len(item[1]) <= len(indent)
    ]
    pieces = []
    for start in range(0, len(places), LIST_ITEMS):
        end = places[start + LIST_ITEMS] if start + LIST_ITEMS < len(places) else len(lines)
        piece = lines[places[start] : end]
        if start and head[2]:  # the numbers go on, whatever the answer has
            number = int(head[2]) + start
            piece[0] = re.sub(r"\d+", str(number), piece[0], count=1)
        pieces.append(Chunk(markdown="\n".join(piece).rstrip("\n")))
    return pieces


def _paragraph_end(lines: list[str], at: int) -> int:
    indented = lines[at].startswith("    ")
    end = at + 1
    while end < len(lines):
        line = lines[end]
        if not line.strip():
            after = next((other for other in lines[end:] if other.strip()), "")
            if not (indented and after.startswith("    ")):
                break
        elif not indented:
            item = _ITEM.match(line)
            interrupts = item is not None and item[2] in (None, "1")
            if _HEADING.match(line) or (interrupts and not _QUOTE.match(lines[at])):
                break
        elif not line.startswith("    "):
            break
        end += 1
    return end
