"""The page "Settings", drawn from the declaration in gui/settings.py."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QFrame,
    QLabel,
    QLineEdit,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from gui.context import Context
from gui.pages.frame import page
from gui.settings import Setting


def make(context: Context) -> QWidget:
    """Make the page."""
    widget, column = page(QCoreApplication.translate("Settings", "Settings"))
    for group, settings in context.settings.groups():
        heading = QLabel(_say(group))
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
            form.addRow(_say(setting.label), _row(context, setting))
        column.addWidget(card)
    trouble = QLabel(context.settings.trouble)
    trouble.setProperty("kind", "bad")
    trouble.setVisible(bool(context.settings.trouble))
    column.addWidget(trouble)
    return widget


def _row(context: Context, setting: Setting) -> QWidget:
    """Give the control of a setting with its explanation below."""
    holder = QWidget()
    column = QVBoxLayout(holder)
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(2)
    control = _control(context, setting)
    control.setAccessibleName(_say(setting.label))
    control.setMaximumWidth(260)
    column.addWidget(control)
    text = QLabel(_say(setting.help))
    text.setProperty("kind", "soft")
    text.setWordWrap(True)
    column.addWidget(text)
    return holder


def _control(context: Context, setting: Setting) -> QWidget:
    settings, name = context.settings, setting.name
    value = settings.get(name)
    if setting.choices:
        combo = QComboBox()
        for word, label in setting.choices:
            combo.addItem(_say(label), word)
        combo.setCurrentIndex(combo.findData(value))
        combo.activated.connect(lambda _: settings.set(name, combo.currentData()))
        return combo
    if isinstance(value, float):
        decimal = QDoubleSpinBox()
        decimal.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
        decimal.setSingleStep(0.05)
        decimal.setDecimals(2)
        _limit(decimal, setting)
        decimal.setValue(value)
        decimal.valueChanged.connect(lambda new: settings.set(name, float(new)))
        return decimal
    if isinstance(value, int):
        whole = QSpinBox()
        whole.setButtonSymbols(QSpinBox.ButtonSymbols.NoButtons)
        _limit(whole, setting)
        whole.setValue(value)
        # Once typing ended: a change of the font size draws the page anew.
        whole.setKeyboardTracking(False)
        whole.valueChanged.connect(lambda new: settings.set(name, int(new)))
        return whole
    line = QLineEdit(str(value))
    line.editingFinished.connect(lambda: settings.set(name, line.text().strip()))
    return line


def _limit(control: QSpinBox | QDoubleSpinBox, setting: Setting) -> None:
    lowest = 0 if setting.lowest is None else setting.lowest
    highest = 1_000_000 if setting.highest is None else setting.highest
    if isinstance(control, QSpinBox):
        control.setRange(int(lowest), int(highest))
    else:
        control.setRange(float(lowest), float(highest))


def _say(text: str) -> str:
    return QCoreApplication.translate("Settings", text)
