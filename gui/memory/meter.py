"""The RAM in use now: by the engine process and by all others, measured twice a second."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
from PySide6.QtCore import QCoreApplication, QRect, Qt
from PySide6.QtGui import QBrush, QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QStyle, QWidget

from cogvlm2_lite.units import format_bytes
from gui import theme
from gui.translation import fill

_HEIGHT = 18


@dataclass(frozen=True, kw_only=True)
class Reading:
    """RAM in bytes. engine: of its process with mapped files; 0 without a process."""

    total: int
    free: int
    engine: int = 0

    @property
    def others(self) -> int:
        """Used by all other programs and the system."""
        return max(self.total - self.free - self.engine, 0)


def read(pid: int | None) -> Reading:
    """Measure the computer, and the engine process if there is one."""
    memory = psutil.virtual_memory()
    engine = 0
    if pid is not None:
        try:
            engine = psutil.Process(pid).memory_info().rss
        except psutil.Error:
            engine = 0  # it has ended
    # Pages of mapped files count for the process although they are available to others.
    engine = min(engine, memory.total - memory.available)
    return Reading(total=memory.total, free=memory.available, engine=engine)


class MeterBar(QWidget):
    """A reading as one bar."""

    def __init__(self) -> None:
        super().__init__()
        self._reading = Reading(total=1, free=1)
        self.setFixedHeight(_HEIGHT)
        self.setAccessibleName(QCoreApplication.translate("Memory", "RAM now"))

    def show_reading(self, reading: Reading) -> None:
        """Draw a reading."""
        self._reading = reading
        self.setAccessibleDescription(describe(reading))
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw the bar."""
        colours, at = theme.current(), 0.0
        with QPainter(self) as painter:
            painter.fillRect(self.rect(), QColor(colours.code))
            for count, colour in (
                (self._reading.engine, colours.accent),
                (self._reading.others, colours.soft),
            ):
                start, at = at, at + self.width() * count / self._reading.total
                box = QRect(round(start), 0, round(at) - round(start), self.height())
                turned = QStyle.visualRect(self.layoutDirection(), self.rect(), box)
                painter.fillRect(turned, QBrush(QColor(colour), Qt.BrushStyle.SolidPattern))


def describe(reading: Reading) -> str:
    """Return a reading as text."""
    return fill(
        QCoreApplication.translate(
            "Memory", "RAM now: engine {engine}, other programs {others}, {free} of {total} free."
        ),
        engine=format_bytes(reading.engine),
        others=format_bytes(reading.others),
        free=format_bytes(reading.free),
        total=format_bytes(reading.total),
    )
