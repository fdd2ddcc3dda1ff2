"""The conversation with the question field below it, in any height."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, QPoint, QSize, Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QApplication, QFrame, QScrollArea, QVBoxLayout, QWidget
from shiboken6 import isValid

LEAST_ABOVE = 48
"""So much of the conversation, in pixels, is always seen."""
_LEAST_SHARE = 0.6
"""The field may take this share of the height, even if less of the conversation is seen."""


class Foot(QScrollArea):
    """Widgets one below the other that scroll where they have too little height.

    grown  the height that they need changed
    """

    grown = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setProperty("kind", "clear")
        self.setWidgetResizable(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._needed = 0
        self._body = body = QWidget()
        self._column = QVBoxLayout(body)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(0)
        body.installEventFilter(self)
        self.setWidget(body)
        app = QApplication.instance()
        assert isinstance(app, QApplication)
        app.focusChanged.connect(self._focus_changed)
        self._attended: QWidget | None = None
        self.verticalScrollBar().rangeChanged.connect(self._show_attended)

    def add(self, widget: QWidget) -> None:
        """Add a widget below the others."""
        self._column.addWidget(widget)

    def needed(self, width: int) -> int:
        """Return the height of all widgets in a width, in pixels."""
        return max(self._column.heightForWidth(width), self._column.sizeHint().height())

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Note when a widget needs another height."""
        if watched is self._body and event.type() is QEvent.Type.LayoutRequest:
            needed = self.needed(self.viewport().width())
            if needed != self._needed:
                self._needed = needed
                self.grown.emit()
        return super().eventFilter(watched, event)

    def attend(self, widget: QWidget) -> None:
        """Keep a widget in sight, until another one is more important.

        A part of a widget with the property "together" stands for all of it.
        """
        whole: QWidget | None = widget
        while whole is not None and not whole.property("together"):
            whole = whole.parentWidget()
        self._attended = whole or widget
        self._show_attended()

    def _focus_changed(self, old: QWidget | None, new: QWidget | None) -> None:
        if new is not None and self.isAncestorOf(new):
            self.attend(new)

    def _show_attended(self) -> None:
        """Scroll to the widget: to the end, if it is seen there, else no further than needed."""
        widget, bar = self._attended, self.verticalScrollBar()
        if widget is None or not isValid(widget) or not self.isAncestorOf(widget):
            return
        top = widget.mapTo(self._body, QPoint(0, 0)).y()
        lowest = top + widget.height() - self.viewport().height()
        if top >= bar.maximum():
            bar.setValue(bar.maximum())
        else:
            bar.setValue(max(min(bar.value(), top), min(lowest, top)))


class Middle(QWidget):
    """What is read above, and the foot, which has the height that it needs as far as possible.

    grown  another height would be comfortable
    """

    grown = Signal()

    def __init__(self, above: QWidget) -> None:
        super().__init__()
        self._above, self.foot = above, Foot()
        for widget in (above, self.foot):
            widget.setParent(self)
        self.foot.grown.connect(self._place)
        self.foot.grown.connect(self.grown)

    @property
    def comfortable(self) -> int:
        """The height in which the foot need not scroll, in pixels."""
        return self.foot.needed(self.width()) + LEAST_ABOVE

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return a size in which everything can be reached."""
        return QSize(240, 150)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the size for a comfortable foot."""
        return QSize(self.minimumSizeHint().width(), self.comfortable)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Place both."""
        super().resizeEvent(event)
        self._place()

    def _place(self) -> None:
        width, height = self.width(), self.height()
        most = max(height - LEAST_ABOVE, round(height * _LEAST_SHARE))
        foot = min(self.foot.needed(width), most)
        self._above.setGeometry(0, 0, width, height - foot)
        self.foot.setGeometry(0, height - foot, width, foot)
