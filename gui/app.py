"""The program around the window: a single instance, theme, language, log of errors."""

from __future__ import annotations

import gc
import logging
import logging.handlers
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from PySide6.QtCore import (
    QEvent,
    QLibraryInfo,
    QLockFile,
    QMessageLogContext,
    QObject,
    QSocketNotifier,
    Qt,
    QTimer,
    QtMsgType,
    QTranslator,
    Signal,
    qInstallMessageHandler,
)
from PySide6.QtGui import QFileOpenEvent
from PySide6.QtWidgets import QApplication, QMessageBox

from cogvlm2_lite import __version__
from cogvlm2_lite.places import data_folder
from gui import theme
from gui.background.engine import EngineBridge, EngineClient
from gui.background.tasks import Saver
from gui.data.history import History, HistoryError
from gui.data.settings import Preferences
from gui.single import (
    OpenRequest,
    RequestServer,
    activation_tokens,
    hand_over,
    socket_name,
)
from gui.translation import error_text, is_chinese
from gui.window import MainWindow

_LOG = logging.getLogger("cogvlm2_lite.gui")
_SETTLE_MS = 500
"""After the first paint, and before most people click."""
TRANSLATIONS = Path(__file__).parent / "translations"


class Application(QApplication):
    """Qt's application, which macOS sends the files that are opened with the program.

    files_opened  (paths) the user opened them in the Finder, or dropped them on the icon
    """

    files_opened = Signal(list)

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(arguments)
        self._opened: list[Path] = []
        self._collecting = QTimer(self)
        self._collecting.setSingleShot(True)
        self._collecting.setInterval(0)  # several files come in one event each
        self._collecting.timeout.connect(self._report_opened)

    def event(self, event: QEvent) -> bool:
        """Take the files of open events."""
        if isinstance(event, QFileOpenEvent):
            file = event.file() or event.url().toLocalFile()
            if file:
                self._opened.append(Path(file).absolute())
                self._collecting.start()
                event.accept()
                return True
        return super().event(event)

    def _report_opened(self) -> None:
        opened, self._opened = self._opened, []
        self.files_opened.emit(opened)


class Program:
    """The objects that exist as long as the window."""

    def __init__(self, app: QApplication, data: Path, client: EngineClient | None = None) -> None:
        self.app = app
        self.data = data
        self.saver = Saver()
        self.settings = Preferences(data / "settings.json", run=self.saver.run)
        self.translators: list[QTranslator] = []
        self._language = ""
        self.apply_appearance()
        self.problem = ""
        self.history = self._open_history()
        self.engine = EngineBridge(client or EngineClient())
        self.window = MainWindow(
            settings=self.settings, history=self.history, engine=self.engine, data=data
        )
        self.window.appearance_changed.connect(self.refresh_appearance)
        self.window.setWindowIcon(theme.app_icon())
        self._opening = (
            app.files_opened.connect(self._open_files) if isinstance(app, Application) else None
        )

    def show(self) -> None:
        """Show the window, with a warning if conversations can't be saved."""
        self.window.show_page("chat")
        self.window.show()
        if self.problem:
            self.window.warn_unsaved(self.problem)

    def settle(self) -> None:
        """Do soon after the start what would stop the window for a moment later."""
        # A garbage collection would look at all classes and functions again, which takes 40 ms.
        self.window.prepare_pages(gc.freeze)

    def open(self, request: OpenRequest) -> None:
        """Raise the window, and open what this start or a later one was asked to open."""
        os.environ.update(request.tokens)  # Qt reads them when it raises the window
        window = self.window
        window.setWindowState(window.windowState() & ~Qt.WindowState.WindowMinimized)
        window.show()
        window.raise_()
        window.activateWindow()
        if request.model is not None:
            window.open_model(request.model, adapter=request.adapter)
        elif request.adapter is not None:
            window.use_adapter(request.adapter)
        if request.files:
            window.open_files(request.files)

    def _open_files(self, files: list[Path]) -> None:
        """Open what the system sent, as a second start with these files does."""
        self.open(OpenRequest(files=tuple(files), tokens={}))

    def apply_appearance(self) -> None:
        """Apply language, colours and font to the program."""
        self._translate(self.settings.get("language"))
        theme.apply(self.app, self.settings.get("theme"), self.settings.get("font_points"))

    def refresh_appearance(self) -> None:
        """Apply them again after a change. Another language rebuilds the window."""
        self.apply_appearance()

    def close(self) -> None:
        """Close the window and the conversations."""
        if self._opening is not None:
            QObject.disconnect(self._opening)
            self._opening = None
        self.window.close()
        self.history.close()
        self.saver.finish()
        self._translate("en")  # removes the translator from the application

    def _open_history(self) -> History:
        """Open the conversations. If that fails, return an empty history in memory."""
        try:
            history = History(self.data)
        except HistoryError as error:
            self.problem = error_text(error)
            return History(None)
        try:
            history.purge()
        except HistoryError as error:  # deleted conversations are removed at a later start
            _LOG.warning("%s", error.message)
        return history

    def _translate(self, language: str) -> None:
        if language == self._language:
            return
        self._language = language
        for translator in self.translators:
            self.app.removeTranslator(translator)
        self.translators.clear()
        if is_chinese(language):
            qt = QLibraryInfo.path(QLibraryInfo.LibraryPath.TranslationsPath)
            # Qt's words, such as those of dialog buttons and of the menus of text fields, and ours.
            for folder, file in ((qt, "qtbase_zh_CN.qm"), (str(TRANSLATIONS), "zh_CN.qm")):
                translator = QTranslator(self.app)
                if translator.load(file, folder):
                    self.app.installTranslator(translator)
                    self.translators.append(translator)


