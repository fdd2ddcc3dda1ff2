"""A window without a screen, and an engine that says what a test wants."""

from __future__ import annotations

import os

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot

from cogvlm2_lite.engine.options import LoadOptions
from gui.app import Application, Program
from gui.background.engine import EngineClient
from gui.chat.viewer import FullScreen
from gui.window import MainWindow
from tests.helpers.desk import Desk, Script, ScriptedProcess

_WINDOWS = (MainWindow, FullScreen)


class StrayWindows(QObject):
    """Notes every widget that is shown as a window of its own and is none.

    A widget that is shown before it has its parent does that. It flashes, and Qt closes the menu
    or popup that is open.
    """

    def __init__(self, app: QApplication) -> None:
        super().__init__()
        self.seen: list[str] = []
        app.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        if event.type() is QEvent.Type.Show and isinstance(watched, QWidget) and watched.isWindow():
            plain = watched.windowType() is Qt.WindowType.Window
            if plain and type(watched) not in _WINDOWS:
                self.seen.append(f"{type(watched).__name__} {watched.property('kind') or ''}")
        return False


@pytest.fixture(scope="session")
def qapp_cls() -> type[QApplication]:
    """The class of the application that pytest-qt makes."""
    return Application


@pytest.fixture
def made() -> list[ScriptedProcess]:
    return []


@pytest.fixture
def script() -> Script:
    """What the engines of this test answer."""
    return Script()


@pytest.fixture
def open_desk(
    qapp: QApplication, qtbot: QtBot, made: list[ScriptedProcess], script: Script
) -> Iterator[Callable[[Path], Desk]]:
    """Opens a window on a data folder, as often as a test starts the program."""
    stray = StrayWindows(qapp)
    opened: list[Program] = []

    def make(options: LoadOptions) -> ScriptedProcess:
        made.append(ScriptedProcess(options, script))
        return made[-1]

    def start(data: Path) -> Desk:
        program = Program(qapp, data, EngineClient(make))
        opened.append(program)
        program.settings.set("language", "en")
        if not program.settings.get("geometry"):  # the screen of this platform is small
            program.window.resize(1180, 760)
        program.show()
        return Desk(program, made, qtbot)

    yield start
    for program in opened:
        program.close()
        program.window.deleteLater()  # or every later change of dress goes over its widgets too
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
    opened.clear()
    qapp.removeEventFilter(stray)
    assert not stray.seen, "shown before they had a parent"


@pytest.fixture
def desk(open_desk: Callable[[Path], Desk], tmp_path: Path) -> Desk:
    return open_desk(tmp_path / "data")
