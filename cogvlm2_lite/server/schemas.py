"""Makes a JSON schema one that answers can be held to, as other servers do.

Programs generate schemas from their types, and rarely need each keyword: pydantic writes
uniqueItems for a set, and a format for a path. An answer matches the rest of the schema; what was
left out is reported.

A schema without additionalProperties allows fields of any name. A program that lists properties
never wants others, and a small model that may write them often does so until its answer is cut
off. So an answer has only the fields that the schema lists. Whole numbers without bounds get those
that every JSON reader has without loss. A schema that has properties or items, but no type, allows
any number; it is read as that of an object or a list. All these answers also match the schema as it
was sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

_UNKNOWN = frozenset(
    {
        "not", "uniqueItems", "if", "then", "else", "contains", "minContains", "maxContains",
        "propertyNames", "dependentRequired", "dependentSchemas", "dependencies",
    }
)  # fmt: skip
_UNLESS_FALSE = frozenset({"not", "uniqueItems"})
"""Keywords that allow everything if they are false."""
_UNEVALUATED = {"unevaluatedProperties": "additionalProperties", "unevaluatedItems": "items"}
"""Keywords, and those with the same meaning in a schema that no other schema is combined with."""
_FORMATS = frozenset(
    {
        "date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri",
    }
)  # fmt: skip
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions"})
"""Keywords whose values are schemas by name."""
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SCHEMAS = frozenset({"items", "additionalProperties", "additionalItems"})
_OBJECTS = frozenset({"additionalProperties", "patternProperties", "minProperties"})
_NUMBERS = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "enum", "const"}
)
_FIELDS = frozenset({"properties", "required"})
_COMBINED = frozenset({"$ref", "anyOf", "oneOf", "allOf"})
_TYPED = _COMBINED | {"type", "enum", "const"}
_MOST = 2**53 - 1
"""The largest whole number that a reader of JSON with 64-bit floats has without loss."""
_LOOKAROUND = re.compile(r"\(\?<?[=!]|\\[bB]|\\[1-9]")


def usable_schema(schema: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a schema that answers can be held to, and the keywords that were left out."""
    ignored: dict[str, None] = {}
    narrow = not any(_is_combined(one) for one in _all_schemas(schema))
    return _usable(schema, ignored, narrow=narrow), tuple(ignored)


def _usable(schema: Any, ignored: dict[str, None], *, narrow: bool) -> Any:
    if not isinstance(schema, Mapping):
        return schema  # true, false, or not a schema
    inner_of = partial(_usable, ignored=ignored, narrow=narrow)
    found: dict[str, Any] = {}
    for name, value in schema.items():
        if name in _UNEVALUATED and not _COMBINED & schema.keys():
            if _UNEVALUATED[name] not in schema:
                found[_UNEVALUATED[name]] = inner_of(value)
        elif _left_out(name, value, schema):
            if value is not False or name not in _UNLESS_FALSE:
                ignored[name] = None
        elif name in _NAMED and isinstance(value, Mapping):
            found[name] = {key: inner_of(inner) for key, inner in value.items()}
        elif name == "oneOf" and isinstance(value, list) and "anyOf" not in schema:
            if not _disjoint(value, schema):
                ignored[name] = None
            found["anyOf"] = [inner_of(inner) for inner in value]
        elif name in _LISTS and isinstance(value, list):
            found[name] = [inner_of(inner) for inner in value]
        elif name in _SCHEMAS:
            found[name] = inner_of(value)
        else:
            found[name] = value
    if kind := _implied_type(schema):
        found["type"] = kind
    if narrow:
        if _is_open(schema):
            found["additionalProperties"] = False
        kinds = set(_names(schema.get("type")))
        whole = "integer" in kinds and "number" not in kinds
        if whole and not (_NUMBERS | _COMBINED) & schema.keys():
            found["minimum"], found["maximum"] = -_MOST, _MOST
    return found


def _implied_type(schema: Mapping[str, Any]) -> str | None:
    """Return the type that a schema without a type means; None if it has one, or means none."""
    if _TYPED & schema.keys():
        return None
    if isinstance(schema.get("properties"), Mapping):
        return "object"
    return "array" if {"items", "prefixItems"} & schema.keys() else None


