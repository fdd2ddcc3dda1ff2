"""The picture at the side: drop, paste or choose one, look closely, see what the model sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QBuffer, QByteArray, QIODevice, QMimeData, QRectF, Qt, Signal
from PySide6.QtGui import (
    QDragEnterEvent,
    QDragLeaveEvent,
    QDropEvent,
    QGuiApplication,
    QImage,
    QPainter,
    QResizeEvent,
    QTransform,
    QWheelEvent,
)
from PySide6.QtWidgets import (
    QFileDialog,
    QGraphicsScene,
    QGraphicsView,
    QHBoxLayout,
    QLabel,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from cogvlm2_lite.errors import CogVLM2LiteError
from gui import theme
from gui.context import Context
from gui.pictures import Preview, preview

_KINDS = "*.png *.jpg *.jpeg *.webp *.bmp *.gif *.tif *.tiff"


def picture_bytes(mime: QMimeData) -> bytes | None:
    """Give the picture file that was dropped or pasted; None when there is none.

    Raises CogVLM2LiteError for a file that can't be read.
    """
    for url in mime.urls():
        if url.isLocalFile():
            return read_file(Path(url.toLocalFile()))
    if mime.hasImage():
        image = mime.imageData()
        if isinstance(image, QImage) and not image.isNull():
            return png_bytes(image)
    return None


def read_file(path: Path) -> bytes:
    """Read a picture file; CogVLM2LiteError says why not."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CogVLM2LiteError(
            f"{path.name} can't be read: {error.strerror or error}.",
            hint="Check that it still exists and that you may read it.",
        ) from error


def png_bytes(image: QImage) -> bytes:
    """Give an image as a PNG file."""
    store = QByteArray()
    buffer = QBuffer(store)
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    # Stubs of PySide6 want bytes for the format, and its code takes text.
    image.save(buffer, "PNG")  # type: ignore[call-overload]
    return bytes(store.data())


