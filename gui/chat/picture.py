"""The panel with the picture of the conversation: zoom, pages, and what the model sees."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QImage, QTransform
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from gui import theme
from gui.background.attachments import Attachment
from gui.background.decoder import DecodedPicture
from gui.chat.view import View
from gui.context import Context
from gui.translation import translate

_SIDE = 1344
"""Side of the square that the model gets, in pixels."""


class PicturePanel(QWidget):
    """The panel.

    page_chosen      (number) the user wants another page of the picture
    open_wanted, paste_wanted, capture_wanted  the user wants to give a picture
    """

    page_chosen = Signal(int)
    open_wanted = Signal()
    paste_wanted = Signal()
    capture_wanted = Signal()

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._attachment: Attachment | None = None
        self._square = False
        self._turns = 0
        self._image: QImage | None = None
        self.setObjectName("panel")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.setAccessibleName(self.tr("Picture"))
        column = QVBoxLayout(self)
        column.setContentsMargins(14, 14, 14, 14)
        column.setSpacing(10)
        heading = QLabel(self.tr("Picture"))
        heading.setProperty("kind", "heading")
        column.addWidget(heading)
        self.view = View()
        self.view.setAccessibleName(self.tr("The picture of this conversation"))
        column.addWidget(self.view, 1)
        invites = self.tr("Drop a picture here,\npaste one with Ctrl+V,\nor open a file.")
        self._empty = QLabel(invites)
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._empty.setProperty("kind", "soft")
        self._empty.setWordWrap(True)
        column.addWidget(self._empty, 1)
        self._facts = QLabel()
        self._facts.setProperty("kind", "soft")
        self._facts.setWordWrap(True)
        column.addWidget(self._facts)
        self.notice = QLabel()
        self.notice.setTextFormat(Qt.TextFormat.PlainText)
        self.notice.setWordWrap(True)
        self.notice.setAccessibleName(self.tr("How the picture was read"))
        column.addWidget(self.notice)
        column.addWidget(self._make_pages())
        sources, looks = QHBoxLayout(), QHBoxLayout()
        self._button(sources, "open", self.tr("Open picture files (Ctrl+O)"), self.open_wanted.emit)
        self._button(sources, "paste", self.tr("Paste a picture"), self.paste_wanted.emit)
        self._button(
            sources,
            "capture",
            self.tr("Capture a part of the screen (Ctrl+Shift+S)"),
            self.capture_wanted.emit,
        )
        self._button(looks, "larger", self.tr("Larger"), lambda: self.view.zoom(1.25))
        self._button(looks, "smaller", self.tr("Smaller"), lambda: self.view.zoom(0.8))
        self._button(looks, "fit", self.tr("Fit"), self.view.fit)
        self._button(looks, "turn", self.tr("Rotate the view"), self._turn)
        self._eye = self._button(looks, "eye", self.tr("What the model sees"), self._look)
        self._eye.setCheckable(True)
        self._eye.setObjectName("eye")
        for row in (looks, sources):
            row.setSpacing(4)
            row.addStretch(1)
            column.addLayout(row)
        self.show_attachment(None)

    def _make_pages(self) -> QWidget:
        """Make the row that chooses a page or frame."""
        self._page_row = QWidget()
        row = QHBoxLayout(self._page_row)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        self.pages = QSpinBox()
        self.pages.setPrefix(self.tr("Page "))
        self.pages.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.pages.setKeyboardTracking(False)  # a page is decoded when its number is complete
        self.pages.setAccessibleName(self.tr("Page of the picture"))
        self.pages.setToolTip(self.tr("Choose another page or frame"))
        self.pages.valueChanged.connect(self.page_chosen)
        self._button(row, "previous", self.tr("Previous page"), self.pages.stepDown)
        row.addWidget(self.pages, 1)
        self._button(row, "next", self.tr("Next page"), self.pages.stepUp)
        return self._page_row

    def show_attachment(self, attachment: Attachment | None, *, turning: bool = False) -> None:
        """Show a picture; None, or one that is not ready, shows none.

        turning  another page is being read; its number stays in the field
        """
        if turning and attachment is self._attachment:
            return
        if attachment is not self._attachment:
            self._turns = 0
        self._attachment = attachment
        found = attachment.picture if attachment is not None else None
        if attachment is None or found is None:
            self._draw(None)
        elif self._square:
            work = lambda: _as_model_sees(found)  # noqa: E731
            self._context.tasks.run(
                work, lambda image: self._show_square(attachment, image), lambda error: None, self
            )
        else:
            self._show(found, attachment.shown)

    def _show_square(self, attachment: Attachment, image: QImage) -> None:
        if self._square and attachment is self._attachment and attachment.picture is not None:
            self._show(attachment.picture, image)

    def _show(self, found: DecodedPicture, image: QImage) -> None:
        self._draw(image)
        self._facts.setText(
            self.tr("{width} x {height}, {format}").format(
                width=found.original_width, height=found.original_height, format=found.format
            )
            + (self.tr(" - as the model sees it: 1344 x 1344") if self._square else "")
        )
        self.notice.setText("\n".join(map(translate, found.notices)))
        self.notice.setVisible(bool(found.notices))
        blocked = self.pages.blockSignals(True)
        self.pages.setRange(1, found.pages)
        self.pages.setSuffix(self.tr(" of {count}").format(count=found.pages))
        self.pages.setValue(found.page)
        self.pages.blockSignals(blocked)
        self._page_row.setVisible(found.pages > 1)

    def _draw(self, image: QImage | None) -> None:
        self._image = image
        self.view.setVisible(image is not None)
        self._empty.setVisible(image is None)
        self._facts.setVisible(image is not None)
        if image is None:
            self.notice.hide()
            self._page_row.hide()
        turned = image
        if image is not None and self._turns:
            turned = image.transformed(QTransform().rotate(90 * self._turns))
        self.view.show_image(turned)

    def _turn(self) -> None:
        self._turns = (self._turns + 1) % 4
        self._draw(self._image)

    def _look(self) -> None:
        self._square = self._eye.isChecked()
        self.show_attachment(self._attachment)

    def _button(
        self, row: QHBoxLayout, icon: str, text: str, do: Callable[[], object]
    ) -> QToolButton:
        button = QToolButton()
        button.setIcon(theme.icon(icon))
        button.setToolTip(text)
        button.setAccessibleName(text)
        button.setProperty("kind", "quiet")
        button.clicked.connect(lambda: do())
        row.addWidget(button)
        return button


def _as_model_sees(found: DecodedPicture) -> QImage:
    """Return the square that the model gets; the engine resizes with the same filter."""
    from PIL import Image

    image = Image.frombuffer("RGB", (found.width, found.height), found.rgb)
    pixels = image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).tobytes()
    return QImage(pixels, _SIDE, _SIDE, 3 * _SIDE, QImage.Format.Format_RGB888).copy()