def _is_open(schema: Mapping[str, Any]) -> bool:
    """Return whether a schema lists all the properties that it needs, and allows any others."""
    properties, required = schema.get("properties"), schema.get("required")
    return (
        isinstance(properties, Mapping)
        and bool(properties)
        and set(_names(required)) <= properties.keys()
        and not _OBJECTS & schema.keys()
    )


def _is_combined(schema: Mapping[str, Any]) -> bool:
    """Return whether a value must match several schemas, which may list different properties."""
    parts = schema.get("allOf")
    several = isinstance(parts, list) and len(parts) > 1
    combined = bool(_FIELDS & schema.keys() and _COMBINED & schema.keys())
    return several or (combined and not _only_requires(schema))


def _only_requires(schema: Mapping[str, Any]) -> bool:
    """Return whether the alternatives of a schema only require some of its properties."""
    if {"$ref", "allOf"} & schema.keys() or not isinstance(schema.get("properties"), Mapping):
        return False
    alternatives = [
        one
        for name in ("anyOf", "oneOf")
        if isinstance(listed := schema.get(name), list)
        for one in listed
    ]
    return all(
        isinstance(one, Mapping)
        and one.keys() <= {"required", "title", "description"}
        and set(_names(one.get("required"))) <= schema["properties"].keys()
        for one in alternatives
    )


def _all_schemas(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Iterate over a schema and all schemas in it."""
    if not isinstance(schema, Mapping):
        return
    yield schema
    for name, value in schema.items():
        if name in _NAMED and isinstance(value, Mapping):
            inner: Iterable[Any] = value.values()
        elif name in _LISTS and isinstance(value, list):
            inner = value
        else:
            inner = [value] if name in _SCHEMAS else []
        for one in inner:
            yield from _all_schemas(one)


def _left_out(name: str, value: Any, schema: Mapping[str, Any]) -> bool:
    """Return whether llguidance can't follow a keyword."""
    if name in ("minProperties", "maxProperties"):
        properties, required = schema.get("properties"), schema.get("required")
        return not set(_names(properties)) <= set(_names(required))
    if name == "format":
        return isinstance(value, str) and value not in _FORMATS
    if name == "pattern":
        return isinstance(value, str) and _LOOKAROUND.search(value) is not None
    return name in _UNKNOWN or name in _UNEVALUATED


def _names(values: Any) -> Iterable[str]:
    if isinstance(values, str):
        return [values]
    return [one for one in values if isinstance(one, str)] if isinstance(values, Iterable) else ()


def _disjoint(choices: list[Any], schema: Mapping[str, Any]) -> bool:
    """Return whether no value can match two of the choices, as far as it is easily seen."""
    if "discriminator" in schema or len(choices) < 2:
        return True
    schemas = [one for one in choices if isinstance(one, Mapping)]
    if len(schemas) < len(choices):
        return False
    if _differ([_type(one) for one in schemas]) or _differ([_constants(one) for one in schemas]):
        return True
    required = [set(_names(one.get("required"))) for one in schemas]
    return any(
        _differ([_constants(_property(one, name)) for one in schemas])
        for name in set.intersection(*required)
    )


def _differ(values: list[frozenset[str]]) -> bool:
    """Return whether the sets are not empty, and no two of them have a common member."""
    return all(values) and len(frozenset.union(*values)) == sum(map(len, values))


def _type(schema: Mapping[str, Any]) -> frozenset[str]:
    """Return the types that a schema allows; empty for all."""
    names = _names(schema.get("type"))
    return frozenset("number" if name == "integer" else name for name in names)


def _constants(schema: Any) -> frozenset[str]:
    """Return the only values that a schema allows, as JSON; empty if there are others."""
    if not isinstance(schema, Mapping):
        return frozenset()
    if "const" in schema:
        return frozenset([json.dumps(schema["const"])])
    values = schema.get("enum")
    return frozenset(map(json.dumps, values)) if isinstance(values, list) else frozenset()


def _property(schema: Mapping[str, Any], name: str) -> Any:
    properties = schema.get("properties")
    return properties.get(name) if isinstance(properties, Mapping) else None
