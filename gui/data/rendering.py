"""Answers as HTML and as plain text, for the clipboard and for exports. No Qt here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from cogvlm2_lite.markdown import Node, parse

_MOST = 100_000
"""Characters that are parsed; more than the longest answer has."""
_EMPTY = ("br", "hr")
_BLOCKS = frozenset({
    "p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "blockquote", "pre", "table", "hr",
})  # fmt: skip


def to_html(markdown: str, *, mathml: bool = True) -> str:
    """Return an answer as HTML without scripts and without anything to load.

    mathml  formulas are MathML; else they stand as they were written, because most programs that
            take HTML from the clipboard show no MathML
    """
    return "".join(_html(node, mathml) for node in parse(markdown.strip(), _MOST))


def to_plain(markdown: str) -> str:
    """Return an answer as text: lists with their marks, tables with tabs, formulas as written."""
    return "\n\n".join(_blocks(parse(markdown.strip(), _MOST)))


def tables(markdown: str) -> list[list[list[str]]]:
    """Return the cells of each table of an answer, as plain text."""
    return [_rows(node) for node in _find_tables(parse(markdown.strip(), _MOST))]


def to_tsv(rows: Iterable[Iterable[str]]) -> str:
    """Return rows as lines with tabs between the cells, as spreadsheets paste them."""
    return "\n".join("\t".join(map(_one_line, row)) for row in rows)


# --- HTML ----------------------------------------------------------------------------------------


def _html(node: Node, mathml: bool) -> str:
    if isinstance(node, str):
        return escape(node)
    if "source" in node and not mathml:
        return escape(node["source"])
    tag = node["tag"]
    if tag in _EMPTY:
        return f"<{tag}>"
    inside = "".join(_html(child, mathml) for child in node["children"])
    if tag == "pre":
        return f"<pre><code>{inside}</code></pre>\n"
    end = "\n" if tag in _BLOCKS or tag in ("li", "tr") else ""
    if tag == "table":
        return f'<table border="1">{inside}</table>{end}'
    return f"<{tag}{_attributes(node)}>{inside}</{tag}>{end}"


def _attributes(node: dict[str, Any]) -> str:
    found = dict(node.get("math", {}))
    if "source" in node:
        found["alttext"] = node["source"]
    if node["tag"] == "a":
        found["href"] = node["href"]
    if node.get("start", 1) != 1:
        found["start"] = node["start"]
    if node.get("align"):
        found["style"] = f"text-align:{node['align']}"
    return "".join(f' {name}="{escape(str(value))}"' for name, value in found.items())


# --- plain text ----------------------------------------------------------------------------------


def _blocks(nodes: Iterable[Node]) -> Iterator[str]:
    """Yield the texts of blocks. Texts that stand between them, as in tight lists, are one each."""
    line: list[str] = []
    for node in nodes:
        if isinstance(node, str) or node["tag"] not in _BLOCKS:
            line.append(_text(node))
            continue
        if line:
            yield "".join(line)
            line = []
        yield _block(node)
    if line:
        yield "".join(line)


def _block(node: dict[str, Any]) -> str:
    children = node["children"]
    match node["tag"]:
        case "ul":
            return _list(children, ["-"] * len(children))
        case "ol":
            first = int(node.get("start", 1))
            return _list(children, [f"{first + place}." for place in range(len(children))])
        case "blockquote":
            inside = "\n\n".join(_blocks(children))
            return "\n".join(f"> {line}".rstrip() for line in inside.split("\n"))
        case "table":
            return to_tsv(_rows(node))
        case "pre":
            return "".join(map(_text, children)).removesuffix("\n")
        case "hr":
            return "---"
        case _:
            return "".join(map(_text, children))


def _list(items: list[Node], marks: list[str]) -> str:
    lines: list[str] = []
    for item, mark in zip(items, marks, strict=True):
        assert isinstance(item, dict)
        loose = any(isinstance(c, dict) and c["tag"] == "p" for c in item["children"])
        text = ("\n\n" if loose else "\n").join(_blocks(item["children"]))
        room = "\n" + " " * (len(mark) + 1)
        lines.append(f"{mark} " + text.replace("\n", room).replace(f"{room}\n", "\n\n"))
    return "\n".join(lines)


def _text(node: Node) -> str:
    if isinstance(node, str):
        return node
    if "source" in node:
        return str(node["source"])
    if node["tag"] == "br":
        return "\n"
    if node["tag"] in _BLOCKS:
        return _block(node)
    text = "".join(map(_text, node["children"]))
    if node["tag"] == "a" and node["href"] not in (text, f"mailto:{text}"):
        return f"{text} ({node['href']})"
    return text


def _find_tables(nodes: Iterable[Node]) -> Iterator[dict[str, Any]]:
    for node in nodes:
        if isinstance(node, dict):
            if node["tag"] == "table":
                yield node
            else:
                yield from _find_tables(node["children"])


def _rows(table: dict[str, Any]) -> list[list[str]]:
    return [
        ["".join(map(_text, cell["children"])) for cell in row["children"]]
        for part in table["children"]
        for row in part["children"]
    ]


def _one_line(cell: str) -> str:
    return " ".join(cell.split())
