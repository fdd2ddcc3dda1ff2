"""Marks texts of Qt-free modules for translation; the window translates them when it shows them."""

from __future__ import annotations


def QT_TRANSLATE_NOOP(context: str, text: str) -> str:  # noqa: N802 - the name lupdate looks for
    """Give the text as it is; `pyside6-lupdate` collects it under its context."""
    return text
