"""Reads JSON into the types of bodies.py; what does not fit is an ApiError that names the field.

msgspec checks the values and reports where it stopped. The sentence is made from the type at that
place, so that a bound is stated once: in the type, for check, sentence and OpenAPI document.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, NoReturn, TypeVar

import msgspec
from msgspec import inspect

from cogvlm2_lite.server.api_errors import ApiError
from cogvlm2_lite.server.json_bounds import check_bounds
from cogvlm2_lite.text import Text, listed, marked

B = TypeVar("B", bound="Body")
_PLACE = re.compile(r" - at `\$([^`]*)`$")
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")
_GZIP = b"\x1f\x8b"
_LARGEST = 2**63 - 1
_MOST_SHOWN = 40
"""So many digits of a number are repeated in an error."""


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """An object that clients send. Unknown fields are rejected."""


class OpenBody(Body, frozen=True, kw_only=True):
    """An object that clients send. Unknown fields are ignored."""


class Part(OpenBody, frozen=True, kw_only=True, tag_field="type"):
    """An object with a type. Unknown fields are ignored."""


def unsupported(
    *values: object,
    code: str = "unsupported_parameter",
    why: Text = Text("is not supported by this server"),  # noqa: B008 - immutable
) -> msgspec.Meta:
    """Return the annotation of a field that this server does not support.

    values  those that mean the feature is not used; null always does
    """
    return msgspec.Meta(
        description="Not supported.",
        extra_json_schema={"enum": [None, *values]},
        extra={"code": code, "why": why},
    )


def words(template: str, **values: str) -> msgspec.Meta:
    """Return the annotation of a field with the words that errors use for it."""
    return msgspec.Meta(extra={"words": Text(template, **values)})


def read_json(body: bytes | bytearray) -> dict[str, Any]:
    """Return the JSON object in a request's body. Raises ApiError for anything else."""
    if body.startswith(_GZIP):
        text = Text("The body is compressed ({name}). Send it uncompressed.", name="gzip")
        raise ApiError(415, text, "wrong_content_encoding")
    check_bounds(body)
    try:
        decoded = body.decode("utf-8-sig")  # Windows programs begin UTF-8 with a byte order mark
    except UnicodeDecodeError:
        raise ApiError(400, "The body of the request is not UTF-8.") from None
    try:
        value = json.loads(
            decoded, parse_constant=_no_constant, parse_float=_read_number, parse_int=_read_int
        )
    except json.JSONDecodeError as error:
        raise ApiError(
            400,
            Text(
                "The body of the request is not JSON: see line {line}, column {column}.",
                line=error.lineno,
                column=error.colno,
            ),
        ) from None
    if not isinstance(value, dict):
        raise ApiError(400, "The body of the request must be a JSON object.")
    return value


def read_body(values: Mapping[str, Any], kind: type[B]) -> B:
    """Convert JSON values into a body. Raises ApiError that names the field at fault."""
    try:
        body = msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        place = _PLACE.search(str(error))
        steps = _STEP.findall(place[1]) if place else []
        path = [int(index) if index else name for name, index in steps]
        raise _explain(path, values, _info(kind)) from None
    except UnicodeEncodeError:  # half a surrogate pair where one of a few words is expected
        raise ApiError(400, "The request has text that is not valid Unicode.") from None
    for fault in faults(values, body):
        raise fault
    return body


def faults(given: object, made: object, where: str = "") -> Iterator[ApiError]:
    """Yield an error for every field that is unknown, or whose feature this server lacks.

    given  JSON values
    made   what msgspec made of them
    """
    if isinstance(made, Body) and isinstance(given, Mapping):
        fields = _fields(type(made))
        for name, field in fields.items():
            if field is None and name not in given:  # msgspec needs tags only to choose a type
                tag, param = describe(inspect.LiteralType((_tag(made),))), _join(where, name)
                yield field_error(param, _MISSING, expected=tag)
        for name in given:
            if name not in fields and not isinstance(made, OpenBody):
                yield _unknown(_join(where, name), name, fields)
        for name, field in fields.items():
            if name in given and field is not None:
                param = _join(where, name)
                extra = _extra(field.type)
                if "why" in extra and not _is_one_of(given[name], _enum(field.type)):
                    yield field_error(param, "{param} {why}.", extra["code"], why=extra["why"])
                yield from faults(given[name], getattr(made, name), param)
    elif isinstance(made, list) and isinstance(given, list):
        for index, pair in enumerate(zip(given, made, strict=True)):
            yield from faults(*pair, f"{where}[{index}]")


@dataclass(frozen=True, kw_only=True)
class FieldRule:
    """What a field of a body accepts.

    values  those that mean a feature is not used that this server lacks; None: it has the feature
    body    the object that the field holds; None for others
    """

    values: tuple[object, ...] | None
    body: type[msgspec.Struct] | None

    def rejects(self, value: object) -> bool:
        """Return whether a value asks for a feature that this server lacks."""
        return self.values is not None and not _is_one_of(value, self.values)


