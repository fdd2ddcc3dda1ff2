"""A row of controls that wraps to the next line when it is too narrow.

In a row of Qt the widths of its controls add up, so a narrow window or large letters cut it off.
"""

from __future__ import annotations

from PySide6.QtCore import QPoint, QRect, QSize, Qt
from PySide6.QtWidgets import QLayout, QLayoutItem, QSizePolicy, QSpacerItem, QStyle


class FlowLayout(QLayout):
    """Controls side by side, in as many lines as they need.

    What is left of a line goes to its stretch, or to the controls that can use more.
    """

    def __init__(self, *, spacing: int = 8, between_lines: int = 6) -> None:
        super().__init__()
        self._items: list[QLayoutItem] = []
        self._between_lines = between_lines
        self.setSpacing(spacing)
        self.setContentsMargins(0, 0, 0, 0)

    def addItem(self, item: QLayoutItem) -> None:  # noqa: N802 - Qt's name
        """Add an item at the end."""
        self._items.append(item)

    def add_layout(self, layout: QLayout) -> None:
        """Add a row at the end that is not divided, such as a label and its field."""
        self.addChildLayout(layout)
        self.addItem(layout)

    def add_stretch(self) -> None:
        """Put what follows at the end of the line, if it fits into it."""
        policy = QSizePolicy.Policy
        self.addItem(QSpacerItem(0, 0, policy.Expanding, policy.Minimum))

    def count(self) -> int:
        """Return the number of items."""
        return len(self._items)

    def itemAt(self, index: int) -> QLayoutItem | None:  # noqa: N802 - Qt's name
        """Return an item, or None behind the last one: Qt counts in this way."""
        return self._items[index] if 0 <= index < len(self._items) else None

    def takeAt(self, index: int) -> QLayoutItem | None:  # noqa: N802 - Qt's name
        """Remove an item and return it."""
        return self._items.pop(index) if 0 <= index < len(self._items) else None

    def expandingDirections(self) -> Qt.Orientation:  # noqa: N802 - Qt's name
        """Return that a row takes the width of its parent."""
        return Qt.Orientation.Horizontal

    def hasHeightForWidth(self) -> bool:  # noqa: N802 - Qt's name
        """Return True: a narrow row has more lines."""
        return True

    def heightForWidth(self, width: int) -> int:  # noqa: N802 - Qt's name
        """Return the height of all lines at a width."""
        lines = self._lines(width)
        return sum(map(_height, lines)) + self._between_lines * max(0, len(lines) - 1)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the size of one line with everything."""
        shown = self._shown()
        return QSize(self._width(shown), _height(shown))

    def minimumSize(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the size of the widest item."""
        widest = max((item.minimumSize().width() for item in self._shown()), default=0)
        return QSize(widest, _height(self._shown()))

    def setGeometry(self, place: QRect) -> None:  # noqa: N802 - Qt's name
        """Place the items."""
        super().setGeometry(place)
        parent = self.parentWidget()
        direction = (
            parent.layoutDirection() if parent is not None else Qt.LayoutDirection.LeftToRight
        )
        top = place.top()
        for line in self._lines(place.width()):
            left, height = place.left(), _height(line)
            extra = max(0, place.width() - self._width(line))
            growing = [item for item in line if item.spacerItem() is not None] or [
                item for item in line if item.expandingDirections() & Qt.Orientation.Horizontal
            ]
            for item in line:
                size = item.sizeHint()
                width = min(size.width(), place.width())
                width += extra // len(growing) if item in growing else 0
                lowered = (height - min(size.height(), height)) // 2
                box = QRect(QPoint(left, top + lowered), QSize(width, height - 2 * lowered))
                item.setGeometry(QStyle.visualRect(direction, place, box))
                left += width + (0 if item.spacerItem() is not None else self.spacing())
            top += height + self._between_lines

    def _shown(self) -> list[QLayoutItem]:
        return [item for item in self._items if item.spacerItem() is not None or not item.isEmpty()]

    def _lines(self, width: int) -> list[list[QLayoutItem]]:
        """Return the items of each line."""
        lines: list[list[QLayoutItem]] = []
        for item in self._shown():
            if lines and self._width([*lines[-1], item]) <= width:
                lines[-1].append(item)
            else:
                lines.append([item])
        return lines

    def _width(self, line: list[QLayoutItem]) -> int:
        widths = [item.sizeHint().width() for item in line if item.spacerItem() is None]
        return sum(widths) + self.spacing() * max(0, len(widths) - 1)


def _height(line: list[QLayoutItem]) -> int:
    return max((item.sizeHint().height() for item in line), default=0)
