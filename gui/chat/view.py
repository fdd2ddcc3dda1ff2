"""The picture in the panel, with zoom."""

from __future__ import annotations

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QImage, QPainter, QPixmap, QResizeEvent, QWheelEvent
from PySide6.QtWidgets import QGraphicsScene, QGraphicsView


class View(QGraphicsView):
    """A picture that can be moved and zoomed. The wheel zooms around the pointer."""

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
        """Show an image fitted to the view; None shows nothing."""
        self._scene.clear()
        if image is not None:
            self._scene.addPixmap(QPixmap.fromImage(image))
            self._scene.setSceneRect(QRectF(image.rect()))
        self.fit()

    def fit(self) -> None:
        """Fit the picture to the view."""
        self._fitted = True
        if self._scene.items():
            self.fitInView(self._scene.sceneRect(), Qt.AspectRatioMode.KeepAspectRatio)

    def zoom(self, factor: float) -> None:
        """Scale the picture."""
        self._fitted = False
        self.scale(factor, factor)

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802 - Qt's name
        """Zoom."""
        self.zoom(1.25 if event.angleDelta().y() > 0 else 0.8)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Keep the picture fitted."""
        super().resizeEvent(event)
        if self._fitted:
            self.fit()
