"""The losses of a training run as two lines."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PySide6.QtCore import QPointF, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from gui import theme
from gui.teach.run import Loss
from gui.translation import fill, sentences

_LINES, _GAP = 4, 8
"""Horizontal lines of the grid, and pixels around the letters."""
_DOT = 3.5


class LossCurve(QWidget):
    """The loss of each step as a line, and that of the held-out answers as a line with dots."""

    def __init__(self) -> None:
        super().__init__()
        self._training: Sequence[Loss] = ()
        self._held_out: Sequence[Loss] = ()
        self._steps = 1
        self.setAccessibleName(self.tr("Loss"))
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def show_losses(self, training: Sequence[Loss], held_out: Sequence[Loss], steps: int) -> None:
        """Draw these losses. steps: of the whole run"""
        self._training, self._held_out = tuple(training), tuple(held_out)
        self._steps = max(steps, 1)
        self.setAccessibleDescription(self._describe())
        self.update()

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return a low and wide size."""
        return QSize(420, 11 * self.fontMetrics().height())

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw the grid, the lines and their names."""
        colours, metrics = theme.current(), self.fontMetrics()
        losses = [loss for _, loss in (*self._training, *self._held_out) if math.isfinite(loss)]
        most = _round_up(max(losses, default=1.0))
        left = metrics.horizontalAdvance(_number(most)) + _GAP
        row = metrics.height()
        plot = QRectF(left, 1.5 * row, self.width() - left - _GAP, self.height() - 3 * row - _GAP)
        with QPainter(self) as painter:
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            for place in range(_LINES + 1):
                y = plot.bottom() - place / _LINES * plot.height()
                painter.setPen(QPen(QColor(colours.faint if place else colours.line), 1))
                painter.drawLine(QPointF(plot.left(), y), QPointF(plot.right(), y))
                painter.setPen(QColor(colours.soft))
                box = QRect(0, round(y - row / 2), left - _GAP, row)
                painter.drawText(box, Qt.AlignmentFlag.AlignRight, _number(most * place / _LINES))
            below = QRect(round(plot.left()), round(plot.bottom()) + _GAP // 2, 0, row)
            below.setRight(round(plot.right()))
            painter.drawText(below, Qt.AlignmentFlag.AlignLeft, "0")
            painter.drawText(below, Qt.AlignmentFlag.AlignRight, str(self._steps))
            painter.drawText(below, Qt.AlignmentFlag.AlignHCenter, self.tr("step"))
            training, held_out = QColor(colours.soft), QColor(colours.accent)
            self._draw(painter, plot, _thin(self._training, int(plot.width())), most, training, 1.4)
            self._draw(painter, plot, self._held_out, most, held_out, 2.2, dots=True)
            self._draw_names(painter, row, left, ((training, 1.4), (held_out, 2.2)))

    def _draw(
        self,
        painter: QPainter,
        plot: QRectF,
        losses: Sequence[Loss],
        most: float,
        colour: QColor,
        width: float,
        *,
        dots: bool = False,
    ) -> None:
        """Draw one line. Losses that are no numbers are left out."""
        points = [
            QPointF(
                plot.left() + step / self._steps * plot.width(),
                plot.bottom() - loss / most * plot.height(),
            )
            for step, loss in losses
            if math.isfinite(loss)
        ]
        painter.setPen(QPen(colour, width))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        if len(points) > 1:
            painter.drawPolyline(points)
        if dots or len(points) == 1:
            painter.setBrush(colour)
            for point in points:
                painter.drawEllipse(point, _DOT, _DOT)

    def _draw_names(
        self, painter: QPainter, row: int, left: int, lines: Sequence[tuple[QColor, float]]
    ) -> None:
        x = left
        names = (self.tr("training"), self.tr("held out"))
        for (colour, width), name in zip(lines, names, strict=True):
            painter.setPen(QPen(colour, width))
            painter.drawLine(QPointF(x, row / 2), QPointF(x + 2 * row, row / 2))
            x += 2 * row + _GAP
            painter.setPen(QColor(theme.current().ink))
            advance = self.fontMetrics().horizontalAdvance(name)
            painter.drawText(QRect(x, 0, advance + 2, row), Qt.AlignmentFlag.AlignLeft, name)
            x += advance + 3 * _GAP

    def _describe(self) -> str:
        texts = []
        if self._training:
            step, loss = self._training[-1]
            template = self.tr("The training loss is {loss:.3f} at step {step}.")
            texts.append(fill(template, loss=loss, step=step))
        if self._held_out:
            step, loss = self._held_out[-1]
            template = self.tr("The held-out loss is {loss:.3f} at step {step}.")
            texts.append(fill(template, loss=loss, step=step))
        return sentences(*texts)


def _thin(losses: Sequence[Loss], most: int) -> Sequence[Loss]:
    """Return at most so many points: the means of neighbours."""
    each = -(-len(losses) // max(most, 1))
    if each <= 1:
        return losses
    groups = (losses[at : at + each] for at in range(0, len(losses), each))
    return [(group[-1][0], sum(loss for _, loss in group) / len(group)) for group in groups]


def _round_up(loss: float) -> float:
    """Return the top of a scale for a loss, a round number just above it."""
    if loss <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(loss))
    return next(
        (top * unit for top in (1, 1.2, 1.6, 2, 3, 4, 6, 8) if top * unit >= loss), 10 * unit
    )


def _number(value: float) -> str:
    return f"{value:.3g}"
