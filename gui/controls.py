"""The control of one declared setting, with its explanation below."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QLabel,
    QLineEdit,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from gui.data.settings import Preferences, Setting


def make_row(settings: Preferences, setting: Setting) -> QWidget:
    """Give the control of a setting, which writes what is chosen at once, and its explanation."""
    holder = QWidget()
    column = QVBoxLayout(holder)
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(2)
    control = _control(settings, setting)
    control.setAccessibleName(translate_setting(setting.label))
    control.setMaximumWidth(260)
    column.addWidget(control)
    text = QLabel(translate_setting(setting.help))
    text.setProperty("kind", "soft")
    text.setWordWrap(True)
    column.addWidget(text)
    return holder


def _control(settings: Preferences, setting: Setting) -> QWidget:
    name, value = setting.name, settings.get(setting.name)
    if setting.choices:
        combo = QComboBox()
        for word, label in setting.choices:
            combo.addItem(translate_setting(label), word)
        combo.activated.connect(lambda _: settings.set(name, combo.currentData()))
        _follow(settings, name, combo, lambda new: combo.setCurrentIndex(combo.findData(new)))
        return combo
    if isinstance(value, float):
        decimal = QDoubleSpinBox()
        decimal.setSingleStep(0.05)
        decimal.setDecimals(2)
        _limit(decimal, setting)
        _follow(settings, name, decimal, decimal.setValue)
        decimal.valueChanged.connect(lambda new: settings.set(name, float(new)))
        return decimal
    if isinstance(value, int):
        whole = QSpinBox()
        _limit(whole, setting)
        _follow(settings, name, whole, whole.setValue)
        # Once typing ended: a change of the font size draws the page anew.
        whole.setKeyboardTracking(False)
        whole.valueChanged.connect(lambda new: settings.set(name, int(new)))
        return whole
    line = QLineEdit()
    _follow(settings, name, line, line.setText)
    line.editingFinished.connect(lambda: settings.set(name, line.text().strip()))
    return line


def _follow(
    settings: Preferences, name: str, control: QWidget, show: Callable[[Any], None]
) -> None:
    """Show the value now and whenever it changes: the same setting may stand in two places."""

    def told(changed: str) -> None:
        if changed == name:
            show(settings.get(name))

    told(name)
    settings.add_listener(told)
    control.destroyed.connect(lambda: settings.remove_listener(told))


def _limit(control: QSpinBox | QDoubleSpinBox, setting: Setting) -> None:
    control.lineEdit().setTextMargins(8, 0, 8, 0)  # the stylesheet's padding does not reach it
    lowest = 0 if setting.lowest is None else setting.lowest
    highest = 1_000_000 if setting.highest is None else setting.highest
    if isinstance(control, QSpinBox):
        control.setRange(int(lowest), int(highest))
    else:
        control.setRange(float(lowest), float(highest))


def translate_setting(text: str) -> str:
    """Translate a text of the declaration."""
    return QCoreApplication.translate("Settings", text)
