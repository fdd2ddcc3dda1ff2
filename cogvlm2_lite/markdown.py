"""Parses the Markdown of answers into trees, from which the chat page and the window make elements.

The tokens of markdown-it become plain values, and the chat page creates elements only for tags in
its own list. HTML in an answer stays text, pictures become links because nothing is loaded, and
links go to http(s) or mail addresses only. Formulas become MathML; one that can't be shown becomes
a code with its source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.tree import SyntaxTreeNode

from cogvlm2_lite.formulas import Formula, MathElement, formula_at, to_mathml

Node = str | dict[str, Any]
"""A text, or {"tag", "children"} and possibly "href", "start", "align" or "language".

An element of MathML has "math", its attributes; `math` itself also has "source", the LaTeX.
"""

_LONGEST = 20_000  # characters: a malicious text of this length takes a second
_SCHEMES = ("http://", "https://", "mailto:")
_BARE = re.compile(r"(?<![\w/])https?://[\w!#$%&'()*+,./:;=?@\[\]~-]+", re.ASCII | re.IGNORECASE)
"""A link without markup. ASCII only: Chinese text continues without a space."""
_MOST_FORMULA_LINES = 200
_ENDS = re.compile(r"\$\$|\\\]|\\end\{")


def _formula_block(state: StateBlock, begin: int, end: int, silent: bool) -> bool:
    """Read a formula that begins a line and ends one: no line of it is a list or a heading."""
    if state.sCount[begin] - state.blkIndent >= 4:  # a block of code
        return False
    start = state.bMarks[begin] + state.tShift[begin]
    if not state.src.startswith(("$$", "\\[", "\\begin{"), start):
        return False
    lines: list[str] = []
    paragraph: list[str] | None = None
    formula = None
    for line in range(begin, min(end, begin + _MOST_FORMULA_LINES)):
        empty = state.isEmpty(line)
        if not empty and state.sCount[line] < state.blkIndent:
            break  # the end of the list item
        if empty and paragraph is None:
            paragraph = lines.copy()
        lines.append(state.getLines(line, line + 1, state.blkIndent, False).lstrip())
        if not _ENDS.search(lines[-1], 0 if len(lines) > 1 else 2):
            continue
        formula = formula_at("\n".join(lines), 0)
        if formula is None:
            return False
        if formula.closed:
            break
    if formula is None or not formula.closed:
        lines = lines if paragraph is None else paragraph
        formula = formula_at("\n".join(lines), 0)
    if formula is None or not formula.display:
        return False
    after = "\n".join(lines)[len(formula.source) :].strip()
    if after.strip(".,;:。，；："):
        return False  # the paragraph goes on; _formula_in_line reads it
    if silent:
        return True
    token = state.push("formula_block", "", 0)
    token.meta = {"formula": formula, "after": after}
    token.map = [begin, begin + len(lines)]
    state.line = begin + len(lines)
    return True


def _formula_in_line(state: StateInline, silent: bool) -> bool:
    """Read a formula in a text. It is before the rule of escapes, which drops the "\\" of "\\("."""
    if state.src[state.pos] not in "\\$":
        return False
    formula = formula_at(state.src[: state.posMax], state.pos)
    source = formula.source if formula else ""
    if formula is None and state.src.startswith((r"\(", r"\["), state.pos) and _has_no_end(state):
        source = state.src[state.pos : state.pos + 2]  # not an escape: it has no other end either
    if not source:
        return False
    if not silent:
        if formula:
            state.push("formula", "", 0).meta = {"formula": formula, "after": ""}
        else:
            state.pending += source
    state.pos += len(source)
    return True


def _has_no_end(state: StateInline) -> bool:
    closing = r"\)" if state.src[state.pos + 1] == "(" else r"\]"
    return closing not in state.src[state.pos : state.posMax]


_PARSER = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(
    ["table", "strikethrough"]
)
_PARSER.inline.ruler.before("escape", "formula", _formula_in_line)
_PARSER.block.ruler.before(
    "fence", "formula", _formula_block, {"alt": ["paragraph", "reference", "blockquote", "list"]}
)


def parse(text: str, most: int = _LONGEST) -> list[Node]:
    """Return the nodes of a text; one of more than `most` characters is not parsed."""
    if len(text) > most:
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
        case "formula":
            yield _formula(node.meta["formula"])
        case "formula_block":
            children = [_formula(node.meta["formula"]), node.meta["after"]]
            yield {"tag": "p", "children": [child for child in children if child]}
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


def _formula(formula: Formula) -> Node:
    made = to_mathml(formula)
    if made is None:
        return {"tag": "code", "children": [formula.source]}
    return {**_math(made), "source": formula.source}


def _math(element: MathElement) -> dict[str, Any]:
    children = [one if isinstance(one, str) else _math(one) for one in element.children]
    return {"tag": element.tag, "math": element.attributes, "children": children}


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
