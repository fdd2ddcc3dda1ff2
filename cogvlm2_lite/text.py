"""Texts that keep their template and values, so that they can be translated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from string import Formatter
from typing import Any

from cogvlm2_lite.file_names import escape_line

Value = str | int | float
"""A value in a template; a Text is a str, so texts can be nested."""

TEXTS = "texts"
"""The key of a JSON object that has the templates of its texts."""


class Text(str):
    """A string that keeps the template and values it was made from.

        Text("{file} has {count} pixels.", file="a.png", count=5)

    Otherwise it is an ordinary string. `as_dict` and `read` convert it to and from JSON.

    template  the text with named placeholders; equal to the text without values
    values    of the placeholders, by name
    """

    template: str
    values: Mapping[str, Value]

    def __new__(cls, template: str = "", /, **values: object) -> Text:
        """Fill in a template. Without values, and for a Text, braces are ordinary characters.

        Raises KeyError for a placeholder without a value.
        """
        if isinstance(template, Text) or not values:
            made = super().__new__(cls, template)
            made.template = getattr(template, "template", template)
            made.values = getattr(template, "values", {})
            return made
        names = _names(template)
        kept = {name: _plain(value) for name, value in values.items() if name in names}
        made = super().__new__(cls, template.format(**kept))
        made.template, made.values = str(template if kept else made), kept
        return made

    def as_dict(self) -> dict[str, Any]:
        """Return the template and its values for JSON; nested texts become such objects."""
        values = {n: v.as_dict() if isinstance(v, Text) else v for n, v in self.values.items()}
        return {"template": self.template, "values": values}

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Text:
        """Return the Text of an object from as_dict. Raises ValueError or KeyError for others."""
        template, filled = values["template"], values["values"]
        if not isinstance(template, str) or not isinstance(filled, dict):
            raise ValueError("not a template with values")
        return cls(
            template, **{n: cls.read(v) if isinstance(v, dict) else v for n, v in filled.items()}
        )


def marked(template: str) -> str:
    """Return a template unchanged; marks it for translation if Text gets it from a variable."""
    return template


def join(*texts: str) -> Text:
    """Return texts joined with spaces; empty ones are left out."""
    whole = [text for text in texts if text]
    if len(whole) < 2:
        return Text(*whole)
    names = [f"part{number}" for number in range(1, len(whole) + 1)]
    template = " ".join(f"{{{name}}}" for name in names)
    return Text(template, **dict(zip(names, whole, strict=True)))


def listed(texts: Iterable[str]) -> Text:
    """Return texts joined with commas."""
    whole = list(texts)
    names = [f"item{number}" for number in range(1, len(whole) + 1)]
    template = ", ".join(f"{{{name}}}" for name in names)
    return Text(template, **dict(zip(names, whole, strict=True)))


def joined(clauses: Iterable[str]) -> Text:
    """Return texts joined with semicolons."""
    first = Text()
    for clause in clauses:
        first = Text("{first}; {other}", first=first, other=clause) if first else Text(clause)
    return first


def with_templates(value: Any) -> Any:
    """Return JSON-ready values in which every object has the templates of its texts.

    An object with fields that are a Text or a list of Texts gets the key "texts": for each such
    field an object with "template" and "values" (as_dict), or a list of these.
    """
    if isinstance(value, list | tuple):
        return [with_templates(item) for item in value]
    if not isinstance(value, dict):
        return str(value) if isinstance(value, Text) else value
    found = {name: _templates(item) for name, item in value.items() if _has_text(item)}
    plain = {name: with_templates(item) for name, item in value.items()}
    return {**plain, TEXTS: found} if found else plain


def read_templates(value: Any) -> Any:
    """Return values as before with_templates: fields with a template become Text again."""
    if isinstance(value, list):
        return [read_templates(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = value.get(TEXTS, {})
    texts = {
        name: [Text.read(one) for one in item] if isinstance(item, list) else Text.read(item)
        for name, item in found.items()
    }
    plain = {name: read_templates(item) for name, item in value.items() if name != TEXTS}
    return {**plain, **texts}


def _has_text(value: object) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, Text) for item in value)
    return isinstance(value, Text) and value != ""


def _templates(value: Any) -> Any:
    return value.as_dict() if isinstance(value, Text) else [item.as_dict() for item in value]


def _names(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def _plain(value: object) -> Value:
    if isinstance(value, PurePath):
        return escape_line(str(value))
    return value if isinstance(value, (str, int, float)) else str(value)
