"""Draws the memory plan: a bar for each phase with coloured parts, and a line at the budget."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QCoreApplication, QEvent, QRect, Qt
from PySide6.QtGui import QBrush, QColor, QPainter, QPaintEvent, QPen, QResizeEvent
from PySide6.QtWidgets import QSizePolicy, QStyle, QWidget

from cogvlm2_lite.units import format_bytes
from gui import theme
from gui.memory.plan import Bar, Device, parts_of
from gui.part_names import part_name
from gui.translation import fill

_COLOURS = {
    "language expert": "#2f8f7a",
    "lm_head": "#8a6fb3",
    "vision expert": "#d99a2b",
    "vision tower": "#4c7fb8",
    "projector": "#8fb7dd",
    "decoder norms": "#7d8a86",
    "stream buffers": "#b0a89c",
    "key/value cache": "#c8584f",
    "activations": "#9a7458",
    "reserved for other phases": "#c9c4bb",
}
_BAR, _THIN, _GAP, _CHIP = 18, 7, 10, 11


def colour_of(part: str) -> QColor:
    """Return a part's colour, the same in every bar."""
    return QColor(_COLOURS.get(part, "#888888"))


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """Sizes in a row, in pixels."""

    line: int
    label: int
    amount: int
    row: int


class PlanBars(QWidget):
    """The bars of all devices of a plan, with a legend."""

    def __init__(self) -> None:
        super().__init__()
        self._devices: tuple[Device, ...] = ()
        self.setAccessibleName(QCoreApplication.translate("Memory", "The plan as bars"))
        policy = QSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)

    def show_devices(self, devices: tuple[Device, ...]) -> None:
        """Draw these devices."""
        self._devices = devices
        self.setAccessibleDescription("\n".join(self._descriptions()))
        self._fit()
        self.update()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Adapt the height to the width."""
        super().resizeEvent(event)
        self._fit()

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 - Qt's name
        """Adapt the height to the font."""
        super().changeEvent(event)
        if event.type() is QEvent.Type.FontChange:
            self._fit()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw the bars."""
        with QPainter(self) as painter:
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            self._paint(painter)

    def _fit(self) -> None:
        self.setFixedHeight(max(self._paint(None), 1))

    def _descriptions(self) -> list[str]:
        return [
            f"{device.name}, {part_name(bar.phase)}: {format_bytes(bar.held_bytes)}"
            for device in self._devices
            for bar in device.bars
        ]

    def _sizes(self) -> _Sizes:
        metrics = self.fontMetrics()
        labels = [part_name(bar.phase) for d in self._devices for bar in d.bars]
        return _Sizes(
            line=metrics.height(),
            label=max((metrics.horizontalAdvance(text) for text in labels), default=0) + _GAP,
            amount=metrics.horizontalAdvance("+ 88.88 GiB") + _GAP,
            row=max(_BAR + 2 + _THIN, 2 * metrics.height()) + _GAP,
        )

    def _paint(self, painter: QPainter | None) -> int:
        """Draw everything, or only measure if painter is None. Returns the height in pixels."""
        sizes, y = self._sizes(), 0
        for device in self._devices:
            scale = max(device.budget_bytes, device.peak_bytes, 1)
            self._text(painter, QRect(0, y, self.width(), sizes.line), _title(device), bold=True)
            y += sizes.line + _GAP
            top = y
            for bar in device.bars:
                self._row(painter, y, bar, scale, sizes)
                y += sizes.row
            self._budget(painter, top, y - _GAP, device, scale, sizes)
            y += _GAP
        return self._legend(painter, y, sizes)

    def _row(self, painter: QPainter | None, y: int, bar: Bar, scale: int, sizes: _Sizes) -> None:
        if painter is None:
            return
        colours, room = theme.current(), self._room(sizes)
        middle = y + (_BAR - sizes.line) // 2  # large letters are higher than the bar
        self._text(painter, QRect(0, middle, sizes.label, sizes.line), part_name(bar.phase))
        self._box(painter, QRect(sizes.label, y, room, _BAR), QBrush(QColor(colours.code)))
        self._pieces(painter, sizes.label, y, _BAR, bar.held, scale)
        end = QRect(sizes.label + room + _GAP, middle, sizes.amount - _GAP, sizes.line)
        self._text(painter, end, format_bytes(bar.held_bytes))
        if bar.streamed:
            self._pieces(
                painter, sizes.label, y + _BAR + 2, _THIN, bar.streamed, scale, streamed=True
            )
            amount = f"+ {format_bytes(bar.streamed_bytes)}"
            self._text(painter, end.translated(0, sizes.line), amount, soft=True)

    def _pieces(
        self,
        painter: QPainter,
        x: int,
        y: int,
        height: int,
        pieces: tuple[tuple[str, int], ...],
        scale: int,
        *,
        streamed: bool = False,
    ) -> None:
        """Draw parts side by side, cut at the end of the bar. Streamed parts are hatched."""
        room, at = self._room(self._sizes()), 0.0
        for part, count in pieces:
            start, at = at, at + room * count / scale
            box = QRect(x + round(start), y, max(round(at) - round(start), 1), height)
            brush = QBrush(colour_of(part))
            if streamed:
                brush.setStyle(Qt.BrushStyle.Dense4Pattern)
            self._box(painter, box.intersected(QRect(x, y, room, height)), brush)

    def _budget(
        self,
        painter: QPainter | None,
        top: int,
        bottom: int,
        device: Device,
        scale: int,
        sizes: _Sizes,
    ) -> None:
        if painter is None:
            return
        x = sizes.label + round(self._room(sizes) * device.budget_bytes / scale)
        line = self._mirrored(QRect(x, top - 3, 1, bottom - top + 6))
        painter.setPen(QPen(QColor(theme.current().ink), 1, Qt.PenStyle.DashLine))
        painter.drawLine(line.topLeft(), line.bottomLeft())

    def _legend(self, painter: QPainter | None, y: int, sizes: _Sizes) -> int:
        x, metrics = 0, self.fontMetrics()
        streamed = any(bar.streamed for device in self._devices for bar in device.bars)
        words = [(part, part_name(part)) for part in parts_of(self._devices)]
        if streamed:
            words.append(
                ("", QCoreApplication.translate("Memory", "hatched: streamed for each use"))
            )
        for part, text in words:
            width = (_CHIP + 5 if part else 0) + metrics.horizontalAdvance(text) + 2 * _GAP
            if x and x + width > self.width():
                x, y = 0, y + sizes.line + 4
            if painter is not None:
                if part:
                    middle = y + (sizes.line - _CHIP) // 2
                    self._box(painter, QRect(x, middle, _CHIP, _CHIP), QBrush(colour_of(part)))
                shift = _CHIP + 5 if part else 0
                self._text(painter, QRect(x + shift, y, width, sizes.line), text, soft=True)
            x += width
        return y + sizes.line + 4 if words else y

    def _room(self, sizes: _Sizes) -> int:
        return max(self.width() - sizes.label - sizes.amount - _GAP, 40)

    def _mirrored(self, box: QRect) -> QRect:
        """Mirror a box in right-to-left languages."""
        return QStyle.visualRect(self.layoutDirection(), self.rect(), box)

    def _box(self, painter: QPainter, box: QRect, brush: QBrush) -> None:
        painter.fillRect(self._mirrored(box), brush)

    def _text(
        self,
        painter: QPainter | None,
        box: QRect,
        text: str,
        *,
        bold: bool = False,
        soft: bool = False,
    ) -> None:
        if painter is None:
            return
        colours, font = theme.current(), self.font()
        font.setBold(bold)
        painter.setFont(font)
        painter.setPen(QColor(colours.soft if soft else colours.ink))
        middle = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeading
        aligned = QStyle.visualAlignment(self.layoutDirection(), middle)
        painter.drawText(self._mirrored(box), aligned, text)


def _title(device: Device) -> str:
    return fill(
        QCoreApplication.translate("Memory", "{device}: {peak} at the peak, {budget} may be used"),
        device="RAM" if device.in_ram else device.name,
        peak=format_bytes(device.peak_bytes),
        budget=format_bytes(device.budget_bytes),
    )
