"""The program around the window: one instance, dress, language, faults."""

from __future__ import annotations

import logging
import logging.handlers
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from PySide6.QtCore import (
    QLocale,
    QLockFile,
    QMessageLogContext,
    QSocketNotifier,
    QtMsgType,
    QTranslator,
    qInstallMessageHandler,
)
from PySide6.QtWidgets import QApplication, QMessageBox

from cogvlm2_lite import __version__
from cogvlm2_lite.places import data_folder
from gui import theme
from gui.background.engine import EngineBridge, EngineClient
from gui.data.history import History, HistoryError
from gui.data.settings import Preferences
from gui.translation import error_text
from gui.window import MainWindow

_LOG = logging.getLogger("cogvlm2_lite.gui")
TRANSLATIONS = Path(__file__).parent / "translations"


class Program:
    """Everything that lives as long as the window."""

    def __init__(self, app: QApplication, data: Path, client: EngineClient | None = None) -> None:
        self.app = app
        self.data = data
        self.settings = Preferences(data / "settings.json")
        self.translator: QTranslator | None = None
        self.apply_appearance()
        self.problem = ""
        self.history = self._open_history()
        self.engine = EngineBridge(client or EngineClient())
        self.window = MainWindow(
            settings=self.settings, history=self.history, engine=self.engine, data=data
        )
        self.window.appearance_changed.connect(self.refresh_appearance)
        self.window.setWindowIcon(theme.app_icon())

    def show(self) -> None:
        """Show the window, and above it why conversations are not kept if they are not."""
        self.window.show_page("chat")
        self.window.show()
        if self.problem:
            self.window.warn_unsaved(self.problem)

    def apply_appearance(self) -> None:
        """Put language, colours and letters on the program."""
        self._translate(self.settings.get("language"))
        theme.apply(self.app, self.settings.get("theme"), self.settings.get("font_points"))

    def refresh_appearance(self) -> None:
        """Dress again after a change, and draw the window's own pictures in the new colours."""
        self.apply_appearance()
        self.window.refresh()

    def close(self) -> None:
        """End what lives beside the window."""
        self.window.close()
        self.history.close()
        self._translate("en")  # what it put on the application goes with it

    def _open_history(self) -> History:
        """Open the conversations; where that fails, others that live in memory only."""
        try:
            history = History(self.data)
        except HistoryError as error:
            self.problem = error_text(error)
            return History(None)
        try:
            history.purge()
        except HistoryError as error:  # what was deleted is swept another time
            _LOG.warning("%s", error.message)
        return history

    def _translate(self, language: str) -> None:
        if self.translator is not None:
            self.app.removeTranslator(self.translator)
            self.translator = None
        name = QLocale.system().name() if language == "system" else language
        if name.startswith("zh"):
            translator = QTranslator(self.app)
            if translator.load(str(TRANSLATIONS / "zh_CN.qm")):
                self.app.installTranslator(translator)
                self.translator = translator


def run(*, model: Path | None = None, data: Path | None = None) -> int:
    """Open the window and stay until it is closed; gives the exit code."""
    data = data or data_folder()
    app = make_app()
    with closed_by_signals():
        return _stay(app, model, data)


def _stay(app: QApplication, model: Path | None, data: Path) -> int:
    lock = acquire_lock(data)
    if lock is None:
        QMessageBox.information(
            None,
            "CogVLM2 Lite",
            app.translate(
                "App",
                "CogVLM2 Lite is already open. Use that window; two windows would write the "
                "same conversations.",
            ),
        )
        return 1
    log_to_file(data)
    program = Program(app, data)
    program.show()
    last = program.settings.get("model")
    if model is not None:
        program.window.open_model(model)
    elif last and (Path(last) / "config.json").exists():
        program.window.open_model(Path(last))
    app.styleHints().colorSchemeChanged.connect(program.refresh_appearance)
    code = app.exec()
    program.close()
    lock.unlock()
    return code


@contextmanager
def closed_by_signals() -> Iterator[None]:
    """Close the windows on Ctrl-C in their terminal, and when the system asks the program to end.

    Python runs signal handlers between its own instructions only, and in Qt's loop there are none:
    a byte in a socket wakes the loop.
    """
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    notifier = QSocketNotifier(ours.fileno(), QSocketNotifier.Type.Read)

    def close() -> None:
        ours.recv(64)
        QApplication.closeAllWindows()

    notifier.activated.connect(close)
    wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: None) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        notifier.setEnabled(False)
        ours.close()
        theirs.close()


def acquire_lock(data: Path) -> QLockFile | None:
    """Give the lock that one window at a time holds on a data folder; None when another has it.

    In a folder where no lock can be made it is not held: the history tells what is wrong there.
    """
    lock = QLockFile(str(data / "window.lock"))
    lock.setStaleLockTime(0)  # stale when its process is gone, and not because it is old
    with suppress(OSError):
        data.mkdir(parents=True, exist_ok=True)
    if not lock.tryLock(100) and lock.error() is QLockFile.LockError.LockFailedError:
        return None
    return lock


def make_app() -> QApplication:
    """Make Qt's application with the program's name."""
    app = QApplication([sys.argv[0] or "cogvlm2-lite"])
    app.setApplicationName("cogvlm2-lite")
    app.setApplicationDisplayName("CogVLM2 Lite")
    app.setApplicationVersion(__version__)
    app.setDesktopFileName("cogvlm2-lite")
    return app


def log_to_file(data: Path) -> None:
    """Write warnings and faults of the window to a small rotating file beside the conversations."""
    try:
        handler: logging.Handler = logging.handlers.RotatingFileHandler(
            data / "window.log", maxBytes=512 * 1024, backupCount=2, encoding="utf-8"
        )
    except OSError:
        handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _LOG.addHandler(handler)
    qInstallMessageHandler(_log_qt)
    sys.excepthook = _log_exception
    threading.excepthook = lambda fault: _LOG.error(
        "fault in a thread:\n%s", "".join(traceback.format_exception(fault.exc_value))
    )


def _log_qt(kind: QtMsgType, context: QMessageLogContext, text: str) -> None:
    _LOG.warning("Qt: %s", text)


def _log_exception(
    kind: type[BaseException], fault: BaseException, trace: TracebackType | None
) -> None:
    _LOG.error("fault:\n%s", "".join(traceback.format_exception(kind, fault, trace)))
    traceback.print_exception(kind, fault, trace)