@cache
def field_rules(kind: type[msgspec.Struct]) -> Mapping[str, FieldRule]:
    """Return the rules of a body's fields by name."""
    rules = {}
    for name, field in _fields(kind).items():
        if field is not None:
            structs = _structs(field.type)
            lacking = "why" in _extra(field.type)
            rules[name] = FieldRule(
                values=tuple(_enum(field.type)) if lacking else None,
                body=structs[0].cls if len(structs) == 1 else None,
            )
    return rules


def reject(param: str, template: str, code: str = "invalid_value", **values: object) -> NoReturn:
    """Raise an ApiError 400 about a field, which the template may name as {param}."""
    raise field_error(param, template, code, **values)


def field_error(
    param: str, template: str, code: str = "invalid_value", **values: object
) -> ApiError:
    """Return an ApiError 400 about a field, which the template may name as {param}."""
    return ApiError(400, Text(template, param=param, **values), code, param)


def shown(value: object) -> str:
    """Return a client's value for an error message, shortened."""
    match value:
        case list():
            return Text("a list of {count}", count=len(value)) if value else Text("an empty list")
        case dict():
            return Text("an object")
        case None | bool():
            return json.dumps(value)
        case int() if abs(value) >= 10**30:
            return Text("a number with very many digits")
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


# --- why a value does not fit --------------------------------------------------------------------


def _explain(path: Sequence[str | int], value: Any, kind: inspect.Type) -> ApiError:
    """Return the error for the place at which msgspec stopped."""
    param, required = "", False
    for step in path:
        if "words" in _extra(kind):
            break
        before, kind = kind, _member(kind, value)
        if isinstance(step, int):
            assert isinstance(kind, inspect.ListType)
            if value[step] is not None and not _structs(kind.item_type):
                kind = before  # a list of plain values is described as a whole
                break
            param, kind, value = f"{param}[{step}]", kind.item_type, value[step]
            required = False
        elif tags := _tags(before, step):
            param, kind, value = _join(param, step), inspect.LiteralType(tags), value.get(step)
            required = True
        else:
            assert isinstance(kind, inspect.StructType)
            field = next(field for field in kind.fields if field.name == step)
            param, kind, value = _join(param, step), field.type, value.get(step)
            required = field.required
    if isinstance(value, Mapping) and "words" not in _extra(kind):
        missing = _missing(kind, value)
        if missing is not None:
            name, kind = missing
            param, required, value = _join(param, name), True, None
    code = _extra(kind).get("code", "invalid_value")
    if value is None and required:
        return field_error(param, _MISSING, code, expected=describe(kind))
    if why := _extra(kind).get("why"):
        return field_error(param, "{param} {why}.", code, why=why)
    template = "{param} must be {expected}, not {value}."
    return field_error(param, template, code, expected=describe(kind), value=shown(value))


def _missing(kind: inspect.Type, value: Mapping[str, Any]) -> tuple[str, inspect.Type] | None:
    """Return a required field that an object lacks, and its type."""
    for struct in _structs(kind):
        tag = struct.tag_field
        if tag is not None and value.get(tag) is None:
            return tag, inspect.LiteralType(_tags(kind, tag))
    member = _member(kind, value)
    if isinstance(member, inspect.StructType):
        for field in member.fields:
            if field.required and value.get(field.name) is None:
                return field.name, field.type
    return None


def describe(kind: inspect.Type) -> Text:
    """Return what a type accepts: "a number between 0 and 2"."""
    if "words" in _extra(kind):
        words: Text = _extra(kind)["words"]
        return words
    match kind:
        case inspect.Metadata():
            return describe(kind.type)
        case inspect.UnionType():
            plain = [t for t in _options(kind) if not isinstance(t, inspect.StructType)]
            structs = _structs(kind)
            parts = [describe(t) for t in plain if not isinstance(t, inspect.NoneType)]
            parts += [describe(structs[0])] if structs else []
            return _either(parts)
        case inspect.StructType():
            if kind.tag_field is None:
                return Text("an object")
            return Text("an object with a {name}", name=kind.tag_field)
        case inspect.LiteralType():
            return _either([json.dumps(value) for value in kind.values])
        case inspect.IntType():
            return _number(kind, _WHOLE_NUMBERS)
        case inspect.FloatType():
            return _number(kind, _NUMBERS)
        case inspect.BoolType():
            return Text("true or false")
        case inspect.StrType():
            return _sized(kind, _STRINGS)
        case inspect.ListType():
            return _sized(kind, _LISTS, item=describe(kind.item_type))
        case _:
            return Text("an object")


_MISSING = "{param} is missing: it must be {expected}."
_WHOLE_NUMBERS = {
    "any": marked("a whole number"),
    "least": marked("a whole number of {least} or more"),
    "above": marked("a whole number above {least} and at most {most}"),
    "between": marked("a whole number between {least} and {most}"),
}
_NUMBERS = {
    "any": marked("a number"),
    "least": marked("a number of {least} or more"),
    "above": marked("a number above {least} and at most {most}"),
    "between": marked("a number between {least} and {most}"),
}
_STRINGS = {
    "any": marked("a string"),
    "least": marked("a string of {least} or more characters"),
    "most": marked("a string of up to {most} characters"),
    "exactly": marked("a string of exactly {most} characters"),
    "between": marked("a string of {least} to {most} characters"),
}
_LISTS = {
    "any": marked("a list of any number of items, each {item}"),
    "least": marked("a list of {least} or more items, each {item}"),
    "most": marked("a list of up to {most} items, each {item}"),
    "exactly": marked("a list of exactly {most} items, each {item}"),
    "between": marked("a list of {least} to {most} items, each {item}"),
}


