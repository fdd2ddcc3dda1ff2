"""What is used just now: the engine's process and the whole computer, read twice a second."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
from PySide6.QtCore import QCoreApplication, QRect, Qt
from PySide6.QtGui import QBrush, QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QStyle, QWidget

from cogvlm2_lite.units import format_bytes
from gui import theme

_HEIGHT = 18


@dataclass(frozen=True, kw_only=True)
class Reading:
    """RAM in bytes. engine: of its process, mapped files included; 0 without one."""

    total: int
    free: int
    engine: int = 0

    @property
    def others(self) -> int:
        """What all other programs and the system use."""
        return max(self.total - self.free - self.engine, 0)


def read(pid: int | None) -> Reading:
    """Look at the computer, and at the engine's process if there is one."""
    memory = psutil.virtual_memory()
    engine = 0
    if pid is not None:
        try:
            engine = psutil.Process(pid).memory_info().rss
        except psutil.Error:
            engine = 0  # it ended since
    # Pages of a mapped file count for a process and are free for others all the same.
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
        """Draw it."""
        self._reading = reading
        self.setAccessibleDescription(describe(reading))
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw."""
        painter, colours, at = QPainter(self), theme.current(), 0.0
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
    """Say a reading."""
    return QCoreApplication.translate(
        "Memory", "RAM now: the engine {engine}, other programs {others}, free {free} of {total}."
    ).format(
        engine=format_bytes(reading.engine),
        others=format_bytes(reading.others),
        free=format_bytes(reading.free),
        total=format_bytes(reading.total),
    )
