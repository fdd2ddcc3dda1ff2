"""Calls of functions: the schema of an answer that is a call, and the call in its text.

If only one function can be called, the answer is its arguments. Of several ones, the answer also
has the name: {"name": "f", "arguments": {...}}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*(?P<name>"(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*')
_VALUES = frozenset({"const", "enum", "default", "examples"})
"""Keywords whose values are no schemas, whatever they look like."""
_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions"})
"""Keywords whose values are schemas by name, which may be the name of a keyword."""
_END = re.compile(r"[\s}]*\Z")


def call_schema(functions: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the schema of an answer that calls one of the functions.

    functions  the schemas of their arguments by name; at least one
    """
    if len(functions) == 1:
        [schema] = functions.values()
        return dict(schema)
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": name},
                "arguments": _moved(schema, f"#/anyOf/{number}/properties/arguments"),
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for number, (name, schema) in enumerate(functions.items())
    ]
    return {"anyOf": calls}


def _moved(schema: Any, place: str) -> Any:
    """Return a schema whose references to itself hold at another place of a larger one."""
    if isinstance(schema, list):
        return [_moved(one, place) for one in schema]
    if not isinstance(schema, Mapping) or isinstance(schema.get("$id"), str):
        return schema  # references inside a schema with an address count from there
    return {name: _moved_keyword(name, value, place) for name, value in schema.items()}


def _moved_keyword(name: str, value: Any, place: str) -> Any:
    if name == "$ref" and isinstance(value, str) and re.match(r"#(/|\Z)", value):
        return place + value[1:]
    if name in _BY_NAME and isinstance(value, Mapping):
        return {key: _moved(one, place) for key, one in value.items()}
    return value if name in _VALUES else _moved(value, place)


class CallReader:
    """Finds the call in the text of an answer, piece by piece.

    name       of the function; "" until it is known
    arguments  the JSON text of its arguments so far
    """

    def __init__(self, functions: Sequence[str]) -> None:
        self._wrapped = len(functions) > 1
        self.name = "" if self._wrapped else functions[0]
        self.arguments = ""
        self._held = ""

    def push(self, text: str) -> str:
        """Add a piece of the answer; return what it adds to the arguments."""
        if not self._wrapped:
            return self._add(text)
        self._held += text
        if not self.name:
            head = _HEAD.match(self._held)
            if head is None:
                return ""
            self.name = json.loads(head["name"])
            self._held = self._held[head.end() :]
        # The last brace ends the object around the arguments, and is not known before the end.
        end = _END.search(self._held)
        assert end is not None
        piece, self._held = self._held[: end.start()], end[0]
        return self._add(piece)

    def finish(self, *, complete: bool) -> str:
        """Return what the end of the answer adds to the arguments; not complete: it was cut off."""
        held, self._held = self._held.rstrip(), ""
        if not self.name:
            return ""
        return self._add(held.removesuffix("}").rstrip() if complete and self._wrapped else held)

    def _add(self, text: str) -> str:
        if not self.arguments:
            text = text.lstrip()
        self.arguments += text
        return text
