"""The names of the parts and phases of a memory plan, in the window's language."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication

from gui.translatable import QT_TRANSLATE_NOOP

NAMES = {
    "vision tower": QT_TRANSLATE_NOOP("Memory", "vision tower"),
    "projector": QT_TRANSLATE_NOOP("Memory", "projector"),
    "vision expert": QT_TRANSLATE_NOOP("Memory", "vision expert"),
    "language expert": QT_TRANSLATE_NOOP("Memory", "language expert"),
    "decoder norms": QT_TRANSLATE_NOOP("Memory", "decoder norms"),
    "embedding": QT_TRANSLATE_NOOP("Memory", "embedding"),
    "lm_head": QT_TRANSLATE_NOOP("Memory", "lm_head"),
    "key/value cache": QT_TRANSLATE_NOOP("Memory", "key/value cache"),
    "activations": QT_TRANSLATE_NOOP("Memory", "activations"),
    "stream buffers": QT_TRANSLATE_NOOP("Memory", "stream buffers"),
    "reserved for other phases": QT_TRANSLATE_NOOP("Memory", "reserved for other phases"),
    "encode": QT_TRANSLATE_NOOP("Memory", "looking at a picture"),
    "prefill with picture": QT_TRANSLATE_NOOP("Memory", "reading the picture"),
    "prefill of text": QT_TRANSLATE_NOOP("Memory", "reading the question"),
    "decode": QT_TRANSLATE_NOOP("Memory", "answering"),
}
"""Names of parts and phases, by the word that the plan uses."""


def part_name(word: str) -> str:
    """Return the name of a part or a phase; an unknown word stays as it is."""
    return QCoreApplication.translate("Memory", NAMES[word]) if word in NAMES else word
