"""Messages of the core in the window's language.

An error message or a notice is a Text: it keeps its template and values, also when it comes from
another process. gui/translations has the Chinese of all templates (context "Messages");
tools/templates.py collects them from the sources.
"""

from __future__ import annotations

import re
from string import Formatter

from PySide6.QtCore import QCoreApplication, QLocale

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.text import Text
from gui import wording

CONTEXT = "Messages"
_MARK = re.compile("[\u3001-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65]")
_CHINESE = re.compile("[\u2e80-\u303f\u3400-\u9fff\uf900-\ufaff\uff01-\uff65\U00020000-\U0003ffff]")
"""Marks that are as wide as a Chinese letter, and Chinese letters with these marks."""


def is_chinese(language: str) -> bool:
    """Return whether the window is in Chinese. language: the setting; "system" is the system's"""
    name = QLocale.system().name() if language == "system" else language
    return name.startswith("zh")


def error_text(error: CogVLM2LiteError) -> str:
    """Return an error's message and hint in the window's language."""
    return translate(error.text)


def translate(text: str) -> str:
    """Return a message of the core in the window's language and words (gui/wording.py).

    Other strings, such as an answer or a message saved by an earlier version, stay as they are.
    """
    if not isinstance(text, Text):
        return text
    template = _template(text.template) if text.template else ""
    if not text.values:
        return template
    values = {n: translate(v) if isinstance(v, str) else v for n, v in text.values.items()}
    return fill(template, **values)


def fill(template: str, /, **values: object) -> str:
    """Return a template with its values, as str.format does.

    A template in Chinese has blanks around its placeholders for names in Latin letters. Next to
    Chinese text, such a blank is left out.
    """
    filled = ""
    formatter = Formatter()
    for literal, name, form, conversion in formatter.parse(template):
        filled = _append(filled, literal)
        if name is not None:
            value = formatter.convert_field(formatter.get_field(name, (), values)[0], conversion)
            filled = _append(filled, format(value, form or ""))
    return filled


def sentences(*texts: str) -> str:
    """Return sentences joined with blanks, which Chinese has not. Empty ones are left out."""
    joined = ""
    for text in filter(None, texts):
        joined = _append(f"{joined} " if joined else "", text)
    return joined


def _append(left: str, right: str) -> str:
    """Join two texts; between Chinese characters a single blank is left out."""
    before, after = left.removesuffix(" "), right.removeprefix(" ")
    blanks = len(left) - len(before) + len(right) - len(after)
    if blanks == 1 and _is_chinese(before[-1:], after[:1]):
        return before + after
    return left + right


def _is_chinese(before: str, after: str) -> bool:
    """Return whether two letters need no blank: both Chinese, or one a full-width mark."""
    chinese = bool(_CHINESE.match(before)) and bool(_CHINESE.match(after))
    return chinese or bool(_MARK.match(before) and after) or bool(before and _MARK.match(after))


def _template(template: str) -> str:
    words = wording.WORDING.get(template)
    if words is not None:
        return QCoreApplication.translate(wording.CONTEXT, words)
    return QCoreApplication.translate(CONTEXT, template)
