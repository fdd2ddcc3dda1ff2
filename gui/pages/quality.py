"""The result of a conversion as bars: bytes of each part before and after, and its error."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication, QEvent, QRect, Qt, QUrl
from PySide6.QtGui import QColor, QDesktopServices, QPainter, QPaintEvent
from PySide6.QtWidgets import QFrame, QLabel, QPushButton, QStyle, QVBoxLayout, QWidget

from cogvlm2_lite.units import format_bytes
from gui import theme
from gui.data.report import ConversionReport, PartReport
from gui.part_names import part_name
from gui.translation import fill

_BAR, _GAP = 8, 10


class QualityCard(QFrame):
    """A summary of the report, with a button that opens the full report."""

    def __init__(self) -> None:
        super().__init__()
        self.setProperty("kind", "card")
        self._report: ConversionReport | None = None
        column = QVBoxLayout(self)
        column.setContentsMargins(18, 14, 18, 14)
        heading = QLabel(QCoreApplication.translate("Quality", "Quality report"))
        heading.setProperty("kind", "heading")
        column.addWidget(heading)
        self.text = QLabel()
        self.text.setWordWrap(True)
        column.addWidget(self.text)
        self.drawing = PartBars()
        column.addWidget(self.drawing)
        self.open_button = QPushButton(
            QCoreApplication.translate("Quality", "Open the whole report")
        )
        self.open_button.clicked.connect(self._open)
        column.addWidget(self.open_button, alignment=Qt.AlignmentFlag.AlignLeading)

    def show_report(self, report: ConversionReport | None) -> None:
        """Show a report; None hides the card."""
        self._report = report
        self.setVisible(report is not None)
        if report is None:
            return
        text = fill(
            QCoreApplication.translate(
                "Quality", "{after} instead of {before}, {times:.1f} times smaller."
            ),
            after=format_bytes(report.result_bytes),
            before=format_bytes(report.source_bytes),
            times=report.source_bytes / max(report.result_bytes, 1),
        )
        if any(part.error is not None for part in report.parts):
            more = QCoreApplication.translate(
                "Quality",
                "The percentage is the error of a part's outputs on held-out samples, "
                "relative to round to nearest (100%). Smaller is better.",
            )
        else:
            more = QCoreApplication.translate("Quality", "Rounded to nearest, not calibrated.")
        self.text.setText(f"{text} {more}")
        self.drawing.show_parts(report.parts)
        self.open_button.setEnabled(report.page.exists())

    def _open(self) -> None:
        if self._report is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._report.page)))


class PartBars(QWidget):
    """Two thin bars for each part: before and after."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: tuple[PartReport, ...] = ()
        self.setAccessibleName(QCoreApplication.translate("Quality", "Bytes of each part"))

    def show_parts(self, parts: tuple[PartReport, ...]) -> None:
        """Draw these parts."""
        self._parts = parts
        self.setAccessibleDescription(
            "\n".join(f"{part_name(p.part)}: {_sizes_text(p)}" for p in parts)
        )
        self.setFixedHeight(len(parts) * self._row())
        self.update()

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 - Qt's name
        """Adapt the height to the font."""
        super().changeEvent(event)
        if event.type() is QEvent.Type.FontChange:
            self.setFixedHeight(len(self._parts) * self._row())

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw the bars."""
        colours, metrics = theme.current(), self.fontMetrics()
        label = max((metrics.horizontalAdvance(part_name(p.part)) for p in self._parts), default=0)
        amount = max((metrics.horizontalAdvance(_sizes_text(p)) for p in self._parts), default=0)
        x, room = label + _GAP, max(self.width() - label - amount - 2 * _GAP, 40)
        most = max((p.source_bytes for p in self._parts), default=1) or 1
        with QPainter(self) as painter:
            for place, part in enumerate(self._parts):
                y, high = place * self._row(), self._row()
                painter.setPen(QColor(colours.ink))
                self._text(painter, QRect(0, y, label, high), part_name(part.part))
                self._text(painter, QRect(x + room + _GAP, y, amount, high), _sizes_text(part))
                top = y + (high - 2 * _BAR) // 2
                for count, colour in (
                    (part.source_bytes, colours.line),
                    (part.result_bytes, colours.accent),
                ):
                    box = QRect(x, top, max(round(room * count / most), 1), _BAR)
                    painter.fillRect(self._mirrored(box), QColor(colour))
                    top += _BAR

    def _row(self) -> int:
        return max(self.fontMetrics().height(), 2 * _BAR) + 6

    def _text(self, painter: QPainter, box: QRect, text: str) -> None:
        middle = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeading
        aligned = QStyle.visualAlignment(self.layoutDirection(), middle)
        painter.drawText(self._mirrored(box), aligned, text)

    def _mirrored(self, box: QRect) -> QRect:
        return QStyle.visualRect(self.layoutDirection(), self.rect(), box)


def _sizes_text(part: PartReport) -> str:
    text = f"{format_bytes(part.source_bytes)} → {format_bytes(part.result_bytes)}"
    return text if part.error is None else f"{text}, {part.error:.0%}"
