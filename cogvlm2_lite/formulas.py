r"""Finds LaTeX formulas in Markdown, and converts them to MathML.

Formulas are written as \( \), \[ \], $ $, $$ $$ or \begin{align} \end{align}. A dollar sign is also
the sign of prices, and \( is also an escaped parenthesis in Markdown, so what is inside decides.
MathML is what browsers show without a library. latex2mathml converts to it; without that package,
and for LaTeX that it does not know, a formula is shown as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from html import unescape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


@dataclass(frozen=True, kw_only=True)
class Formula:
    """A formula in a text.

    source   as it was written, with its delimiters
    latex    between the delimiters
    display  on a line of its own
    closed   has an end; an answer that is still being written may lack it
    """

    source: str
    latex: str
    display: bool
    closed: bool = True


@dataclass(frozen=True, kw_only=True)
class MathElement:
    """An element of MathML. Its tag is in TAGS and its attributes are in ATTRIBUTES."""

    tag: str
    attributes: dict[str, str]
    children: tuple[MathElement | str, ...]


TAGS = frozenset({
    "math", "mrow", "mi", "mn", "mo", "ms", "mtext", "mspace", "mfrac", "msqrt", "mroot", "mstyle",
    "merror", "mpadded", "mphantom", "menclose", "msub", "msup", "msubsup", "munder", "mover",
    "munderover", "mmultiscripts", "mprescripts", "none", "mtable", "mtr", "mtd",
})  # fmt: skip
_WORD = re.compile(r"[a-z-]{1,20}( [a-z-]{1,20}){0,5}")
_LENGTH = re.compile(
    r"[+-]?(\d{1,2}(\.\d{0,4})?|\.\d{1,4})(em|ex|pt|px|%)?"
)  # short: it must not hide other texts
ATTRIBUTES = {
    **dict.fromkeys(("mathvariant", "stretchy", "fence", "form", "separator", "accent",
                     "accentunder", "displaystyle", "columnalign", "notation"), _WORD),
    **dict.fromkeys(("width", "height", "depth", "lspace", "rspace", "voffset", "minsize",
                     "maxsize", "linethickness", "mathsize", "scriptlevel"), _LENGTH),
    "columnspacing": re.compile(r"\d(\.\d{1,4})?em( \dem)?"),
}  # fmt: skip
"""What attributes may have as a value. No colors: they are unreadable on some backgrounds."""

_LONGEST = 4000  # characters of a formula
_DEEPEST = 60  # elements in each other
_SHORT = 500  # characters of a formula between single dollar signs
_INSIDE = {
    r"\(": re.compile(r"(?:[^\\]|\\[^()])*+", re.DOTALL),
    r"\[": re.compile(r"(?:[^\\]|\\[^\[\]])*+", re.DOTALL),
    "$$": re.compile(r"(?:[^\\$]|\\.|\$(?!\$))*+", re.DOTALL),
}
"""What may be between a delimiter and its end: anything but another delimiter of the kind."""
_SPECIAL = re.compile(r"\\.|[{}$`]|\n\n", re.DOTALL)
_DEEPEST_BRACES = 20
_ENVIRONMENTS = {
    "equation": "", "displaymath": "", "math": "", "multline": "matrix", "gather": "matrix",
    "gathered": "matrix", "align": "align*", "aligned": "split", "alignat": "align*",
    "alignedat": "split", "flalign": "align*", "eqnarray": "split", "split": "split",
    "cases": "cases", "dcases": "cases", "array": "array", "subarray": "array",
    "matrix": "matrix", "pmatrix": "pmatrix", "bmatrix": "bmatrix", "Bmatrix": "Bmatrix",
    "vmatrix": "vmatrix", "Vmatrix": "Vmatrix", "smallmatrix": "smallmatrix",
}  # fmt: skip
"""The environments of formulas, and those of latex2mathml that look the same; "": none."""
_DISPLAYED = re.compile(
    r"\\begin\{((?:equation|displaymath|multline|gather|align|alignat|flalign|eqnarray)\*?)\}"
)
_ENVIRONMENT = re.compile(r"\\(begin|end)\s*\{([A-Za-z]+)(\*?)\}(\{\d{1,2}\})?")
_COMMAND = re.compile(
    r"\\(?:text\w*|mathrm|mathbf|mathit|mathsf|mbox|operatorname\*?|label|tag|begin|end)\s*\{[^{}]*\}"
    r"|\\[A-Za-z]+|\\."
)
_PROSE = re.compile(r"[A-Za-z]{2,}[,;:.]?\s+[A-Za-z]{2,}|^\s*(and|or)\s*$|[,。，；：、]\s*[一-鿿]")
_UNKNOWN = re.compile(r"\\[A-Za-z]+\*?")
_LIMITS = frozenset(
    {"lim", "max", "min", "sup", "inf", "limsup", "liminf", "argmax", "argmin", "gcd", "det", "Pr"}
)


def formula_at(text: str, start: int) -> Formula | None:
    """Return the formula that begins at a position of a text, or None. It may lack its end."""
    if begun := _DISPLAYED.match(text, start):
        closing = f"\\end{{{begun[1]}}}"
        end = text.find(closing, begun.end())
        if end < 0:
            return Formula(source=text[start:], latex="", display=True, closed=False)
        source = text[start : end + len(closing)]
        return Formula(source=source, latex=source, display=True)
    opening = text[start : start + 2]
    if opening not in _INSIDE:
        return _between_dollars(text, start) if opening[:1] == "$" else None
    begin = start + 2
    if opening == "$$" and "$" in (text[begin : begin + 1], text[max(0, start - 1) : start]):
        return None  # "$$$"
    display = opening != r"\("
    inside = _INSIDE[opening].match(text, begin)
    end = inside.end() if inside else begin
    if end == len(text):
        if not _looks_like_latex(text[begin : begin + _SHORT]):
            return None
        return Formula(source=text[start:], latex="", display=display, closed=False)
    latex = text[begin:end].strip()
    if not latex or text.startswith(opening, end) != (opening == "$$") or _is_prose(latex):
        return None
    if opening == "$$" and latex[0] in ").,;:":
        return None  # "moderate ($$), expensive ($$$)"
    return Formula(source=text[start : end + 2], latex=latex, display=display)


def _looks_like_latex(text: str) -> bool:
    return re.search(r"\\[A-Za-z]|[\^_=]", text) is not None and not _is_prose(text)


def _between_dollars(text: str, start: int) -> Formula | None:
    """Return a formula between single dollar signs, or None for prices and names of variables."""
    before, first = text[max(0, start - 1) : start], text[start + 1 : start + 2]
    if first == "" or first.isspace() or first in "$).,;:!?" or before in ("$", "\\"):
        return None
    depth = at = 0
    for found in _SPECIAL.finditer(text, start + 1, start + _SHORT):
        match found[0]:
            case "{":
                depth += 1
            case "}":
                depth -= 1
            case "$" if depth == 0:
                at = found.start()
                break
            case "`" | "\n\n":
                return None
        if not 0 <= depth <= _DEEPEST_BRACES:
            return None
    if not at:
        return None
    latex, after = text[start + 1 : at], text[at + 1 : at + 2]
    if latex[-1].isspace() or after == "$" or _is_prose(latex) or _is_price(latex, before, after):
        return None
    return Formula(source=text[start : at + 1], latex=latex, display=False)


def _is_price(latex: str, before: str, after: str) -> bool:
    """Return whether the dollar signs around a text look like those of prices."""
    plain = _COMMAND.sub("+", latex)
    letters = re.search(r"[^\W\d_]", plain) is not None
    if before.isascii() and before.isalnum() and (before.isalpha() or not letters):
        return True  # "US$5"
    if after.isdigit():
        return True  # "$5-$6"
    if (
        after.isascii()
        and after.isalpha()
        and not re.fullmatch(r"[A-Za-z]|.*[\\^_].*", latex, re.DOTALL)
    ):
        return True  # "$HOME/$USER", but not "the $n$th"
    if latex[0].isdigit():  # "$5 per kg", "$5 (x$"
        words = re.search(r"[^\W\d_]{2,}|\n", plain) is not None
        return words or latex.count("(") != latex.count(")")
    chinese = re.search(r"[一-鿿]", plain) is not None
    return chinese and not re.search(r"[\\=^]", latex)


def _is_prose(latex: str) -> bool:
    return _PROSE.search(_COMMAND.sub("+", latex)) is not None


# --- MathML --------------------------------------------------------------------------------------


@lru_cache(maxsize=2048)  # a growing answer is converted again and again
def to_mathml(formula: Formula) -> MathElement | None:
    """Return the element `math` of a formula, or None if it can't be shown."""
    if not formula.closed or len(formula.latex) > _LONGEST or not _is_balanced(formula.latex):
        return None
    try:
        from latex2mathml.converter import convert_to_element

        latex = _rewritten(formula.latex)
        display = "block" if formula.display else "inline"
        root = convert_to_element(latex, display=display)
        made = _element(root, formula.display)
    except Exception:  # noqa: BLE001 - the package raises any kind; the source is shown instead
        return None
    return made if any(_texts(made)) else None


