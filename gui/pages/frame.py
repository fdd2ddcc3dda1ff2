"""The layout that all pages share: a title above a scrolling column."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QLabel, QScrollArea, QVBoxLayout, QWidget

from gui.theme import Title


def page(title: str, *, fill: bool = False) -> tuple[QWidget, QVBoxLayout]:
    """Return a page with a title, and the layout for its content.

    fill  stretch the content to the page's height
    """
    outer = QScrollArea()
    outer.setWidgetResizable(True)
    outer.setFrameShape(QFrame.Shape.NoFrame)
    outer.setProperty("kind", "clear")
    outer.setAccessibleName(title)
    body = QWidget()
    column = QVBoxLayout(body)
    column.setContentsMargins(32, 28, 32, 28)
    column.setSpacing(16)
    column.addWidget(Title(title))
    content = QVBoxLayout()
    content.setSpacing(12)
    column.addLayout(content, 1 if fill else 0)
    if not fill:
        column.addStretch(1)
    outer.setWidget(body)
    return outer, content


def plain_label(text: str = "", kind: str = "") -> QLabel:
    """Return a label that wraps. Names of files and models in it never become markup."""
    label = QLabel(text)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setProperty("kind", kind)
    label.setWordWrap(True)
    return label