def _either(words: Sequence[str]) -> Text:
    """Return "a, b or c"."""
    *most, last = words
    return Text("{names} or {last}", names=listed(most), last=last) if most else Text(last)


def _number(kind: inspect.IntType | inspect.FloatType, templates: Mapping[str, str]) -> Text:
    most = "" if kind.le is None else _bound(kind.le)
    if kind.gt is not None:
        return Text(templates["above"], least=_bound(kind.gt), most=most)
    if kind.ge is None:
        return Text(templates["any"])
    return Text(templates["between" if most else "least"], least=_bound(kind.ge), most=most)


def _bound(number: float) -> str:
    """Return a bound as people write it: "0.5", "2147483647", "2^63 - 1"."""
    if number == _LARGEST:
        return "2^63 - 1"
    return str(number) if isinstance(number, int) else f"{number:g}"


def _sized(
    kind: inspect.StrType | inspect.ListType, templates: Mapping[str, str], **values: object
) -> Text:
    least, most = kind.min_length, kind.max_length
    if most is None:
        name = "least" if least else "any"
    elif least == most:
        name = "exactly"
    else:
        name = "between" if least else "most"
    return Text(templates[name], least=least or 0, most=most or 0, **values)


# --- types ---------------------------------------------------------------------------------------


def _extra(kind: inspect.Type) -> Mapping[str, Any]:
    return (kind.extra or {}) if isinstance(kind, inspect.Metadata) else {}


def _enum(kind: inspect.Type) -> Sequence[object]:
    assert isinstance(kind, inspect.Metadata)
    values: Sequence[object] = (kind.extra_json_schema or {})["enum"]
    return values


def _options(kind: inspect.Type) -> Sequence[inspect.Type]:
    """Return what a type may be, without its description."""
    if isinstance(kind, inspect.Metadata):
        return _options(kind.type)
    if isinstance(kind, inspect.UnionType):
        return [option for member in kind.types for option in _options(member)]
    return (kind,)


def _structs(kind: inspect.Type) -> Sequence[inspect.StructType]:
    return [option for option in _options(kind) if isinstance(option, inspect.StructType)]


def _tags(kind: inspect.Type, field: str | int) -> tuple[str, ...]:
    """Return the tags that a field may hold; none for other fields."""
    return tuple(str(struct.tag) for struct in _structs(kind) if struct.tag_field == field)


def _member(kind: inspect.Type, value: object) -> inspect.Type:
    """Return the member of a union that a list, or an object with its tag, is meant for."""
    if isinstance(value, list):
        lists = [o for o in _options(kind) if isinstance(o, inspect.ListType)]
        return lists[0] if lists else kind
    structs = _structs(kind) if isinstance(value, Mapping) else ()
    for struct in structs:
        if struct.tag_field is None or struct.tag == value.get(struct.tag_field):  # type: ignore[attr-defined]
            return struct
    return kind


def _tag(body: Body) -> str:
    return str(body.__struct_config__.tag)


@cache
def _info(kind: type[msgspec.Struct]) -> inspect.StructType:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return info


@cache
def _fields(kind: type[msgspec.Struct]) -> Mapping[str, inspect.Field | None]:
    """Return the fields of a body by name; None stands for its tag."""
    info = _info(kind)
    tag = {info.tag_field: None} if info.tag_field else {}
    return {**tag, **{field.name: field for field in info.fields}}


def _unknown(param: str, name: str, known: Mapping[str, object]) -> ApiError:
    near = get_close_matches(name[:40], known, n=1)
    return field_error(
        param[:100],
        "Unknown field {param}; did you mean {name}?" if near else "Unknown field {param}.",
        "unknown_field",
        name="".join(near),
    )


def _is_one_of(value: object, values: Sequence[object]) -> bool:
    """Return whether a JSON value is among others; in JSON, false is not 0."""
    return any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in values)


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _no_constant(name: str) -> NoReturn:
    raise ApiError(400, Text("The request has {value}, which is not a number in JSON.", value=name))


def _read_number(text: str) -> float | int:
    """Read a number with a point or an exponent: JSON has one kind, so 3.0 is a whole number."""
    number = float(text)
    if not math.isfinite(number):
        raise _too_large(text)
    return int(number) if number.is_integer() and abs(number) <= _LARGEST else number


def _read_int(text: str) -> int:
    """Read a whole number. Python reads none with more than 4300 digits."""
    try:
        return int(text)
    except ValueError:
        raise _too_large(text) from None


def _too_large(number: str) -> ApiError:
    shown = number if len(number) <= _MOST_SHOWN else f"{number[:_MOST_SHOWN]}…"
    return ApiError(400, Text("The number {value} in the request is too large.", value=shown))
