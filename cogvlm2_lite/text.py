"""Sentences for people that keep their template and values, so that they can be translated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from string import Formatter
from typing import Any

Value = str | int | float
"""What may fill a place of a template; a Text is a str, so sentences may be nested."""

TEXTS = "texts"
"""The key of a JSON object under which the templates of its texts stand."""


class Text(str):
    """A finished sentence that remembers the template it was made from, as gettext needs it.

        Text("{file} has {count} pixels.", file="a.png", count=5)

    It is an ordinary string everywhere else. `as_dict` and `read` carry it over a pipe.

    template  the sentence with named places; equal to the text where nothing was filled in
    values    what was filled in, by name; only names of the template
    """

    template: str
    values: Mapping[str, Value]

    def __new__(cls, template: str = "", /, **values: object) -> Text:
        """Fill in a template. Without values it is taken as it is, braces included; so is a Text.

        Raises KeyError for a place that has no value.
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
        """Return the template and its values for JSON; nested sentences become such objects."""
        values = {n: v.as_dict() if isinstance(v, Text) else v for n, v in self.values.items()}
        return {"template": self.template, "values": values}

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Text:
        """Return the Text that as_dict wrote. Raises ValueError or KeyError for anything else."""
        template, filled = values["template"], values["values"]
        if not isinstance(template, str) or not isinstance(filled, dict):
            raise ValueError("not a template with values")
        return cls(
            template, **{n: cls.read(v) if isinstance(v, dict) else v for n, v in filled.items()}
        )


def marked(template: str) -> str:
    """Return a template unchanged: marks one for translation that Text gets from a variable."""
    return template


def join(*texts: str) -> Text:
    """Return sentences as one text with a space between them; empty ones are left out."""
    whole = [text for text in texts if text]
    if len(whole) < 2:
        return Text(*whole)
    names = [f"part{number}" for number in range(1, len(whole) + 1)]
    template = " ".join(f"{{{name}}}" for name in names)
    return Text(template, **dict(zip(names, whole, strict=True)))


def listed(texts: Iterable[str]) -> Text:
    """Return words with a comma between them as one text."""
    whole = list(texts)
    names = [f"item{number}" for number in range(1, len(whole) + 1)]
    template = ", ".join(f"{{{name}}}" for name in names)
    return Text(template, **dict(zip(names, whole, strict=True)))


def joined(clauses: Iterable[str]) -> Text:
    """Return clauses with a semicolon between them as one text."""
    first = Text()
    for clause in clauses:
        first = Text("{first}; {other}", first=first, other=clause) if first else Text(clause)
    return first


def with_templates(value: Any) -> Any:
    """Return JSON-ready values in which every object names the templates of its texts.

    An object that holds a Text, or a list of them, gets the key "texts": for each such field an
    object with "template" and "values" (as_dict), or a list of these.
    """
    if isinstance(value, list | tuple):
        return [with_templates(item) for item in value]
    if not isinstance(value, dict):
        return str(value) if isinstance(value, Text) else value
    found = {name: _templates(item) for name, item in value.items() if _has_text(item)}
    plain = {name: with_templates(item) for name, item in value.items()}
    return {**plain, TEXTS: found} if found else plain


def read_templates(value: Any) -> Any:
    """Return values as with_templates took them: fields with a template become Text again."""
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
    return value if isinstance(value, (str, int, float)) else str(value)
