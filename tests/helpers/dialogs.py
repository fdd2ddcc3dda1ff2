"""Menus and dialogs that a test works as a person does, while the window waits for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from PySide6.QtCore import Qt, QTimer
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QAbstractButton,
    QApplication,
    QComboBox,
    QFileDialog,
    QLineEdit,
    QMenu,
    QMessageBox,
    QWidget,
)

Step = Callable[[QWidget], bool]
"""Works one menu or dialog; returns False if it is another one than expected."""


def choose(text: str) -> Step:
    """Return a step that chooses an entry of a menu."""

    def step(widget: QWidget) -> bool:
        if not isinstance(widget, QMenu):
            return False
        [action] = [action for action in widget.actions() if action.text() == text]
        widget.setActiveAction(action)
        QTest.keyClick(widget, Qt.Key.Key_Return)
        return True

    return step


def press(text: str) -> Step:
    """Return a step that presses the button of a message whose text begins like this."""

    def step(widget: QWidget) -> bool:
        if not isinstance(widget, QMessageBox):
            return False
        texts = {b.text().replace("&", ""): b for b in widget.findChildren(QAbstractButton)}
        [button] = [b for name, b in texts.items() if name.startswith(text)]
        button.click()
        return True

    return step


def save_as(name: str | None = None, kind: str = "", seen: list[str] | None = None) -> Step:
    """Return a step that types a path into the file dialog and chooses a kind of file.

    name  None: the suggested one
    kind  the beginning of the kind's text
    seen  gets the suggested name
    """

    def step(widget: QWidget) -> bool:
        if not isinstance(widget, QFileDialog):
            return False
        line = widget.findChild(QLineEdit, "fileNameEdit")
        kinds = widget.findChild(QComboBox, "fileTypeCombo")
        assert isinstance(line, QLineEdit)
        assert isinstance(kinds, QComboBox)
        if seen is not None:
            seen.append(line.text())
        if kind:
            [place] = [i for i in range(kinds.count()) if kinds.itemText(i).startswith(kind)]
            kinds.setCurrentIndex(place)
            kinds.activated.emit(place)
        if name is not None:
            line.setText(name)
        widget.accept()
        return True

    return step


@contextmanager
def working(*steps: Step) -> Iterator[None]:
    """Do the steps, one after the other, in the menus and dialogs that open meanwhile."""
    left = list(steps)
    done: list[QWidget] = []

    def look() -> None:
        widget = QApplication.activePopupWidget() or QApplication.activeModalWidget()
        if widget is None or widget in done:
            return
        done.append(widget)
        # Not here: a dialog that the step opens would block this timer.
        QTimer.singleShot(0, lambda: work(widget))

    def work(widget: QWidget) -> None:
        if not left or not left.pop(0)(widget):
            failed.append(type(widget).__name__)
            widget.close()

    failed: list[str] = []
    timer = QTimer()
    timer.timeout.connect(look)
    timer.start(10)
    yield
    timer.stop()
    assert not failed, f"another dialog came: {failed}"
    assert not left, "a dialog did not come"
