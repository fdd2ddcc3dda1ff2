"""Ways to give the window a picture."""

from __future__ import annotations

from PySide6.QtCore import QMimeData, QPointF, Qt
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QApplication, QWidget

from cogvlm2_lite.inputs.image import open_image
from cogvlm2_lite.worker.protocol import Ask
from gui.chat.dropped import DroppedContent
from gui.chat.page import ChatPage


def give_bytes(chat: ChatPage, data: bytes) -> None:
    """Give the page the bytes of a picture file, as a paste does."""
    chat.take(DroppedContent(data=data))


def drop(
    target: QWidget, mime: QMimeData, action: Qt.DropAction = Qt.DropAction.CopyAction
) -> QDropEvent:
    """Drag something onto a widget and drop it there.

    action  that the other program proposes
    Returns the event as that program gets it back.
    """
    actions = Qt.DropAction.CopyAction | Qt.DropAction.MoveAction
    none = Qt.KeyboardModifier.NoModifier
    place = target.rect().center()
    enter = QDragEnterEvent(place, actions, mime, Qt.MouseButton.LeftButton, none)
    event = QDropEvent(QPointF(place), actions, mime, Qt.MouseButton.LeftButton, none)
    for each in (enter, event):
        each.setDropAction(action)
        QApplication.sendEvent(target, each)
    return event


def asked_about(ask: Ask, data: bytes, page: int | None = None) -> bool:
    """Return whether a question is about the pixels of a picture file."""
    return ask.decoded is not None and ask.decoded.sha256 == open_image(data, page=page).sha256
