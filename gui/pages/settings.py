"""The page "Settings", drawn from the declaration in gui/data/settings.py."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QFormLayout, QFrame, QLabel, QWidget

from gui.context import Context
from gui.controls import make_row, say
from gui.pages.frame import page


def make(context: Context) -> QWidget:
    """Make the page."""
    widget, column = page(QCoreApplication.translate("Settings", "Settings"))
    for group, settings in context.settings.groups():
        heading = QLabel(say(group))
        heading.setProperty("kind", "heading")
        column.addWidget(heading)
        card = QFrame()
        card.setProperty("kind", "card")
        form = QFormLayout(card)
        form.setContentsMargins(18, 14, 18, 14)
        form.setHorizontalSpacing(24)
        form.setVerticalSpacing(12)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        for setting in settings:
            form.addRow(say(setting.label), make_row(context.settings, setting))
        column.addWidget(card)
    trouble = QLabel(context.settings.trouble)
    trouble.setProperty("kind", "bad")
    trouble.setVisible(bool(context.settings.trouble))
    column.addWidget(trouble)
    return widget
