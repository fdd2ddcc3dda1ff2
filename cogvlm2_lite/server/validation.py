"""Reads JSON into the types of bodies.py; what does not fit is an ApiError that names the field.

msgspec checks the values and reports where it stopped. The sentence is made from the type at that
place, so that a bound is stated once: in the type, for check, sentence and OpenAPI document.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any, NoReturn, TypeVar

import msgspec
from msgspec import inspect

from cogvlm2_lite.server.api_errors import ApiError

B = TypeVar("B", bound="Body")
_PLACE = re.compile(r" - at `\$([^`]*)`$")
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")
_LARGEST = 2**63 - 1


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """An object that clients send. Fields that its type lacks are refused."""


class Part(Body, frozen=True, kw_only=True, tag_field="type"):
    """An object that clients send, and in which fields that its type lacks are ignored."""


def unsupported(
    *values: object,
    code: str = "unsupported_parameter",
    why: str = "is not supported by this server",
) -> msgspec.Meta:
    """Return the mark of a field that this server lacks.

    values  those that mean the feature is not used; null always does
    """
    return msgspec.Meta(
        description="Not supported.",
        extra_json_schema={"enum": [None, *values]},
        extra={"code": code, "why": why},
    )


def words(text: str) -> msgspec.Meta:
    """Return the mark of a field that errors describe in these words, as a whole."""
    return msgspec.Meta(extra={"words": text})


def read_json(body: bytes) -> dict[str, Any]:
    """Read the object in a request's body. Raises ApiError for anything else."""
    try:
        value = json.loads(
            body.decode("utf-8"), parse_constant=_no_constant, parse_float=_read_number
        )
    except RecursionError:
        raise ApiError(400, "The JSON of the request is nested too deeply.") from None
    except ValueError:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ApiError(400, "The body of the request is not JSON in UTF-8.") from None
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
                yield ApiError(
                    400, f"{param} is missing: it must be {tag}.", "invalid_value", param
                )
        for name in given:
            if name not in fields and not isinstance(made, Part):
                yield _unknown(_join(where, name), name, fields)
        for name, field in fields.items():
            if name in given and field is not None:
                param = _join(where, name)
                extra = _extra(field.type)
                if "why" in extra and not _is_one_of(given[name], _enum(field.type)):
                    yield ApiError(400, f"{param} {extra['why']}.", extra["code"], param)
                yield from faults(given[name], getattr(made, name), param)
    elif isinstance(made, list) and isinstance(given, list):
        for index, pair in enumerate(zip(given, made, strict=True)):
            yield from faults(*pair, f"{where}[{index}]")


def refuse(param: str, what: str, code: str = "invalid_value") -> NoReturn:
    """Raise an ApiError 400 whose sentence begins with the name of a field."""
    raise ApiError(400, f"{param} {what}.", code, param)


def shown(value: object) -> str:
    """Quote a client's value, shortened."""
    match value:
        case list():
            return f"a list of {len(value)}" if value else "an empty list"
        case dict():
            return "an object"
        case None | bool():
            return json.dumps(value)
        case int() if abs(value) >= 10**30:
            return "a number of very many digits"
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
        return ApiError(400, f"{param} is missing: it must be {describe(kind)}.", code, param)
    why = _extra(kind).get("why") or f"must be {describe(kind)}, not {shown(value)}"
    return ApiError(400, f"{param} {why}.", code, param)


def _missing(kind: inspect.Type, value: Mapping[str, Any]) -> tuple[str, inspect.Type] | None:
    """Find a required field that an object lacks, and its type."""
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


def describe(kind: inspect.Type) -> str:
    """Say what a type takes: "a number between 0 and 2"."""
    if "words" in _extra(kind):
        return str(_extra(kind)["words"])
    match kind:
        case inspect.Metadata():
            return describe(kind.type)
        case inspect.UnionType():
            plain = [t for t in _options(kind) if not isinstance(t, inspect.StructType)]
            structs = _structs(kind)
            parts = [describe(t) for t in plain if not isinstance(t, inspect.NoneType)]
            parts += [describe(structs[0])] if structs else []
            return " or ".join(parts)
        case inspect.StructType():
            return "an object" if kind.tag_field is None else f"an object with a {kind.tag_field}"
        case inspect.LiteralType():
            *most, last = (json.dumps(value) for value in kind.values)
            return f"{', '.join(most)} or {last}" if most else last
        case inspect.IntType():
            return f"a whole number{_between(kind)}"
        case inspect.FloatType():
            return f"a number{_between(kind)}"
        case inspect.BoolType():
            return "true or false"
        case inspect.StrType():
            return f"a string{_size(' of', kind.min_length, kind.max_length, ' characters')}"
        case inspect.ListType():
            size = _size(" of", kind.min_length, kind.max_length, "") or " of any number of"
            return f"a list{size} items, each {describe(kind.item_type)}"
        case _:
            return "an object"


def _between(kind: inspect.IntType | inspect.FloatType) -> str:
    if kind.gt is not None:
        return f" above {kind.gt:g} and at most {kind.le:g}"
    if kind.le is None:
        return "" if kind.ge is None else f" of {kind.ge:g} or more"
    return f" between {kind.ge:g} and {'2^63 - 1' if kind.le == _LARGEST else f'{kind.le:g}'}"


def _size(before: str, least: int | None, most: int | None, unit: str) -> str:
    if most is None:
        return f"{before} {least} or more{unit}" if least else ""
    if least == most:
        return f"{before} exactly {least}{unit}"
    return f"{before} {least} to {most}{unit}" if least else f"{before} up to {most}{unit}"


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
def _info(kind: type[Body]) -> inspect.StructType:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return info


@cache
def _fields(kind: type[Body]) -> Mapping[str, inspect.Field | None]:
    """Return the fields of a body by name; None stands for its tag."""
    info = _info(kind)
    tag = {info.tag_field: None} if info.tag_field else {}
    return {**tag, **{field.name: field for field in info.fields}}


def _unknown(param: str, name: str, known: Mapping[str, object]) -> ApiError:
    near = get_close_matches(name[:40], known, n=1)
    more = f"; did you mean {near[0]}?" if near else "."
    param = param[:100]
    return ApiError(
        400, f"{param} is not a field that this server knows{more}", "unknown_field", param
    )


def _is_one_of(value: object, values: Sequence[object]) -> bool:
    """Compare as JSON does, in which false is not 0."""
    return any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in values)


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _read_number(text: str) -> float | int:
    """Read a number with a point or an exponent: JSON has one kind, so 3.0 is a whole number."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return int(number) if number.is_integer() and abs(number) <= _LARGEST else number
