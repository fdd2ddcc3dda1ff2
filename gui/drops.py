"""Receives what is dropped on the window or pasted into it, wherever the pointer or the focus is.

A text field would insert the address of a dropped file, and a file manager that moves files would
delete the one that was dropped. So the window looks at every drop and every paste first, leaves
text to the fields, and reports that it copies.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from PySide6.QtCore import QEvent, QMimeData, QObject, QPoint, Qt, QTimer
from PySide6.QtGui import QContextMenuEvent, QDropEvent, QGuiApplication, QKeyEvent, QKeySequence
from PySide6.QtWidgets import (
    QAbstractScrollArea,
    QAbstractSpinBox,
    QApplication,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QTextEdit,
    QWidget,
)
from shiboken6 import isValid

from gui.chat.dropped import DroppedContent, is_text, may_have_picture, read_mime

_ENTERS = (QEvent.Type.DragEnter, QEvent.Type.DragMove)
_Field = QLineEdit | QPlainTextEdit | QTextEdit | QAbstractSpinBox


class Drops(QObject):
    """Watches a window.

    take       called with the content, after the event: the program that is dragged from waits
               until an event ends
    no_picture called after a drop without a picture
    """

    def __init__(
        self,
        window: QWidget,
        take: Callable[[DroppedContent], object],
        no_picture: Callable[[], object],
    ) -> None:
        super().__init__(window)
        self._window, self._take, self._no_picture = window, take, no_picture
        self._handle: QObject | None = None
        self._watched: set[int] = set()
        self._use = self._is_text = False
        window.setAcceptDrops(True)
        window.installEventFilter(self)
        self._target = QLabel(window)
        self._target.setObjectName("drop")
        self._target.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._target.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self._target.hide()
        app = QApplication.instance()
        assert isinstance(app, QApplication)
        app.focusChanged.connect(self._focus_changed)

    def watch(self, page: QWidget) -> None:
        """Watch the text fields of a page. Others are watched when they are focused first."""
        for field in page.findChildren(QWidget):
            self._watch_field(field)

    def paste(self) -> bool:
        """Use the clipboard. Returns False if a text field should paste it as text."""
        mime = QGuiApplication.clipboard().mimeData()
        content = DroppedContent() if is_text(mime) else read_mime(mime)
        if content.is_empty:
            return False
        QTimer.singleShot(0, self, partial(self._take, content))
        return True

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Look at drags and pastes before Qt does."""
        kind = event.type()
        if kind is QEvent.Type.Show and watched is self._window:
            self._watch_handle()
        elif kind in _ENTERS and isinstance(event, QDropEvent):
            return self._drag(watched, event)
        elif kind is QEvent.Type.Drop and isinstance(event, QDropEvent):
            return self._drop(watched, event)
        elif kind is QEvent.Type.DragLeave:
            self._target.hide()
        elif kind is QEvent.Type.KeyPress and isinstance(event, QKeyEvent):
            if event.matches(QKeySequence.StandardKey.Paste) and _is_editable(watched):
                return self.paste()
        elif kind is QEvent.Type.ContextMenu and isinstance(event, QContextMenuEvent):
            return self._open_menu(watched, event)
        return False

    def _watch_handle(self) -> None:
        """Watch the window of the window system, which gets the drags of other programs first."""
        handle = self._window.windowHandle()
        if handle is not None and handle is not self._handle:
            self._handle = handle
            handle.installEventFilter(self)

    def _focus_changed(self, old: QWidget | None, new: QWidget | None) -> None:
        if new is not None and isValid(self._window) and self._window.isAncestorOf(new):
            self._watch_field(new)

    def _watch_field(self, field: QWidget) -> None:
        if isinstance(field, _Field) and id(field) not in self._watched:
            self._watched.add(id(field))
            field.destroyed.connect(partial(self._watched.discard, id(field)))
            field.installEventFilter(self)
            if isinstance(field, QAbstractScrollArea):
                field.viewport().installEventFilter(self)

    def _drag(self, watched: QObject, event: QDropEvent) -> bool:
        if event.source() is not None or QApplication.activeModalWidget() is not None:
            return False  # a drag of our own, such as of selected text
        if event.type() is QEvent.Type.DragEnter:
            mime = event.mimeData()
            self._use, self._is_text = may_have_picture(mime), is_text(mime)
        if not self._use or (self._is_text and _is_editable(self._under(watched, event))):
            self._target.hide()
            return False
        self._target.setText(self.tr("Drop the picture"))
        self._target.setGeometry(self._window.rect().adjusted(8, 8, -8, -8))
        self._target.raise_()
        self._target.show()
        _accept_copy(event)
        return True

    def _drop(self, watched: QObject, event: QDropEvent) -> bool:
        self._target.hide()
        mime = event.mimeData()
        if event.source() is not None or QApplication.activeModalWidget() is not None:
            return False
        if not may_have_picture(mime):
            return False
        if is_text(mime) and _is_editable(self._under(watched, event)):
            return False
        _accept_copy(event)
        content = read_mime(mime)
        if content.is_empty:
            QTimer.singleShot(0, self, self._no_picture)
        else:
            QTimer.singleShot(0, self, partial(self._take, content))
        return True

    def _under(self, watched: QObject, event: QDropEvent) -> QObject | None:
        """Return the widget that the pointer is over."""
        if watched in (self._window, self._handle):
            place: QPoint = event.position().toPoint()
            return self._window.childAt(place)
        return watched

    def _open_menu(self, watched: QObject, event: QContextMenuEvent) -> bool:
        """Open the menu of a text field with a Paste that uses a picture on the clipboard."""
        if not isinstance(watched, QLineEdit | QPlainTextEdit | QTextEdit):
            return False
        mime: QMimeData = QGuiApplication.clipboard().mimeData()
        if not _is_editable(watched) or is_text(mime) or not may_have_picture(mime):
            return False
        menu = watched.createStandardContextMenu()
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for action in menu.actions():
            if action.objectName() == "edit-paste":
                action.triggered.disconnect()
                action.setEnabled(True)
                action.triggered.connect(lambda: self.paste())
        menu.popup(event.globalPos())
        return True


def _accept_copy(event: QDropEvent) -> None:
    """Accept a drop as a copy: after a move, the other program would delete its file."""
    event.setDropAction(Qt.DropAction.CopyAction)
    event.accept()


def _is_editable(widget: QObject | None) -> bool:
    """Return whether a widget, or the field that it is a part of, takes text."""
    at = widget
    for _ in range(3):
        if isinstance(at, _Field):
            return not at.isReadOnly() and at.isEnabled()
        at = at.parent() if at is not None else None
    return False
