"""Reads Python list literals without evaluating anything.

Benchmark files have lists of answers, options and pictures as text: "['one', 'two']". The reference
evaluates such a cell as code. Here only the tokens of a list literal are allowed, and nesting and
length are bounded before Python's own literal parser, which crashes on deep nesting, sees them.
"""

from __future__ import annotations

import ast
import re
import warnings

_MOST_CHARACTERS = 100_000
_MOST_DEPTH = 20
_TOKEN = re.compile(
    r"""\s*+(?:
        (?P<opening>[\[(]) | (?P<closing>[\])]) | ,
        | (?P<value>
            '(?:[^'\\\n]|\\.)*+' | "(?:[^"\\\n]|\\.)*+"
            | [-+]?(?:\d[\d_]{0,300}(?:\.\d{0,300})?|\.\d{1,300})(?:[eE][-+]?\d{1,4})?
            | None | True | False
        )
    )\s*+""",
    re.VERBOSE | re.DOTALL,
)


def list_of_texts(text: str) -> tuple[str, ...] | None:
    """Return the items of a list literal as texts; None if the text is no such literal."""
    stripped = text.strip()
    if not (stripped.startswith("[") and stripped.endswith("]")) or not _is_plain(stripped):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" and the like in a text
            items = ast.literal_eval(stripped)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return tuple(str(item) for item in items) if isinstance(items, list) else None


def _is_plain(text: str) -> bool:
    """Return whether a text has only tokens of list literals, and few levels of brackets."""
    if len(text) > _MOST_CHARACTERS:
        return False
    place = depth = 0
    after_value = False
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None or (after_value and token["value"]):
            return False
        after_value = token["value"] is not None
        depth += bool(token["opening"]) - bool(token["closing"])
        if depth > _MOST_DEPTH:
            return False
        place = token.end()
    return True
