"""The button next to the question that shows the sampling, and the popup that changes it."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QPoint, Qt
from PySide6.QtGui import QCloseEvent, QCursor, QKeyEvent
from PySide6.QtWidgets import QFormLayout, QFrame, QLabel, QPushButton, QToolButton, QVBoxLayout

from gui import theme
from gui.controls import add_setting
from gui.data.settings import ANSWERS, Preferences, Setting
from gui.translation import fill


class SamplingButton(QToolButton):
    """Shows the temperature, and opens the popup."""

    def __init__(self, settings: Preferences) -> None:
        super().__init__()
        self._settings = settings
        self.popup: SamplingPopup | None = None
        self.setIcon(theme.icon("sliders"))
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.setProperty("kind", "quiet")
        self.setToolTip(self.tr("Answer settings"))
        self.clicked.connect(self.open_popup)
        redraw = lambda name: self._draw()  # noqa: E731 - named so that it can be removed
        settings.add_listener(redraw)
        self.destroyed.connect(lambda: settings.remove_listener(redraw))
        self._draw()

    def open_popup(self) -> None:
        """Open the popup above the button."""
        self.popup = SamplingPopup(self._settings, self)
        height = self.popup.heightForWidth(self.popup.width())
        self.popup.setFixedHeight(max(height, self.popup.sizeHint().height()))
        above = QPoint(0, -self.popup.height() - 6)
        place = self.mapToGlobal(above)
        room = self.screen().availableGeometry()
        place.setX(max(room.left(), min(place.x(), room.right() - self.popup.width())))
        place.setY(max(room.top(), place.y()))
        self.popup.move(place)
        self.popup.show()
        self.popup.setFocus()

    def _draw(self) -> None:
        temperature = self._settings.get("temperature")
        text = fill(self.tr("Varied {temperature:.2f}"), temperature=temperature)
        self.setText(text if temperature else self.tr("Exact"))
        self.setAccessibleName(f"{self.tr('Answer settings')}: {self.text()}")


class SamplingPopup(QFrame):
    """The settings of answers, each with its help text. Changes apply at once."""

    def __init__(self, settings: Preferences, parent: QToolButton) -> None:
        super().__init__(parent, Qt.WindowType.Popup)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._settings, self._button = settings, parent
        self.setProperty("kind", "popup")
        self.setFixedWidth(460)
        self.setAccessibleName(self.tr("Answer settings"))
        column = QVBoxLayout(self)
        column.setContentsMargins(18, 14, 18, 14)
        heading = QLabel(self.tr("Answer settings"))
        heading.setProperty("kind", "heading")
        column.addWidget(heading)
        form = QFormLayout()
        form.setHorizontalSpacing(16)
        form.setVerticalSpacing(8)
        for setting in self._declared():
            add_setting(form, settings, setting)
        column.addLayout(form)
        reset = QPushButton(self.tr("Reset to defaults"))
        reset.clicked.connect(self.reset)
        column.addWidget(reset, alignment=Qt.AlignmentFlag.AlignLeading)

    def event(self, event: QEvent) -> bool:
        """Keep Esc, which closes the popup: the page uses it to stop the answer."""
        overriding = event.type() is QEvent.Type.ShortcutOverride
        if overriding and isinstance(event, QKeyEvent) and event.key() == Qt.Key.Key_Escape:
            event.accept()
            return True
        return super().event(event)

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802 - Qt's name
        """Let the button forget the pointer, which left it while this was open."""
        super().closeEvent(event)
        button = self._button
        over = button.rect().contains(button.mapFromGlobal(QCursor.pos()))
        button.setAttribute(Qt.WidgetAttribute.WA_UnderMouse, over)
        button.update()

    def reset(self) -> None:
        """Set the values that the released demos use."""
        for setting in self._declared():
            self._settings.set(setting.name, setting.default)

    def _declared(self) -> tuple[Setting, ...]:
        return dict(self._settings.groups())[ANSWERS]
