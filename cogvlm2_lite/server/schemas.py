"""Leaves out of a JSON schema what answers can't be held to, as other servers do.

Programs generate schemas from their types, and rarely need each keyword: pydantic writes
uniqueItems for a set, and a format for a path. An answer matches the rest of the schema; what was
left out is reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_UNKNOWN = frozenset(
    {
        "not", "uniqueItems", "if", "then", "else", "contains", "minContains", "maxContains",
        "propertyNames", "dependentRequired", "dependentSchemas", "dependencies",
        "unevaluatedProperties", "unevaluatedItems",
    }
)  # fmt: skip
_FORMATS = frozenset(
    {
        "date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri",
    }
)  # fmt: skip
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions"})
"""Keywords whose values are schemas by name."""
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SCHEMAS = frozenset({"items", "additionalProperties", "additionalItems"})
_LOOKAROUND = re.compile(r"\(\?<?[=!]|\\[bB]|\\[1-9]")


def usable_schema(schema: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a schema that answers can be held to, and the keywords that were left out."""
    ignored: dict[str, None] = {}
    return _usable(schema, ignored), tuple(ignored)


def _usable(schema: Any, ignored: dict[str, None]) -> Any:
    if not isinstance(schema, Mapping):
        return schema  # true, false, or not a schema
    found: dict[str, Any] = {}
    for name, value in schema.items():
        if _left_out(name, value, schema):
            if value is not False:
                ignored[name] = None
        elif name in _NAMED and isinstance(value, Mapping):
            found[name] = {key: _usable(inner, ignored) for key, inner in value.items()}
        elif name == "oneOf" and isinstance(value, list) and "anyOf" not in schema:
            if not _disjoint(value, schema):
                ignored[name] = None
            found["anyOf"] = [_usable(inner, ignored) for inner in value]
        elif name in _LISTS and isinstance(value, list):
            found[name] = [_usable(inner, ignored) for inner in value]
        elif name in _SCHEMAS:
            found[name] = _usable(value, ignored)
        else:
            found[name] = value
    return found


def _left_out(name: str, value: Any, schema: Mapping[str, Any]) -> bool:
    """Return whether llguidance can't follow a keyword."""
    if name in ("minProperties", "maxProperties"):
        properties, required = schema.get("properties"), schema.get("required")
        return not set(_names(properties)) <= set(_names(required))
    if name == "format":
        return isinstance(value, str) and value not in _FORMATS
    if name == "pattern":
        return isinstance(value, str) and _LOOKAROUND.search(value) is not None
    return name in _UNKNOWN


def _names(values: Any) -> Iterable[str]:
    return [one for one in values if isinstance(one, str)] if isinstance(values, Iterable) else ()


def _disjoint(choices: list[Any], schema: Mapping[str, Any]) -> bool:
    """Return whether no value can match two of the choices, as far as it is easily seen."""
    if "discriminator" in schema or len(choices) < 2:
        return True
    kinds = [one.get("type") if isinstance(one, Mapping) else None for one in choices]
    names = ["number" if kind == "integer" else kind for kind in kinds]
    return all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
