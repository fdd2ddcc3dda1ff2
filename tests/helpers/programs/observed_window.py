"""The program as a person starts it, and an eye on it.

    python -m tests.helpers.programs.observed_window DATA real|talking

For every line on standard input it writes a line of JSON: where the visible controls are on the
screen and what stands in them. It looks and never touches; what happens comes from mouse and keys.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PySide6.QtCore import QPoint, QRect, QSocketNotifier
from PySide6.QtWidgets import (
    QAbstractButton,
    QApplication,
    QLabel,
    QLineEdit,
    QListWidget,
    QMenu,
    QTextBrowser,
    QWidget,
)

from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.worker.client import EngineProcess, WorkerEngine
from gui import app as gui_app
from gui.background.engine import EngineClient
from gui.chat.page import ChatPage
from tests.helpers.programs.counting_engine import COMMAND


def controls() -> Iterator[tuple[str, list[int]]]:
    """Return the name of each visible control, and its middle on the screen.

    In a dictionary the last one wins: menus and dialogs over what they cover, controls over labels.
    """
    tops = QApplication.topLevelWidgets()
    for top in sorted(tops, key=lambda top: (top.isModal(), isinstance(top, QMenu))):
        widgets = [top, *top.findChildren(QWidget)]
        for widget in sorted(widgets, key=lambda widget: not isinstance(widget, QLabel)):
            if not widget.isVisible():
                continue
            text = widget.text() if isinstance(widget, QLabel | QAbstractButton) else ""
            name = widget.accessibleName() or text
            if name:
                yield name, middle(widget, widget.rect())
            if isinstance(widget, QListWidget):
                for row in range(widget.count()):
                    place = widget.visualItemRect(widget.item(row))
                    yield f"row: {widget.item(row).text()}", middle(widget.viewport(), place)
            if isinstance(widget, QMenu):
                for action in widget.actions():
                    yield f"menu: {action.text()}", middle(widget, widget.actionGeometry(action))


def middle(widget: QWidget, place: QRect) -> list[int]:
    point: QPoint = widget.mapToGlobal(place.center())
    return [point.x(), point.y()]


def look() -> dict[str, Any]:
    app = QApplication.instance()
    assert isinstance(app, QApplication)
    pages = [page for top in app.topLevelWidgets() for page in top.findChildren(ChatPage)]
    chat = pages[-1] if pages else None
    answers = chat.transcript.findChildren(QTextBrowser) if chat else []
    field = app.focusWidget()
    dialog = app.activeModalWidget() or app.activePopupWidget()
    return {
        "controls": dict(controls()),
        "status": chat.status.text() if chat else "",
        "busy": bool(chat and chat.busy),
        "said": chat.message if chat else "",
        "questions": [
            label.text()
            for label in (chat.transcript.findChildren(QLabel) if chat else [])
            if label.accessibleDescription() == "Question"
        ],
        "answers": [answer.toPlainText().strip() for answer in answers],
        "rows": [chat.list.item(row).text() for row in range(chat.list.count())] if chat else [],
        "picture": bool(chat and chat.panel.view.isVisible()),
        "dropping": bool(chat and chat.window().findChild(QLabel, "drop").isVisible()),
        "given": chat.chip.name.text() if chat and chat.chip.isVisible() else "",
        "focus": field.accessibleName() if field else "",
        "question": chat.composer.toPlainText() if chat else "",
        "typed": field.text() if isinstance(field, QLineEdit) else "",
        "dialog": dialog.windowTitle() if dialog else "",
        "windows": [
            int(top.winId())
            for top in sorted(app.topLevelWidgets(), key=QWidget.isModal)
            if top.isVisible()
        ],
    }


def talking_client() -> EngineClient:
    def make(options: LoadOptions) -> WorkerEngine:
        return EngineProcess(options, command=COMMAND)

    return EngineClient(make)


def main() -> int:
    make = gui_app.make_app

    def make_and_watch() -> QApplication:
        app = make()
        notifier = QSocketNotifier(sys.stdin.fileno(), QSocketNotifier.Type.Read, app)

        def answer() -> None:
            if not os.read(sys.stdin.fileno(), 4096):
                notifier.setEnabled(False)
                return
            try:
                seen = json.dumps(look())
            except Exception:  # noqa: BLE001 - the outer edge of a slot
                traceback.print_exc()
                os._exit(70)  # who waits for an answer sees the end instead
            sys.stdout.write(seen + "\n")
            sys.stdout.flush()

        notifier.activated.connect(answer)
        return app

    gui_app.make_app = make_and_watch  # type: ignore[assignment]
    if sys.argv[2] == "talking":
        gui_app.EngineClient = talking_client  # type: ignore[attr-defined, assignment]
    return gui_app.run(data=Path(sys.argv[1]))


if __name__ == "__main__":
    sys.exit(main())