def run(
    *,
    model: Path | None = None,
    adapter: Path | None = None,
    files: Sequence[Path] = (),
    data: Path | None = None,
) -> int:
    """Open the window, wait until it is closed, and return the exit code.

    adapter  a folder of an adapter to use
    files    pictures, or folders of pictures, to open
    If the window is open already, it opens them, and this returns at once.
    """
    data = data or data_folder()
    app = make_app()
    tokens = activation_tokens()
    for name in tokens:  # they are for the first window of this process only
        os.environ.pop(name)
    request = OpenRequest(
        files=tuple(map(Path.absolute, files)),
        model=model,
        adapter=adapter.absolute() if adapter is not None else None,
        tokens=tokens,
    )
    with closed_by_signals():
        return _run_window(app, request, data)


def _run_window(app: QApplication, request: OpenRequest, data: Path) -> int:
    lock = acquire_lock(data)
    name = socket_name(data)
    if lock is None:
        if hand_over(name, request):
            return 0
        QMessageBox.information(
            None,
            "CogVLM2 Lite",
            app.translate(
                "App",
                "CogVLM2 Lite is already open, but its window does not answer. Two windows would "
                "write the same conversations. Wait, or end the other program, then try again.",
            ),
        )
        return 1
    log_to_file(data)
    program = Program(app, data)
    program.show()
    if request.model is not None:
        program.window.open_model(request.model, adapter=request.adapter)
    else:
        program.window.load_model(request.adapter)  # the last one
    if request.files:
        program.window.open_files(request.files)
    server = None
    if lock.isLocked():  # else another window may have the socket
        server = RequestServer(name, program.window)
        server.received.connect(program.open)
    app.styleHints().colorSchemeChanged.connect(program.refresh_appearance)
    QTimer.singleShot(_SETTLE_MS, program.window, program.settle)
    code = app.exec()
    if server is not None:
        server.close()
    program.close()
    lock.unlock()
    return code


@contextmanager
def closed_by_signals() -> Iterator[None]:
    """Close the windows on SIGINT (Ctrl-C) and SIGTERM.

    Python runs signal handlers only between its own instructions, and Qt's event loop executes
    none: a byte in a socket wakes it.
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
    """Return the lock on a data folder, or None if another window holds it.

    If no lock file can be made there, the lock is returned without being held; opening the history
    then reports what is wrong with the folder.
    """
    lock = QLockFile(str(data / "window.lock"))
    lock.setStaleLockTime(0)  # only stale when its process has ended, whatever its age
    with suppress(OSError):
        data.mkdir(parents=True, exist_ok=True)
    if not lock.tryLock(100) and lock.error() is QLockFile.LockError.LockFailedError:
        return None
    return lock


def make_app() -> Application:
    """Create Qt's application with the program's name."""
    app = Application([sys.argv[0] or "cogvlm2-lite"])
    app.setApplicationName("cogvlm2-lite")
    app.setApplicationDisplayName("CogVLM2 Lite")
    app.setApplicationVersion(__version__)
    app.setDesktopFileName("cogvlm2-lite")
    return app


def log_to_file(data: Path) -> None:
    """Write warnings and uncaught exceptions to a small rotating file next to the conversations."""
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
    threading.excepthook = lambda args: _LOG.error(
        "exception in a thread:\n%s", "".join(traceback.format_exception(args.exc_value))
    )


def _log_qt(kind: QtMsgType, context: QMessageLogContext, text: str) -> None:
    _LOG.warning("Qt: %s", text)


def _log_exception(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    _LOG.error("exception:\n%s", "".join(traceback.format_exception(kind, error, trace)))
    traceback.print_exception(kind, error, trace)