def _rewritten(latex: str) -> str:
    """Return LaTeX in the words of latex2mathml. Raises ValueError for unknown environments."""

    def environment(found: re.Match[str]) -> str:
        known = _ENVIRONMENTS.get(found[2])
        if known is None:
            raise ValueError(found[0])
        argument = "" if found[2] in ("alignat", "alignedat") else found[4] or ""
        return f"\\{found[1]}{{{known}}}{argument}" if known else ""

    latex = re.sub(r"\\(label|nonumber|notag|displaylimits)\b(\{[^{}]*\})?", "", latex)
    latex = re.sub(r"\\\\\s*\[[\d.]+\s*[a-z]{2}\]", r"\\\\", latex)  # a line break with a distance
    latex = _ENVIRONMENT.sub(environment, latex).strip()
    if "\\\\" in latex and "\\begin" not in latex:
        form = "split" if re.search(r"(?<!\\)&", latex) else "matrix"
        latex = f"\\begin{{{form}}}{latex}\\end{{{form}}}"
    return latex


def _is_balanced(latex: str) -> bool:
    depth = 0
    for found in re.finditer(r"\\.|[{}]", latex, re.DOTALL):
        depth += (found[0] == "{") - (found[0] == "}")
        if depth < 0:
            return False
    return depth == 0