class View(QGraphicsView):
    """A picture that can be moved and made larger; the wheel zooms around the pointer."""

    def __init__(self) -> None:
        super().__init__()
        self._scene = QGraphicsScene(self)
        self.setScene(self._scene)
        self.setFrameShape(QGraphicsView.Shape.NoFrame)
        self.setProperty("kind", "clear")
        self.setRenderHints(QPainter.RenderHint.SmoothPixmapTransform)
        self.setDragMode(QGraphicsView.DragMode.ScrollHandDrag)
        self.setTransformationAnchor(QGraphicsView.ViewportAnchor.AnchorUnderMouse)
        self.setAcceptDrops(False)
        self._fitted = True

    def show_image(self, image: QImage | None) -> None:
        """Show an image, fitted; None shows nothing."""
        self._scene.clear()
        if image is not None:
            from PySide6.QtGui import QPixmap

            self._scene.addPixmap(QPixmap.fromImage(image))
            self._scene.setSceneRect(QRectF(image.rect()))
        self.fit()

    def fit(self) -> None:
        """Show all of it."""
        self._fitted = True
        if self._scene.items():
            self.fitInView(self._scene.sceneRect(), Qt.AspectRatioMode.KeepAspectRatio)

    def zoom(self, factor: float) -> None:
        """Make it larger or smaller."""
        self._fitted = False
        self.scale(factor, factor)

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802 - Qt's name
        """Zoom."""
        self.zoom(1.25 if event.angleDelta().y() > 0 else 0.8)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Stay fitted."""
        super().resizeEvent(event)
        if self._fitted:
            self.fit()


class PicturePanel(QWidget):
    """The panel.

    chosen  the bytes of a picture file that a person gave and that could be decoded
    trouble a sentence about one that could not
    """

    chosen = Signal(bytes)
    trouble = Signal(str)

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._data = b""
        self._square = False
        self._turns = 0
        self._image: QImage | None = None
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
        self._buttons = QHBoxLayout()
        self._buttons.setSpacing(4)
        self._button("open", self.tr("Open a picture file (Ctrl+O)"), self.ask_for_file)
        self._button("paste", self.tr("Paste a picture"), self.paste)
        self._button("larger", self.tr("Larger"), lambda: self.view.zoom(1.25))
        self._button("smaller", self.tr("Smaller"), lambda: self.view.zoom(0.8))
        self._button("fit", self.tr("Fit"), self.view.fit)
        self._button("turn", self.tr("Turn the view"), self._turn)
        self._eye = self._button("eye", self.tr("What the model sees"), self._look)
        self._eye.setCheckable(True)
        self._buttons.addStretch(1)
        column.addLayout(self._buttons)
        self._target = QLabel(self.tr("Drop the picture"), self)
        self._target.setObjectName("drop")
        self._target.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._target.hide()
        self.show_picture(b"")

    def show_picture(self, data: bytes) -> None:
        """Show a picture file that is known to be one, or none."""
        self._data, self._turns = data, 0
        self._draw(None)
        if data:
            self._decode(data, give=False)

    def offer(self, data: bytes) -> None:
        """Take a picture file that a person gave: decode it, and tell `chosen` or `trouble`."""
        self._decode(data, give=True)

    def take(self, mime: QMimeData) -> bool:
        """Take what was dropped or pasted; False when there is no picture in it."""
        try:
            data = picture_bytes(mime)
        except CogVLM2LiteError as error:
            self.trouble.emit(f"{error.message} {error.hint}".strip())
            return True
        if data is None:
            return False
        self.offer(data)
        return True

    def paste(self) -> None:
        """Take the picture on the clipboard."""
        if not self.take(QGuiApplication.clipboard().mimeData()):
            self.trouble.emit(self.tr("There is no picture on the clipboard."))

    def ask_for_file(self) -> None:
        """Let a person choose a file."""
        name, _ = QFileDialog.getOpenFileName(
            self, self.tr("Open a picture"), "", self.tr("Pictures") + f" ({_KINDS})"
        )
        if name:
            try:
                self.offer(read_file(Path(name)))
            except CogVLM2LiteError as error:
                self.trouble.emit(f"{error.message} {error.hint}".strip())

    def _decode(self, data: bytes, *, give: bool) -> None:
        square = self._square

        def shown(found: Preview) -> None:
            if give:
                self.chosen.emit(data)
            if self._data != data:
                return
            wide = 3 * found.width
            form = QImage.Format.Format_RGB888
            image = QImage(found.rgb, found.width, found.height, wide, form).copy()
            self._draw(image)
            self._facts.setText(
                self.tr("{width} x {height}, {format}").format(
                    width=found.original_width, height=found.original_height, format=found.format
                )
                + (self.tr(" - as the model sees it: 1344 x 1344") if square else "")
            )

        def failed(error: CogVLM2LiteError) -> None:
            self.trouble.emit(f"{error.message} {error.hint}".strip())

        work = lambda: preview(data, as_model_sees=square)  # noqa: E731
        self._context.tasks.run(work, shown, failed, self)

    def _draw(self, image: QImage | None) -> None:
        self._image = image
        self.view.setVisible(image is not None)
        self._empty.setVisible(image is None)
        self._facts.setVisible(image is not None)
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
            self._decode(self._data, give=False)

    def _button(self, icon: str, text: str, do: Callable[[], object]) -> QToolButton:
        button = QToolButton()
        button.setIcon(theme.icon(icon))
        button.setToolTip(text)
        button.setAccessibleName(text)
        button.setProperty("kind", "quiet")
        button.clicked.connect(lambda: do())
        self._buttons.addWidget(button)
        return button

    # Qt's events

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: N802 - Qt's name
        """Show where to drop."""
        mime = event.mimeData()
        if mime.hasUrls() or mime.hasImage():
            event.acceptProposedAction()
            self._target.setGeometry(self.rect().adjusted(8, 8, -8, -8))
            self._target.raise_()
            self._target.show()

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:  # noqa: N802 - Qt's name
        """Hide it again."""
        self._target.hide()

    def dropEvent(self, event: QDropEvent) -> None:  # noqa: N802 - Qt's name
        """Take what was dropped."""
        self._target.hide()
        event.acceptProposedAction()
        if not self.take(event.mimeData()):
            self.trouble.emit(self.tr("What was dropped is no picture file on this computer."))
