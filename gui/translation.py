"""Messages of the core in the window's language.

An error message or a notice is a Text: it keeps its template and values, also when it comes from
another process. gui/translations has the Chinese of all templates (context "Messages");
tools/templates.py collects them from the sources.
"""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication, QLocale

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.text import Text
from gui import wording

CONTEXT = "Messages"


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
    return template.format(
        **{
            name: translate(value) if isinstance(value, str) else value
            for name, value in text.values.items()
        }
    )


def _template(template: str) -> str:
    words = wording.WORDING.get(template)
    if words is not None:
        return QCoreApplication.translate(wording.CONTEXT, words)
    return QCoreApplication.translate(CONTEXT, template)
