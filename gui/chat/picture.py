"""The panel with the picture: drop, paste or open one, zoom, and show what the model sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QMimeData, Qt, Signal
from PySide6.QtGui import (
    QDragEnterEvent,
    QDragLeaveEvent,
    QDropEvent,
    QGuiApplication,
    QImage,
    QTransform,
)
from PySide6.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.inputs.formats import readable_suffixes
from gui import theme
from gui.background.decoder import DecodedPicture, preview
from gui.chat.capture import Capture, can_capture
from gui.chat.dropped import png_bytes, read_file, read_mime
from gui.chat.view import View
from gui.context import Context
from gui.translation import error_text, translate


class PicturePanel(QWidget):
    """The panel.

    chosen         (bytes) a picture file from the user, which could be decoded
    page_chosen    (number) another page of the picture, which could be decoded
    files_dropped  (paths) several files, or one folder
    failed         (message) a file could not be used
    """

    chosen = Signal(bytes)
    page_chosen = Signal(int)
    files_dropped = Signal(list)
    failed = Signal(str)

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._data = b""
        self._page: int | None = None
        self._square = False
        self._turns = 0
        self._image: QImage | None = None
        self._decoded: tuple[bytes, int | None, bool, DecodedPicture] | None = None
        self.setObjectName("panel")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.setAcceptDrops(True)
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
        self._button(sources, "open", self.tr("Open picture files (Ctrl+O)"), self.ask_for_file)
        self._button(sources, "paste", self.tr("Paste a picture"), self.paste)
        self._button(
            sources, "capture", self.tr("Capture a part of the screen (Ctrl+Shift+S)"), self.capture
        )
        self._button(looks, "larger", self.tr("Larger"), lambda: self.view.zoom(1.25))
        self._button(looks, "smaller", self.tr("Smaller"), lambda: self.view.zoom(0.8))
        self._button(looks, "fit", self.tr("Fit"), self.view.fit)
        self._button(looks, "turn", self.tr("Rotate the view"), self._turn)
        self._eye = self._button(looks, "eye", self.tr("What the model sees"), self._look)
        self._eye.setCheckable(True)
        for row in (looks, sources):
            row.setSpacing(4)
            row.addStretch(1)
            column.addLayout(row)
        self._target = QLabel(self.tr("Drop the picture"), self)
        self._target.setObjectName("drop")
        self._target.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._target.hide()
        self.show_picture(b"")

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
        self.pages.valueChanged.connect(self._turn_page)
        self._button(row, "previous", self.tr("Previous page"), self.pages.stepDown)
        row.addWidget(self.pages, 1)
        self._button(row, "next", self.tr("Next page"), self.pages.stepUp)
        return self._page_row

    def show_picture(self, data: bytes, page: int | None = None) -> None:
        """Show a picture file that was decoded before; b"" shows none.

        page  from 1; None: the one that open_image chooses
        """
        if not data or data != self._data:
            self._turns = 0
            self._draw(None)
        self._data, self._page = data, page
        if data:
            self._decode(data, page)

    def load(self, data: bytes) -> None:
        """Decode a picture file from the user, and emit `chosen` or `failed`."""
        self._decode(data, None, lambda: self.chosen.emit(data))

    def accept_mime(self, mime: QMimeData) -> bool:
        """Use what was dropped or pasted. Returns False if there is no picture in it."""
        try:
            dropped = read_mime(mime)
        except CogVLM2LiteError as error:
            self.failed.emit(error_text(error))
            return True
        if dropped.data:
            self.load(dropped.data)
        elif dropped.files:
            self.files_dropped.emit(list(dropped.files))
        elif dropped.url:
            self.failed.emit(
                self.tr(
                    "{address} is a network address, and this program downloads nothing. "
                    "Save the picture and drop the file."
                ).format(address=dropped.url)
            )
        else:
            return False
        return True

    def paste(self) -> None:
        """Use the picture on the clipboard."""
        if not self.accept_mime(QGuiApplication.clipboard().mimeData()):
            self.failed.emit(self.tr("There is no picture on the clipboard."))

    def ask_for_file(self) -> None:
        """Ask for one or more picture files."""
        patterns = " ".join(f"*{suffix}" for suffix in readable_suffixes())
        names, _ = QFileDialog.getOpenFileNames(
            self, self.tr("Open pictures"), "", self.tr("Pictures") + f" ({patterns})"
        )
        if len(names) > 1:
            self.files_dropped.emit([Path(name) for name in names])
        elif names:
            try:
                self.load(read_file(Path(names[0])))
            except CogVLM2LiteError as error:
                self.failed.emit(error_text(error))

    def capture(self) -> None:
        """Capture a part of the screen."""
        if can_capture():
            Capture(self.window(), self.captured)
        else:
            self.failed.emit(
                self.tr(
                    "On Wayland, programs can't capture the screen. Use the desktop's own "
                    "screenshot key, then paste here with Ctrl+V."
                )
            )

    def captured(self, image: QImage | None) -> None:
        """Load a part of the screen; None if the user cancelled."""
        if image is not None:
            self.load(png_bytes(image))

    def _turn_page(self, page: int) -> None:
        self._decode(self._data, page, lambda: self.page_chosen.emit(page))

    def _decode(
        self, data: bytes, page: int | None, choose: Callable[[], None] | None = None
    ) -> None:
        """Decode a picture file in a child process, unless it was the last one decoded.

        choose  called with a decoded picture instead of showing it; the chat page then shows it
        """
        square = self._square

        def decoded(found: DecodedPicture) -> None:
            self._decoded = (data, page, square, found)
            if choose is not None:
                choose()
            elif (self._data, self._page) == (data, page):
                self._show(found, square=square)

        def failed(error: CogVLM2LiteError) -> None:
            self.failed.emit(error_text(error))
            if self._data and data == self._data and page != self._page:
                self.show_picture(self._data, self._page)  # the page that could be decoded

        if self._decoded is not None and self._decoded[:3] == (data, page, square):
            decoded(self._decoded[3])
            return
        work = lambda: preview(data, page=page, as_model_sees=square)  # noqa: E731
        self._context.tasks.run(work, decoded, failed, self)

    def _show(self, found: DecodedPicture, *, square: bool) -> None:
        wide, form = 3 * found.width, QImage.Format.Format_RGB888
        self._draw(QImage(found.rgb, found.width, found.height, wide, form).copy())
        self._facts.setText(
            self.tr("{width} x {height}, {format}").format(
                width=found.original_width, height=found.original_height, format=found.format
            )
            + (self.tr(" - as the model sees it: 1344 x 1344") if square else "")
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
        if self._data:
            self._decode(self._data, self._page)

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

    # Qt's events

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: N802 - Qt's name
        """Show where to drop."""
        mime = event.mimeData()
        if mime.hasUrls() or mime.hasImage() or mime.hasHtml():
            event.acceptProposedAction()
            self._target.setGeometry(self.rect().adjusted(8, 8, -8, -8))
            self._target.raise_()
            self._target.show()

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:  # noqa: N802 - Qt's name
        """Hide the drop target."""
        self._target.hide()

    def dropEvent(self, event: QDropEvent) -> None:  # noqa: N802 - Qt's name
        """Use what was dropped."""
        self._target.hide()
        event.acceptProposedAction()
        if not self.accept_mime(event.mimeData()):
            self.failed.emit(self.tr("This is not a picture."))
