"""Puts answers and tables on the clipboard, in the forms that other programs paste."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from PySide6.QtCore import QCoreApplication, QMimeData, Qt, QTimer
from PySide6.QtGui import QAccessible, QAccessibleAnnouncementEvent, QGuiApplication
from PySide6.QtWidgets import QToolButton

from gui.data.rendering import to_html, to_plain, to_tsv

_SHOWN_MS = 1500


def copy_answer(markdown: str) -> None:
    """Copy an answer as text and as HTML.

    In the text, tables have tabs, and lists and formulas stay as they were written.
    """
    _copy(to_plain(markdown), to_html(markdown, mathml=False))


def copy_table(rows: Sequence[Sequence[str]]) -> None:
    """Copy a table as lines with tabs and as HTML: a spreadsheet pastes it as cells."""
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows
    )
    _copy(to_tsv(rows), f'<table border="1">\n{lines}</table>')


def _copy(text: str, html: str) -> None:
    mime = QMimeData()
    mime.setText(text)
    mime.setHtml(f'<meta charset="utf-8">{html}')
    QGuiApplication.clipboard().setMimeData(mime)


def show_copied(button: QToolButton) -> None:
    """Show for a moment on a button that something was copied."""
    if button.property("copied"):
        return
    text, style = button.text(), button.toolButtonStyle()
    copied = QCoreApplication.translate("Copying", "Copied")
    button.setProperty("copied", True)
    button.setText(copied)
    button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
    QAccessible.updateAccessibility(QAccessibleAnnouncementEvent(button, copied))

    def restore() -> None:
        button.setProperty("copied", False)
        button.setText(text)
        button.setToolButtonStyle(style)

    QTimer.singleShot(_SHOWN_MS, button, restore)
