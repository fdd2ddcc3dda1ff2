"""Controls that the mouse wheel does not change by accident, and those of the declared settings.

A page is scrolled with the wheel, and the pointer passes over its settings: Qt's own controls would
take the focus and change. These pass the wheel on to the page until they have the focus by a click
or by Tab. A closed list never changes: after a choice it has the focus, and the pointer is on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QCoreApplication, QSize, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QSlider,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from gui import theme
from gui.data.settings import Preferences, Setting

_LEAST_LETTERS = 16
"""Letters, with the arrow, that a list shows at least."""


def tool_button(icon: str, text: str, do: Callable[[], object], size: int = 18) -> QToolButton:
    """Make a small button without a frame.

    icon  a name for `theme.icon`; "" for none
    text  its tool tip, and its name for a screen reader
    size  of the icon, in pixels
    """
    button = QToolButton()
    if icon:
        button.setIcon(theme.icon(icon))
    button.setIconSize(QSize(size, size))
    button.setToolTip(text)
    button.setAccessibleName(text)
    button.setProperty("kind", "quiet")
    button.clicked.connect(lambda: do())
    return button


class SpinBox(QSpinBox):
    """A field for a whole number. The wheel changes it only while it has the focus."""

    def __init__(self) -> None:
        super().__init__()
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802 - Qt's name
        """Pass the wheel on unless this has the focus."""
        super().wheelEvent(event) if self.hasFocus() else event.ignore()


class DoubleSpinBox(QDoubleSpinBox):
    """A field for a number. The wheel changes it only while it has the focus."""

    def __init__(self) -> None:
        super().__init__()
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802 - Qt's name
        """Pass the wheel on unless this has the focus."""
        super().wheelEvent(event) if self.hasFocus() else event.ignore()


class ComboBox(QComboBox):
    """A list to choose from. The wheel scrolls it while it is open, and changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802 - Qt's name
        """Pass the wheel on to the page."""
        event.ignore()

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return room for a short word: a long one must not make the page wider than the window."""
        least = self.sizeHint()  # Qt keeps the other one when the letters change
        short = self.fontMetrics().averageCharWidth() * _LEAST_LETTERS
        return QSize(min(least.width(), short), least.height())


class Slider(QSlider):
    """A horizontal slider. The wheel changes it only while it has the focus."""

    def __init__(self) -> None:
        super().__init__(Qt.Orientation.Horizontal)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802 - Qt's name
        """Pass the wheel on unless this has the focus."""
        super().wheelEvent(event) if self.hasFocus() else event.ignore()


def add_setting(form: QFormLayout, settings: Preferences, setting: Setting) -> None:
    """Add a row with a setting's label, its control, and its help text below.

    A change is saved at once.
    """
    label = QLabel(translate_setting(setting.label))
    holder, control = _make_row(settings, setting)
    label.setBuddy(control)
    form.addRow(label, holder)


def _make_row(settings: Preferences, setting: Setting) -> tuple[QWidget, QWidget]:
    holder = QWidget()
    column = QVBoxLayout(holder)
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(2)
    control = _control(settings, setting)
    control.setAccessibleName(translate_setting(setting.label))
    control.setAccessibleDescription(translate_setting(setting.help))
    control.setMaximumWidth(260)
    column.addWidget(control)
    text = QLabel(translate_setting(setting.help))
    text.setProperty("kind", "soft")
    text.setWordWrap(True)
    column.addWidget(text)
    return holder, control


def _control(settings: Preferences, setting: Setting) -> QWidget:
    name, value = setting.name, settings.get(setting.name)
    if setting.choices:
        combo = ComboBox()
        for word, label in setting.choices:
            combo.addItem(translate_setting(label), word)
        combo.activated.connect(lambda _: settings.set(name, combo.currentData()))
        _follow(settings, name, combo, lambda new: combo.setCurrentIndex(combo.findData(new)))
        return combo
    if isinstance(value, float):
        decimal = DoubleSpinBox()
        decimal.setSingleStep(0.05)
        decimal.setDecimals(2)
        _limit(decimal, setting)
        _follow(settings, name, decimal, decimal.setValue)
        decimal.valueChanged.connect(lambda new: settings.set(name, float(new)))
        return decimal
    if isinstance(value, int):
        whole = SpinBox()
        _limit(whole, setting)
        _follow(settings, name, whole, whole.setValue)
        # Report only finished numbers: a change of the font size builds the page again.
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
    """Show the value now and whenever it changes: two controls may show the same setting."""

    def show_change(changed: str) -> None:
        if changed == name:
            show(settings.get(name))

    show_change(name)
    settings.add_listener(show_change)
    control.destroyed.connect(lambda: settings.remove_listener(show_change))


def _limit(control: QSpinBox | QDoubleSpinBox, setting: Setting) -> None:
    control.lineEdit().setTextMargins(8, 0, 8, 0)  # the stylesheet's padding does not reach it
    lowest = 0 if setting.lowest is None else setting.lowest
    highest = 1_000_000 if setting.highest is None else setting.highest
    if isinstance(control, QSpinBox):
        control.setRange(int(lowest), int(highest))
    else:
        control.setRange(float(lowest), float(highest))


def translate_setting(text: str) -> str:
    """Return a text of a declaration in the window's language."""
    return QCoreApplication.translate("Settings", text)
