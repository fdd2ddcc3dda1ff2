"""A plan in numbers: a real table, so that columns are aligned in any language and font."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from PySide6.QtCore import QCoreApplication, QMimeData
from PySide6.QtGui import QTextCursor, QTextDocument
from PySide6.QtWidgets import QFrame, QTextBrowser

from cogvlm2_lite.forecast.table import PlanTable
from gui.chat.markdown import plain_text
from gui.memory.plan import PlanView

_NAME, _NUMBER = "padding: 3px 0", "padding: 3px 0 3px 16px"


class PlanNumbers(QTextBrowser):
    """Shows the plan; what is selected can be copied, with tabs between the cells."""

    def __init__(self) -> None:
        super().__init__()
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setTabChangesFocus(True)
        self.setMinimumHeight(320)
        self.setAccessibleName(QCoreApplication.translate("Memory", "The plan in numbers"))

    def show_plan(self, view: PlanView) -> None:
        """Show a plan."""
        self.setHtml("".join(_html(view)))

    def createMimeDataFromSelection(self) -> QMimeData:  # noqa: N802 - Qt's name
        """Return what is selected as text, with tabs in tables, and as HTML."""
        mime = super().createMimeDataFromSelection()
        mime.html()  # Qt fills it when it is first read, and would replace the text then
        part = QTextDocument()
        QTextCursor(part).insertFragment(self.textCursor().selection())
        mime.setText(plain_text(part))
        return mime


def _html(view: PlanView) -> Iterator[str]:
    yield f"<p>{escape(view.summary)}</p>"
    for table in view.tables:
        yield f"<p><b>{escape(table.title)}</b>"
        if table.origin:
            yield f"<br>{escape(table.origin)}"
        yield "</p>"
        yield from _table(table)
    yield from (f"<p>{escape(note)}</p>" for note in view.notes)


def _table(table: PlanTable) -> Iterator[str]:
    yield '<table cellspacing="0">'
    for number, (name, *cells) in enumerate(table.rows):
        kind = "td" if number else "th"
        yield f'<tr><{kind} align="left" style="{_NAME}">{escape(name)}</{kind}>'
        for cell in cells:
            yield f'<{kind} align="right" style="{_NUMBER}">{escape(cell)}</{kind}>'
        yield "</tr>"
    yield "</table>"
