"""Parses the Markdown of answers into trees, from which the page builds elements.

HTML is never generated. The tokens of markdown-it become plain values, and the page creates
elements only for tags in its own list. HTML in an answer stays text, pictures become links because
the page loads nothing, and links go to http(s) or mail addresses only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from cogvlm2_lite.server.api_errors import ApiError
from cogvlm2_lite.server.bodies import MarkdownRequest
from cogvlm2_lite.server.validation import read_body
from cogvlm2_lite.text import Text

Node = str | dict[str, Any]
"""A text, or {"tag", "children"} and possibly "href", "start", "align" or "language"."""

MOST_LETTERS = 40_000
_LONGEST = 20_000  # characters: a malicious text of this length takes a second
_SCHEMES = ("http://", "https://", "mailto:")
_BARE = re.compile(r"(?<![\w/])https?://[\w!#$%&'()*+,./:;=?@\[\]~-]+", re.ASCII | re.IGNORECASE)
"""A link without markup. ASCII only: Chinese text continues without a space."""
_PARSER = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(
    ["table", "strikethrough"]
)


def read_texts(values: dict[str, Any]) -> list[str]:
    """Return the texts in the body of /page/markdown. Raises ApiError for an invalid body."""
    texts = read_body(values, MarkdownRequest).texts
    if sum(map(len, texts)) > MOST_LETTERS:
        raise ApiError(
            413, Text("The texts have more than {most} characters.", most=MOST_LETTERS), "too_large"
        )
    return texts


def parse(text: str) -> list[Node]:
    """Return the nodes of a text; a very long text is not parsed."""
    if len(text) > _LONGEST:
        return [{"tag": "p", "children": [text]}]
    return _children(SyntaxTreeNode(_PARSER.parse(text)))


def _children(node: SyntaxTreeNode) -> list[Node]:
    return [made for child in node.children for made in _nodes(child)]


def _nodes(node: SyntaxTreeNode) -> Iterator[Node]:
    """Yield the nodes of a token: none, one, or those of its children."""
    match node.type:
        case "text":
            yield from _find_links(node.content)
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
            yield _link(str(node.attrs.get("href", "")), _without_links(_children(node)))
        case "inline":
            yield from _children(node)
        case "paragraph" if node.hidden:  # in a list without empty lines
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


def _find_links(text: str) -> Iterator[Node]:
    """Yield a text in parts: its web addresses become links, without the punctuation after them."""
    end = 0
    for found in _BARE.finditer(text):
        address = found[0].rstrip(".,:;!?'*_~")
        while address.endswith((")", "]")) and address.count(address[-1]) > address.count(
            "(" if address[-1] == ")" else "["
        ):
            address = address[:-1].rstrip(".,:;!?'*_~")
        if not address.partition("://")[2]:
            continue
        if found.start() > end:
            yield text[end : found.start()]
        yield {"tag": "a", "href": address, "children": [address]}
        end = found.start() + len(address)
    if end < len(text):
        yield text[end:]


def _without_links(nodes: list[Node]) -> list[Node]:
    """Replace links by their texts: a link can't contain another one."""
    plain: list[Node] = []
    for node in nodes:
        if isinstance(node, str):
            plain.append(node)
        elif node["tag"] == "a":
            plain += node["children"]
        else:
            plain.append({**node, "children": _without_links(node["children"])})
    return plain


def _link(address: str, children: list[Node]) -> Node:
    """Return a link; plain text if its address is not http(s) or mail."""
    shown = address if children in ([], [""]) else None
    children = [shown] if shown else children
    if not address.lower().startswith(_SCHEMES):
        return {"tag": "span", "children": children}
    return {"tag": "a", "href": address, "children": children}
