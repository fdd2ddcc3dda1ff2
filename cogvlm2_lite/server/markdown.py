"""Markdown of answers, for the page: parsed here, built there from a short list of elements.

No HTML is written at any point. markdown-it gives tokens, these become plain values, and the page
makes an element of each tag that it knows and sets the rest as text. HTML in an answer stays text,
pictures become links, for the page loads nothing, and links go to the web or to mail only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from cogvlm2_lite.server.api_errors import ApiError
from cogvlm2_lite.server.bodies import MarkdownRequest
from cogvlm2_lite.server.validation import read_body
from cogvlm2_lite.text import Text

Node = str | dict[str, Any]
"""A text, or {"tag", "children"} with "href", "start", "align" or "language" beside them."""

MOST_LETTERS = 40_000
_LONGEST = 20_000  # letters that are parsed: one made to be hard takes a second
_SCHEMES = ("http://", "https://", "mailto:")
_PARSER = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(
    ["table", "strikethrough"]
)


def read_texts(values: dict[str, Any]) -> list[str]:
    """Read the body of /page/markdown. Raises ApiError for what is no list of texts."""
    texts = read_body(values, MarkdownRequest).texts
    if sum(map(len, texts)) > MOST_LETTERS:
        raise ApiError(
            413, Text("The texts have more than {most} characters.", most=MOST_LETTERS), "too_large"
        )
    return texts


def parse(text: str) -> list[Node]:
    """Give the elements of a text; of a very long one, the text as it is."""
    if len(text) > _LONGEST:
        return [{"tag": "p", "children": [text]}]
    return _children(SyntaxTreeNode(_PARSER.parse(text)))


def _children(node: SyntaxTreeNode) -> list[Node]:
    return [made for child in node.children for made in _nodes(child)]


def _nodes(node: SyntaxTreeNode) -> Iterator[Node]:
    """Give what a token becomes: nothing, one node, or its children alone."""
    match node.type:
        case "text":
            yield node.content
        case "softbreak" | "hardbreak":
            yield {"tag": "br", "children": []}
        case "code_inline":
            yield {"tag": "code", "children": [node.content]}
        case "fence" | "code_block":
            language = node.info.split()[0][:30] if node.info.split() else ""
            yield {"tag": "pre", "language": language, "children": [node.content]}
        case "image":
            yield _link(str(node.attrs.get("src", "")), [node.content])
        case "link":
            yield _link(str(node.attrs.get("href", "")), _children(node))
        case "inline":
            yield from _children(node)
        case "paragraph" if node.hidden:  # of a list without empty lines
            yield from _children(node)
        case "hr":
            yield {"tag": "hr", "children": []}
        case "ordered_list":
            yield {"tag": "ol", "start": node.attrs.get("start", 1), "children": _children(node)}
        case "th" | "td":
            style = str(node.attrs.get("style", ""))
            align = style.removeprefix("text-align:")
            yield {"tag": node.tag, "align": align, "children": _children(node)}
        case _:
            yield {"tag": node.tag, "children": _children(node)}


def _link(address: str, children: list[Node]) -> Node:
    """Give a link that shows where it goes; text alone where it goes nowhere sensible."""
    shown = address if children in ([], [""]) else None
    children = [shown] if shown else children
    if not address.lower().startswith(_SCHEMES):
        return {"tag": "span", "children": children}
    return {"tag": "a", "href": address, "children": children}
