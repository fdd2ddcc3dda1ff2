"""The main window: a navigation rail with the pages. The window's title names the open model."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from msgspec import structs
from PySide6.QtCore import QByteArray, QCoreApplication, QEvent, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QAction, QCloseEvent, QKeySequence, QResizeEvent
from PySide6.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QMainWindow,
    QMessageBox,
    QScrollArea,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import AdapterError
from cogvlm2_lite.weights.adapter_choice import AdapterChoice
from cogvlm2_lite.weights.adapter_names import CONFIG_NAME
from cogvlm2_lite.worker.client import EngineState
from gui import theme
from gui.background.attachments import Attachments
from gui.background.engine import EngineBridge, LoadError
from gui.background.tasks import Tasks
from gui.chat.banner import MessageKind
from gui.chat.dropped import DroppedContent, is_file, is_folder
from gui.context import Context, model_name
from gui.data.adapters import KnownAdapters
from gui.data.history import History
from gui.data.settings import Preferences
from gui.drops import Drops
from gui.model_bar import ModelBar
from gui.pages.command_page import is_running, why_not_now
from gui.teach.run import DATA_SUFFIXES
from gui.translatable import QT_TRANSLATE_NOOP
from gui.translation import error_text, fill, sentences, translate

_LEAST_BUTTON = 70
_AROUND_ICON = 18
"""Pixels above and below the icon of a button in the navigation rail."""
_FRAME, _TITLE_BAR = 4, 32
"""Room in pixels for what the desktop draws around a window."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page in the navigation rail.

    name    also of its icon
    target  "module:function" that makes the page from a Context
    """

    name: str
    title: str
    target: str


PAGES = tuple(
    Page(name=name, title=title, target=target)
    for name, title, target in (
        ("chat", QT_TRANSLATE_NOOP("Pages", "Chat"), "gui.chat.page:make"),
        ("batch", QT_TRANSLATE_NOOP("Pages", "Batch"), "gui.batch.page:make"),
        ("convert", QT_TRANSLATE_NOOP("Pages", "Convert"), "gui.pages.convert:make"),
        ("memory", QT_TRANSLATE_NOOP("Pages", "Memory"), "gui.memory.page:make"),
        ("evaluate", QT_TRANSLATE_NOOP("Pages", "Evaluate"), "gui.evaluate.page:make"),
        ("teach", QT_TRANSLATE_NOOP("Pages", "Teach"), "gui.teach.page:make"),
        ("settings", QT_TRANSLATE_NOOP("Pages", "Settings"), "gui.pages.settings:make"),
        ("about", QT_TRANSLATE_NOOP("Pages", "About"), "gui.pages.about:make"),
    )
)


@runtime_checkable
class Stateful(Protocol):
    """A page whose state is moved to the new page when the language changes."""

    def save_state(self) -> Any:
        """Return the state, and stop using it."""
        ...

    def restore_state(self, saved: Any) -> None:
        """Continue with the state of the page before."""
        ...


@runtime_checkable
class FileReceiver(Protocol):
    """A page that accepts picture files."""

    def receive(self, files: Sequence[Path]) -> None:
        """Use these files."""
        ...


@runtime_checkable
class ContentReceiver(Protocol):
    """The page that uses pictures that are dropped or pasted."""

    def take(self, content: DroppedContent) -> None:
        """Use a picture, files or an address."""
        ...

    def show_message(self, text: str, *, kind: MessageKind, cause: str) -> None:
        """Show a message."""
        ...

    def open_conversation(self, conversation_id: int) -> None:
        """Show a conversation."""
        ...

    def clear_message(self, cause: str) -> None:
        """Remove a message whose cause is gone."""
        ...


class RailButton(QToolButton):
    """A button of the navigation rail: an icon, and below it a word where there is room."""

    def __init__(self) -> None:
        super().__init__()
        theme.set_letters(self)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return at least the width that makes all buttons equal in letters of usual size."""
        return super().sizeHint().expandedTo(QSize(_LEAST_BUTTON, 0))

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the same: the word is never shortened."""
        return self.sizeHint()

    def show_word(self, shown: bool) -> None:
        """Show the word or leave it out; then it is a tool tip."""
        style = Qt.ToolButtonStyle
        self.setToolButtonStyle(
            style.ToolButtonTextUnderIcon if shown else style.ToolButtonIconOnly
        )
        self.setToolTip("" if shown else self.text())


class Rail(QWidget):
    """The navigation rail. In a window that is too low for the words, it has only the icons."""

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the height of the icons alone."""
        buttons = self.findChildren(RailButton)
        gaps = self._around() + sum(button.iconSize().height() + _AROUND_ICON for button in buttons)
        return QSize(super().minimumSizeHint().width(), gaps)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Show the words if there is room for them."""
        super().resizeEvent(event)
        self._fit()

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 - Qt's name
        """Show the words if there is room for them in letters of another size."""
        super().changeEvent(event)
        if event.type() is QEvent.Type.FontChange:
            QTimer.singleShot(0, self, self._fit)  # the buttons have the new font then, too

    def _around(self) -> int:
        """Return the height of what is above, between and below the buttons."""
        layout = self.layout()
        if layout is None:
            return 0
        margins = layout.contentsMargins()
        return margins.top() + margins.bottom() + layout.count() * layout.spacing()

    def _fit(self) -> None:
        buttons = self.findChildren(RailButton)
        needed = self._around() + sum(
            button.iconSize().height() + _AROUND_ICON + button.fontMetrics().height()
            for button in buttons
        )
        for button in buttons:
            button.show_word(needed <= self.height())


class MainWindow(QMainWindow):
    """The window. Pages are made when they are first shown.

    appearance_changed  theme, font size or language changed; the program must apply them
    """

    appearance_changed = Signal()
    _unsaved = Signal()  # emitted by the thread that writes the settings

    def __init__(
        self,
        *,
        settings: Preferences,
        history: History,
        engine: EngineBridge,
        data: Path,
        pages: tuple[Page, ...] = PAGES,
    ) -> None:
        super().__init__()
        self._rows = {page.name: page for page in pages}
        self._made: dict[str, QWidget] = {}
        self._retranslating = False
        self._closed = False
        self.tasks = Tasks(self)
        self.attachments = Attachments(self.tasks, history, self)
        self.context = Context(
            settings=settings,
            engine=engine,
            history=history,
            tasks=self.tasks,
            attachments=self.attachments,
            data=data,
            open_model=self.open_model,
            load_model=self.load_model,
            choose_model=lambda: self.model_bar.ask_for_folder(),
            adapters=KnownAdapters(settings),
            use_adapter=self.use_adapter,
            use=self._touch,
            show_page=self.show_page,
            open_conversation=self.open_conversation,
            send_files=self.send_files,
        )
        self.drops = Drops(self, self.take, self._say_no_picture)
        self._budget: tuple[LoadOptions, dict[str, str]] | None = None
        self._adapter: tuple[LoadOptions, AdapterChoice] | None = None
        self._failure: LoadError | None = None
        self._idle = QTimer(self)
        self._idle.setSingleShot(True)
        self._idle.timeout.connect(self._unload_idle)
        engine.state_changed.connect(self._show_state)
        engine.news.connect(lambda news: self._touch())
        engine.outcome.connect(lambda number, outcome: self._touch())
        settings.add_listener(self._setting_changed)
        self._unsaved.connect(self._show_problem, Qt.ConnectionType.QueuedConnection)
        settings.on_problem = self._unsaved.emit
        self._build()
        self._restore()

    def open_model(
        self,
        folder: Path,
        budget: Mapping[str, str] | None = None,
        adapter: Path | None = None,
    ) -> None:
        """Open a model folder. It is remembered for the next start once it is loaded.

        budget   new values of the settings "vram" and "ram", which are set then, too
        adapter  a folder of an adapter that is used then; None: the one that was used last
        """
        client = self.context.engine.client
        if client.answering:
            self._show_in_chat(
                self.tr("An answer is being written. Wait for it or stop it first."), cause="list"
            )
            return
        if client.lent:
            self._show_in_chat(is_running())
            return
        options = self._load_options(folder, budget or {})
        self._adapter = None
        if adapter is not None:
            choice = self.context.adapters.choice(folder, adapter)
            before = client.options
            loaded = before.adapters if before is not None and before.folder == folder else ()
            others = [other for other in loaded if other.folder != choice.folder]
            options = structs.replace(options, adapters=(choice, *others))
            self._adapter = (options, choice)
        self._budget = (options, dict(budget)) if budget else None
        client.open(options)

    def load_model(self, adapter: Path | None = None) -> None:
        """Load the model again after an unload, a crash or a failed load, with today's settings.

        Without a model, the last one of an earlier session is opened, with an adapter if one is
        named.
        """
        client, last = self.context.engine.client, self.context.settings.get("model")
        options = client.options
        if options is None and client.failure is not None:
            options = client.failure.options
        if options is None and last:
            self.open_model(Path(last), adapter=adapter)
        elif options is not None:
            client.restart(self._load_options(options.folder, {}))

    def use_adapter(self, folder: Path | None) -> None:
        """Use an adapter of the open model in the next answers, or none.

        One that is not loaded yet loads the model again. It is remembered for the model then; if it
        can't be used, the model goes on without it.
        """
        client, known = self.context.engine.client, self.context.adapters
        options = client.options
        if options is None:
            self._show_in_chat(why_not_now(client), cause="adapter")
            return
        choice = known.choice(options.folder, folder) if folder is not None else None
        if choice is None or choice in options.adapters:
            known.use(options.folder, choice)
        else:
            self.open_model(options.folder, adapter=folder)

    def _leave_adapter(self, failure: LoadError) -> None:
        """Open a model without the adapter with which it can't be loaded at the start."""
        folder = failure.options.folder
        self.context.adapters.use(folder, None)
        self._show_in_chat(
            sentences(
                fill(self.tr("The adapter can't be used: {why}"), why=error_text(failure.error)),
                self.tr("The model is opened without it."),
            ),
            cause="adapter",
        )
        self.open_model(folder)

    def _load_options(self, folder: Path, budget: Mapping[str, str]) -> LoadOptions:
        settings, used = self.context.settings, self.context.adapters.used(folder)
        return LoadOptions(
            folder=folder,
            adapters=(used,) if used is not None else (),
            vram=budget.get("vram", settings.get("vram")) or None,
            ram=budget.get("ram", settings.get("ram")) or None,
        )

    def _remember_model(self, options: LoadOptions) -> None:
        """Remember a model that was loaded, and the budget that was chosen for it."""
        settings, folder = self.context.settings, str(options.folder)
        settings.set("model", folder)
        recent = [folder, *(r for r in settings.get("recent_models") if r != folder)]
        settings.set("recent_models", recent[:8])
        if self._adapter is not None and self._adapter[0] == options:
            self.context.adapters.use(options.folder, self._adapter[1])
            self._adapter = None
        if self._budget is not None and self._budget[0] == options:
            for name, value in self._budget[1].items():
                settings.set(name, value)
            self._budget = None

    def show_page(self, name: str) -> None:
        """Show a page; make it if it was never shown."""
        page = self._make(name)
        theme.finish_styling()
        self._stack.setCurrentWidget(page)
        self._buttons[name].setChecked(True)
        _focus_into(page)

    def open_conversation(self, conversation_id: int) -> None:
        """Show a conversation on the page "Chat"."""
        self.show_page("chat")
        page = self._made["chat"]
        assert isinstance(page, ContentReceiver)
        page.open_conversation(conversation_id)

    def send_files(self, name: str, files: Sequence[Path]) -> None:
        """Show a page and pass it picture files."""
        self.show_page(name)
        page = self._made[name]
        assert isinstance(page, FileReceiver)
        page.receive(files)

    def open_files(self, files: Sequence[Path]) -> None:
        """Start a conversation about picture files; folders go to the batch page."""
        folders = any(map(is_folder, files))
        self.send_files("batch" if folders else "chat", files)

    def take(self, content: DroppedContent) -> None:
        """Use what was dropped or pasted on any page. Folders go to the batch page.

        The page "Batch" gets all files that are dropped on it, and "Teach" gets folders and data.
        """
        if len(content.files) == 1 and is_file(content.files[0] / CONFIG_NAME):
            self.use_adapter(content.files[0])
            return
        shown, folders = self._stack.currentWidget(), any(map(is_folder, content.files))
        data = any(file.suffix.lower() in DATA_SUFFIXES for file in content.files)
        if shown is self._made.get("teach") and (folders or data):
            self.send_files("teach", content.files)
            return
        if content.files and (folders or shown is self._made.get("batch")):
            self.send_files("batch", content.files)
            return
        self.show_page("chat")
        page = self._made["chat"]
        assert isinstance(page, ContentReceiver)
        page.take(content)

    def _paste(self) -> None:
        """Use the clipboard while no text field has the focus."""
        if not self.drops.paste():
            self._show_in_chat(self.tr("There is no picture on the clipboard."))

    def _say_no_picture(self) -> None:
        self._show_in_chat(self.tr("This is not a picture."))

    def _clear_in_chat(self, cause: str) -> None:
        page: Any = self._made.get("chat")
        if isinstance(page, ContentReceiver):
            page.clear_message(cause)

    def _show_in_chat(self, text: str, cause: str = "picture") -> None:
        self.show_page("chat")
        page = self._made["chat"]
        assert isinstance(page, ContentReceiver)
        page.show_message(text, kind=MessageKind.INFO, cause=cause)

    def _make(self, name: str) -> QWidget:
        if name not in self._made:
            module, _, function = self._rows[name].target.partition(":")
            make: Callable[[Context], QWidget] = getattr(importlib.import_module(module), function)
            self._made[name] = make(self.context)
            self._stack.addWidget(self._made[name])
            self.drops.watch(self._made[name])
        return self._made[name]

    def prepare_pages(self, then: Callable[[], None]) -> None:
        """Read the program code of all pages on a thread, so that the first click waits less."""
        modules = [page.target.partition(":")[0] for page in self._rows.values()]

        def read() -> None:
            for module in modules:
                importlib.import_module(module)

        self.tasks.run(read, lambda _: then(), lambda error: None, self)

    def warn_unsaved(self, reason: str) -> None:
        """Warn that conversations are kept in memory only, and why. Does not wait for an answer."""
        box = QMessageBox(self)
        box.setIcon(QMessageBox.Icon.Warning)
        box.setWindowTitle(self.tr("Conversations are not saved"))
        box.setText(reason)
        box.setInformativeText(
            self.tr("The window works, but conversations are lost when it is closed.")
        )
        box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        box.open()

    def page(self, name: str) -> QWidget | None:
        """Return a page, or None if it was not made yet."""
        return self._made.get(name)

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802 - Qt's name
        """Save the window's geometry, and end everything it started."""
        if self.isVisible() and not self.context.history.flush() and not self._agree_to_lose():
            event.ignore()
            return
        settings = self.context.settings
        settings.set("geometry", bytes(self.saveGeometry().toBase64().data()).decode("ascii"))
        self.hide()  # what follows may take a moment
        for widget in self._made.values():
            closing = getattr(widget, "shut_down", None)
            if closing is not None:
                closing()
        self.attachments.shut_down()
        self.tasks.close()
        self.context.engine.client.close()
        self._closed = True
        super().closeEvent(event)

    def _agree_to_lose(self) -> bool:
        asked = QMessageBox.question(
            self,
            self.tr("The last answers are not on disk"),
            self.tr(
                "They could not be written: the disk may be full, or another program has "
                "locked the conversations file. Close the window and lose them?"
            ),
        )
        return asked is QMessageBox.StandardButton.Yes

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 - Qt's name
        """Rebuild the window in another language."""
        if event.type() is QEvent.Type.LanguageChange:
            self.refresh()
        super().changeEvent(event)

    def _rebuild(self) -> None:
        """Make rail and pages again after a change of language.

        Waits until a running answer ends, because its page would be replaced.
        """
        if self._closed:
            return
        chat = self._made.get("chat")
        if getattr(chat, "busy", False):
            QTimer.singleShot(200, self._rebuild)
            return
        saved = {
            n: page.save_state() for n, page in self._made.items() if isinstance(page, Stateful)
        }
        shown = next((n for n, w in self._made.items() if w is self._stack.currentWidget()), "chat")
        for widget in self._made.values():
            closing = getattr(widget, "shut_down", None)
            if closing is not None:
                closing()
        self._made.clear()
        for action in self.actions():
            self.removeAction(action)
        self._build()
        for name, work in saved.items():
            page = self._make(name)
            assert isinstance(page, Stateful)
            page.restore_state(work)
        self.show_page(shown)
        # Qt would show and lay out the new widgets at the next event, and until then draw none.
        body, layout = self.centralWidget(), self.layout()
        if body is not None and layout is not None:
            body.setVisible(True)
            layout.activate()
        self._retranslating = False

    def refresh(self) -> None:
        """Rebuild rail and pages soon, in the language that is set then."""
        if not self._retranslating:
            self._retranslating = True
            QTimer.singleShot(0, self._rebuild)

    def _build(self) -> None:
        self.setWindowTitle("CogVLM2 Lite")
        body = QWidget()
        row = QHBoxLayout(body)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addWidget(self._make_rail())
        column = QVBoxLayout()
        column.setSpacing(0)
        self.model_bar = ModelBar(self.context)
        column.addWidget(self.model_bar)
        self._stack = QStackedWidget()
        self._stack.setObjectName("pages")
        column.addWidget(self._stack, 1)
        row.addLayout(column, 1)
        self.setCentralWidget(body)
        self._build_actions()
        self._show_state()

    def _make_rail(self) -> QWidget:
        rail = Rail()
        rail.setObjectName("rail")
        rail.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        rail.setAccessibleName(self.tr("Pages"))
        column = QVBoxLayout(rail)
        column.setContentsMargins(8, 12, 8, 12)
        column.setSpacing(4)
        self._group = QButtonGroup(rail)
        self._buttons: dict[str, QToolButton] = {}
        for page in self._rows.values():
            title = QCoreApplication.translate("Pages", page.title)
            button = RailButton()
            button.setText(title)
            button.setIcon(theme.icon(page.name))
            button.setIconSize(QSize(22, 22))
            button.show_word(True)
            button.setCheckable(True)
            button.setProperty("kind", "rail")
            button.setAccessibleName(title)
            button.clicked.connect(partial(self.show_page, page.name))
            self._group.addButton(button)
            self._buttons[page.name] = button
            if page.name == "settings":
                column.addStretch(1)
            column.addWidget(button, alignment=Qt.AlignmentFlag.AlignHCenter)
        return rail

    def _build_actions(self) -> None:
        for number, name in enumerate(self._rows, start=1):
            self._add_action(f"Alt+{number}", partial(self.show_page, name))
        points = self.context.settings
        self._add_action("Ctrl++", lambda: self._zoom(1))
        self._add_action("Ctrl+=", lambda: self._zoom(1))
        self._add_action("Ctrl+-", lambda: self._zoom(-1))
        self._add_action("Ctrl+0", lambda: points.set("font_points", 11))
        self._add_action("Ctrl+,", partial(self.show_page, "settings"))
        self._add_action("Ctrl+V", self._paste)
        self._add_action("F1", self.show_shortcuts)
        self._add_action("Ctrl+Q", self.close)

    def _add_action(self, keys: str, do: Callable[[], object]) -> None:
        action = QAction(self)
        action.setShortcut(QKeySequence(keys))
        action.triggered.connect(lambda: do())
        self.addAction(action)

    def show_shortcuts(self) -> None:
        """Show the keyboard shortcuts."""
        from gui.shortcuts import ShortcutDialog

        ShortcutDialog(self).open()

    def _zoom(self, step: int) -> None:
        settings = self.context.settings
        settings.set("font_points", min(28, max(8, settings.get("font_points") + step)))

    def _setting_changed(self, name: str) -> None:
        if name in ("theme", "font_points", "language"):
            self.appearance_changed.emit()
        if name == "adapters":
            self.model_bar.show_state()
            self._clear_in_chat("adapter")
        if name == "unload_minutes":
            self._touch()

    def _show_problem(self) -> None:
        """Show that the settings could not be saved, until they are."""
        page: Any = self._made.get("chat")
        problem = self.context.settings.problem
        if not isinstance(page, ContentReceiver):
            return
        if problem:
            page.show_message(translate(problem), kind=MessageKind.WARNING, cause="settings")
        else:
            page.clear_message("settings")

    def _touch(self) -> None:
        """Restart the idle timer."""
        minutes = self.context.settings.get("unload_minutes")
        if minutes:
            self._idle.start(minutes * 60_000)
        else:
            self._idle.stop()

    def _unload_idle(self) -> None:
        chat = self._made.get("chat")
        if getattr(chat, "busy", False) or getattr(chat, "waiting", False):
            self._touch()
            return
        self.context.engine.client.unload()

    def _show_state(self) -> None:
        """Show the open model in the window's title, and remember it once it is loaded."""
        client = self.context.engine.client
        options = client.opening or client.options
        name = model_name(options.folder) if options else ""
        self.setWindowTitle(f"{name} - CogVLM2 Lite" if name else "CogVLM2 Lite")
        if client.state is EngineState.READY and options is not None:
            self._remember_model(options)
            self._touch()
        failure, before = client.failure, self._failure
        self._failure = failure
        if (
            failure is not None
            and failure is not before
            and failure.kept is None
            and isinstance(failure.error, AdapterError)
        ):
            self._leave_adapter(failure)

    def _restore(self) -> None:
        geometry = self.context.settings.get("geometry")
        if not (geometry and self.restoreGeometry(QByteArray.fromBase64(geometry.encode()))):
            self.resize(_first_size(self.screen().availableSize()))
        self.setMinimumSize(560, 420)


def _first_size(room: QSize) -> QSize:
    """Return the size of the first window, which fits the screen with its title bar."""
    return QSize(1180, 760).boundedTo(room - QSize(2 * _FRAME, _TITLE_BAR + _FRAME))


def _focus_into(page: QWidget) -> None:
    """Focus a page: its own choice (`focus_input`), or the scrolling area that its controls are in.

    Without this a page that was chosen by a shortcut would not receive its own shortcuts. A control
    is not focused: the mouse wheel would change it while it scrolls the page.
    """
    focus_input = getattr(page, "focus_input", None)
    if focus_input is not None:
        focus_input()
        return
    area = page if isinstance(page, QScrollArea) else page.findChild(QScrollArea)
    if area is not None:
        area.setFocus(Qt.FocusReason.OtherFocusReason)
