"""The page "Settings", built from the declarations in gui/data/settings.py."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QFormLayout, QFrame, QLabel, QWidget

from gui.budget import BudgetRow
from gui.context import Context
from gui.controls import add_setting, translate_setting
from gui.pages.frame import page
from gui.translation import translate


def make(context: Context) -> QWidget:
    """Make the page."""
    widget, column = page(QCoreApplication.translate("Settings", "Settings"))
    for group, settings in context.settings.groups():
        heading = QLabel(translate_setting(group))
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
            if setting.name in ("vram", "ram"):
                row = BudgetRow(context, setting)
                label = QLabel(translate_setting(setting.label))
                label.setBuddy(row.box)
                form.addRow(label, row)
            else:
                add_setting(form, context.settings, setting)
        column.addWidget(card)
    problem = QLabel(translate(context.settings.problem))
    problem.setProperty("kind", "bad")
    problem.setVisible(bool(context.settings.problem))
    column.addWidget(problem)
    return widget
