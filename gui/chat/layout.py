"""The splitters of the chat page: the list, the conversation and the picture."""

from __future__ import annotations

from PySide6.QtCore import QEvent, Qt, QTimer
from PySide6.QtGui import QResizeEvent, QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QSplitter, QWidget

from gui.chat.middle import Middle
from gui.data.settings import Preferences

NARROW = 720
"""Below this width, in pixels, the list of conversations is hidden."""
STACKED = 960
"""Below this width the picture is above the conversation. It grows with the letters."""
_POINTS = 11
"""The size of letters that STACKED is for."""
_LEAST_PICTURE = 340
"""Room for the tools of the picture, unless it asks for more."""
_EMPTY_WIDTH = 300
_EMPTY_HEIGHT = 130
"""Room for the panel while it has no picture."""


class ChatLayout(QWidget):
    """The list, the conversation, and the picture, which has the larger half.

    The picture is at the right, or above the conversation in a narrow window. What the user sets by
    dragging is remembered for both.
    """

    def __init__(
        self, settings: Preferences, side: QWidget, middle: Middle, picture: QWidget
    ) -> None:
        super().__init__()
        self._settings = settings
        self._side, self._middle, self._picture = side, middle, picture
        self._filled = False
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self.outer = QSplitter(Qt.Orientation.Horizontal)
        self.inner = QSplitter(Qt.Orientation.Horizontal)
        self.inner.setChildrenCollapsible(False)
        self.inner.addWidget(middle)
        self.inner.addWidget(picture)
        self.outer.addWidget(side)
        self.outer.addWidget(self.inner)
        self.outer.setChildrenCollapsible(False)
        self.outer.setStretchFactor(1, 1)
        self.outer.splitterMoved.connect(self._keep_width)
        self.inner.splitterMoved.connect(self._keep_share)
        row.addWidget(self.outer)
        middle.grown.connect(self._make_room)

    @property
    def stacked(self) -> bool:
        """Whether the picture is above the conversation."""
        return self.inner.orientation() is Qt.Orientation.Vertical

    def set_filled(self, filled: bool) -> None:
        """Set whether there is a picture; without one its panel needs little room."""
        if filled != self._filled:
            self._filled = filled
            self._set_sizes()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Adapt to the width."""
        super().resizeEvent(event)
        self._adapt()

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Adapt to the width: a hidden splitter keeps no sizes."""
        super().showEvent(event)
        self._adapt()

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 - Qt's name
        """Adapt to the size of the letters."""
        super().changeEvent(event)
        if event.type() is QEvent.Type.FontChange:
            QTimer.singleShot(0, self, self._adapt)  # the others have the new font then, too

    def _adapt(self) -> None:
        self._side.setVisible(self.width() >= NARROW)
        stacked = self.width() < STACKED * max(1.0, self.font().pointSize() / _POINTS)
        if stacked != self.stacked:
            self.inner.setOrientation(
                Qt.Orientation.Vertical if stacked else Qt.Orientation.Horizontal
            )
            self.inner.insertWidget(0 if stacked else 1, self._picture)
        least = max(_LEAST_PICTURE, self._picture.minimumSizeHint().width())
        self._picture.setMinimumWidth(least if not stacked else 0)
        self._set_sizes()

    def _set_sizes(self) -> None:
        list_width = 0
        if self._side.isVisibleTo(self):
            least = self._side.minimumSizeHint().width()
            list_width = max(self._settings.get("list_width"), least)
        self.outer.setSizes([list_width, max(1, self.width() - list_width)])
        # The layout of the outer splitter happens later, so its result is computed here.
        beside = list_width + self.outer.handleWidth() if list_width else 0
        length = self.height() if self.stacked else self.width() - beside
        length = max(2, length - self.inner.handleWidth())
        picture = round(length * self._settings.get(self._share_name()))
        if not self._filled:
            picture = min(picture, _EMPTY_HEIGHT if self.stacked else _EMPTY_WIDTH)
        if self.stacked:  # the question field comes first
            least = self._picture.minimumSizeHint().height()
            picture = min(picture, max(length - self._middle.comfortable, least))
        # A splitter hides a widget whose size is 0.
        sizes = [max(1, picture), max(1, length - picture)]
        self.inner.setSizes(sizes if self.stacked else sizes[::-1])

    def _make_room(self) -> None:
        """Let the picture use less of a low window, if the question field needs more."""
        if self.stacked:
            self._set_sizes()

    def _share_name(self) -> str:
        return "picture_share_narrow" if self.stacked else "picture_share"

    def _keep_width(self) -> None:
        self._settings.set("list_width", self.outer.sizes()[0])

    def _keep_share(self) -> None:
        sizes = self.inner.sizes()
        if self._filled and any(sizes):
            share = sizes[0 if self.stacked else 1] / (sizes[0] + sizes[1])
            self._settings.set(self._share_name(), min(0.9, max(0.1, round(share, 3))))
