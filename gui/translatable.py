"""Marks texts of modules without Qt for translation. They are translated when they are shown."""

from __future__ import annotations


def QT_TRANSLATE_NOOP(context: str, text: str) -> str:  # noqa: N802 - the name lupdate looks for
    """Return the text unchanged. `pyside6-lupdate` collects it under its context."""
    return text