def _element(found: Element, display: bool, depth: int = 0) -> MathElement:
    """Return an element of latex2mathml as ours. Raises ValueError for what must not be shown."""
    if depth > _DEEPEST or found.tag not in TAGS:
        raise ValueError(found.tag)
    attributes = {
        name: value
        for name, value in found.attrib.items()
        if name in ATTRIBUTES and ATTRIBUTES[name].fullmatch(value)
    }
    raw = found.text or ""
    text = unescape(raw)
    if _UNKNOWN.fullmatch(text) or (found.tag == "mi" and raw == "&"):
        raise ValueError(text)
    if found.tag == "mi" and raw.startswith("&") and text.isascii() and text.isalpha():
        attributes["mathvariant"] = "normal"  # \mathrm of one letter
    if raw == "&#x0007E;":
        text = "\u223c"  # \sim
    children: list[MathElement | str] = [text] if text else []
    children += [_element(child, display, depth + 1) for child in found]
    tag = found.tag
    if tag == "math":
        attributes["display"] = "block" if display else "inline"
    elif tag == "msub" and display and found[0].text in _LIMITS:
        tag = "munder"
    return MathElement(tag=tag, attributes=attributes, children=tuple(children))


def _texts(element: MathElement) -> Iterator[str]:
    for child in element.children:
        if isinstance(child, str):
            yield child
        else:
            yield from _texts(child)
