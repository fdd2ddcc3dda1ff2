"""Sentences for people that keep their template and values, so that they can be translated."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Any

Value = str | int | float
"""What may fill a place of a template; a Text is a str, so sentences may be nested."""


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
        """Fill in a template. Without values it is taken as it is, braces included.

        Raises KeyError for a place that has no value.
        """
        if not values:
            made = super().__new__(cls, template)
            made.template = getattr(template, "template", template)
            made.values = getattr(template, "values", {})
            return made
        names = _names(template)
        kept = {name: _plain(value) for name, value in values.items() if name in names}
        made = super().__new__(cls, template.format(**kept))
        made.template, made.values = str(template), kept
        return made

    def as_dict(self) -> dict[str, Any]:
        """Return the template and its values for JSON; nested sentences become such objects."""
        values = {n: v.as_dict() if isinstance(v, Text) else v for n, v in self.values.items()}
        return {"template": self.template, "values": values}

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Text:
        """Read what as_dict wrote."""
        return cls(
            values["template"],
            **{n: cls.read(v) if isinstance(v, dict) else v for n, v in values["values"].items()},
        )


def _names(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def _plain(value: object) -> Value:
    return value if isinstance(value, (str, int, float)) else str(value)
