"""How answers are made, near the question: a button that says it, a sheet that changes it."""

from __future__ import annotations

from PySide6.QtCore import QPoint, Qt
from PySide6.QtWidgets import QFormLayout, QFrame, QLabel, QPushButton, QToolButton, QVBoxLayout

from gui import theme
from gui.controls import make_row, say
from gui.data.settings import ANSWERS, Preferences, Setting


class SamplingButton(QToolButton):
    """Says how free answers are, and opens the sheet."""

    def __init__(self, settings: Preferences) -> None:
        super().__init__()
        self._settings = settings
        self.sheet: SamplingSheet | None = None
        self.setIcon(theme.icon("sliders"))
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.setProperty("kind", "quiet")
        self.setToolTip(self.tr("Answer settings"))
        self.clicked.connect(self.open_sheet)
        told = lambda name: self._draw()  # noqa: E731 - to be forgotten by its name
        settings.listen(told)
        self.destroyed.connect(lambda: settings.forget(told))
        self._draw()

    def open_sheet(self) -> None:
        """Open the sheet above the button."""
        self.sheet = SamplingSheet(self._settings, self)
        height = self.sheet.heightForWidth(self.sheet.width())
        self.sheet.setFixedHeight(max(height, self.sheet.sizeHint().height()))
        above = QPoint(0, -self.sheet.height() - 6)
        place = self.mapToGlobal(above)
        room = self.screen().availableGeometry()
        place.setX(max(room.left(), min(place.x(), room.right() - self.sheet.width())))
        place.setY(max(room.top(), place.y()))
        self.sheet.move(place)
        self.sheet.show()

    def _draw(self) -> None:
        free = self._settings.get("temperature")
        text = self.tr("Varied {temperature:.2f}").format(temperature=free)
        self.setText(text if free else self.tr("Exact"))
        self.setAccessibleName(f"{self.tr('Answer settings')}: {self.text()}")


class SamplingSheet(QFrame):
    """The settings of answers, each with its explanation; what is chosen counts at once."""

    def __init__(self, settings: Preferences, parent: QToolButton) -> None:
        super().__init__(parent, Qt.WindowType.Popup)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._settings = settings
        self.setProperty("kind", "sheet")
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
            form.addRow(say(setting.label), make_row(settings, setting))
        column.addLayout(form)
        reset = QPushButton(self.tr("Reset to defaults"))
        reset.clicked.connect(self.reset)
        column.addWidget(reset, alignment=Qt.AlignmentFlag.AlignLeading)

    def reset(self) -> None:
        """Set the values that the released demos use."""
        for setting in self._declared():
            self._settings.set(setting.name, setting.default)

    def _declared(self) -> tuple[Setting, ...]:
        return dict(self._settings.groups())[ANSWERS]
