"""Reads single fields of a request, and refuses in words what they may not hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from difflib import get_close_matches
from typing import Any, NoReturn

from cogvlm2_lite.server.api_errors import ApiError


def check_fields(
    values: Mapping[str, Any], known: Set[str], neutral: Mapping[str, Sequence[object]]
) -> None:
    """Refuse fields that are neither known nor have a value that means "not wanted".

    neutral  such values of the fields of OpenAI's API that this server lacks
    """
    for name, value in values.items():
        if name in known:
            continue
        if name not in neutral:
            near = get_close_matches(name[:40], known, n=1)
            more = f"; did you mean {near[0]}?" if near else ""
            refuse(name[:100], f"is a field this server does not know{more}", "unknown_field")
        if not any(
            value == n and isinstance(value, bool) == isinstance(n, bool) for n in neutral[name]
        ):
            refuse(name, "is not supported by this server", "unsupported_parameter")


def number(values: Mapping[str, Any], name: str, default: float) -> float:
    """Give a number, or the default for none."""
    value = values.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e9:
        refuse(name, f"must be a number, not {shown(value)}")
    return float(value)


def integer(values: Mapping[str, Any], name: str, default: int) -> int:
    """Give a whole number, or the default for none."""
    value = values.get(name)
    if value is None:
        return default
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON has one kind of number: 3.0 is a whole one
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
        refuse(name, f"must be a whole number, not {shown(value)}")
    return value


def flag(values: Mapping[str, Any], name: str) -> bool:
    """Give true or false; false for none."""
    value = values.get(name)
    if value is not None and not isinstance(value, bool):
        refuse(name, f"must be true or false, not {shown(value)}")
    return value is True


def text(values: Mapping[str, Any], name: str) -> str:
    """Give a text; "" for none."""
    value = values.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        refuse(name, f"must be a text, not {shown(value)}")
    return value


def choice(values: Mapping[str, Any], name: str, choices: Sequence[str | None]) -> str | None:
    """Give one of the choices."""
    value = values.get(name)
    if not (value is None or isinstance(value, str)) or value not in choices:
        words = ", ".join(word for word in choices if word)
        refuse(name, f"must be one of {words}, not {shown(value)}")
    return value


def shown(value: object) -> str:
    """Quote a client's value back to it, shortened."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a number of very many digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def refuse(param: str, what: str, code: str = "invalid_value") -> NoReturn:
    """Raise a ApiError 400 that begins with the name of a field."""
    raise ApiError(400, f"{param} {what}.", code, param)
