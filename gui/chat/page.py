"""The chat page: draws the state, writes the history, and asks the engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from PySide6.QtCore import QEvent, QObject, QPoint, QSize, Qt, QTimer
from PySide6.QtGui import QAction, QKeyEvent, QKeySequence, QResizeEvent
from PySide6.QtWidgets import (
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QInputDialog,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QMenu,
    QMessageBox,
    QPlainTextEdit,
    QProgressBar,
    QPushButton,
    QSplitter,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from cogvlm2_lite.engine.process import EngineState, Outcome
from cogvlm2_lite.engine.protocol import Ask
from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.events import (
    Finished,
    Notice,
    Progress,
    Replanned,
    Streaming,
    TextDelta,
    TurnsDropped,
)
from cogvlm2_lite.units import format_bytes
from gui import theme
from gui.chat.picture import PicturePanel, read_file
from gui.chat.transcript import Transcript
from gui.context import Context
from gui.export import export
from gui.history import HistoryError
from gui.presets import PresetButton
from gui.settings import sampling_of
from gui.state import Conversation, Status, Turn

_DRAW_MS = 40
_NARROW = 720
"""Below this width, in pixels, the list of conversations is hidden."""
_WRITE_S = 0.5
"""An answer that comes is on the disk at most so late."""


def make(context: Context) -> QWidget:
    """Make the page."""
    return ChatPage(context)


class ChatPage(QWidget):
    """Conversations at the left, the talk in the middle, the picture at the right."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._conversation: Conversation | None = None
        self._picture = b""
        self._request: int | None = None
        self._answering: Conversation | None = None
        self._turn = 0
        self._written = 0.0
        self._unwritten = False
        self._edited: Turn | None = None
        self._last_deleted: int | None = None
        self._gone = False
        self.setProperty("kind", "page")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._splitter = QSplitter(Qt.Orientation.Horizontal)
        self._splitter.setChildrenCollapsible(True)
        self._side = self._make_list()
        self._splitter.addWidget(self._side)
        self._splitter.addWidget(self._make_middle())
        self.panel = PicturePanel(context)
        self.panel.setMinimumWidth(180)
        self._splitter.addWidget(self.panel)
        self._splitter.setStretchFactor(1, 1)
        self._splitter.setSizes([230, 560, 320])
        row.addWidget(self._splitter)
        self.panel.chosen.connect(self._picture_given)
        self.panel.trouble.connect(self.say)
        self._drawing = QTimer(self)
        self._drawing.setInterval(_DRAW_MS)
        self._drawing.timeout.connect(self._tick)
        engine = context.engine
        engine.outcome.connect(self._told)
        engine.state_changed.connect(self._show_state)
        self._keys()
        self.reload_list()
        self.show_conversation(None)
        self._show_state()

    @property
    def busy(self) -> bool:
        """True while an answer comes."""
        return self._request is not None

    @property
    def conversation(self) -> Conversation | None:
        """The one that is shown."""
        return self._conversation

    def keep(self) -> tuple[int | None, bytes, str]:
        """Give what a page that takes this one's place must know."""
        shown = self._conversation
        return (shown.id if shown else None), self._picture, self.composer.toPlainText()

    def take_up(self, kept: tuple[int | None, bytes, str]) -> None:
        """Go on where a page was that this one takes the place of."""
        wanted, picture, text = kept
        if wanted is not None:
            self._guard(lambda: self.show_conversation(self._context.history.load(wanted)))
            self.reload_list()
        elif picture:
            self._picture = picture
            self.panel.show_picture(picture)
        self.composer.setPlainText(text)

    def shut(self) -> None:
        """Write what came of an answer, and listen no more: the page goes."""
        if self._answering is not None:
            self._write()
        self._drawing.stop()
        self._gone = True

    # --- what is drawn ---------------------------------------------------------------------------

    def _make_list(self) -> QWidget:
        side = QWidget()
        side.setObjectName("conversations")
        side.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        side.setMinimumWidth(150)
        column = QVBoxLayout(side)
        column.setContentsMargins(10, 14, 10, 10)
        column.setSpacing(8)
        self.new_button = QPushButton(self.tr("New conversation"))
        self.new_button.setIcon(theme.icon("plus"))
        self.new_button.setAccessibleName(self.tr("New conversation"))
        self.new_button.clicked.connect(self.start_new)
        column.addWidget(self.new_button)
        self.search = QLineEdit()
        self.search.setPlaceholderText(self.tr("Search"))
        self.search.setClearButtonEnabled(True)
        self.search.setAccessibleName(self.tr("Search in conversations"))
        self.search.textChanged.connect(lambda _: self.reload_list())
        column.addWidget(self.search)
        self.list = QListWidget()
        self.list.setAccessibleName(self.tr("Conversations"))
        self.list.setFrameShape(QFrame.Shape.NoFrame)
        self.list.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.list.customContextMenuRequested.connect(self._list_menu)
        self.list.itemClicked.connect(self._item_chosen)
        self.list.itemActivated.connect(self._item_chosen)
        column.addWidget(self.list, 1)
        self.undo = QPushButton(self.tr("Undo delete"))
        self.undo.setAccessibleName(self.tr("Undo delete"))
        self.undo.clicked.connect(self._restore_deleted)
        self.undo.hide()
        column.addWidget(self.undo)
        return side

    def _make_middle(self) -> QWidget:
        middle = QWidget()
        column = QVBoxLayout(middle)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        self._stack = QStackedWidget()
        self.transcript = Transcript()
        self.transcript.again.connect(self.answer_again)
        self.transcript.edit.connect(self.edit_question)
        self.transcript.choose.connect(self._choose_branch)
        self._stack.addWidget(self.transcript)
        self._stack.addWidget(self._make_welcome())
        column.addWidget(self._stack, 1)
        column.addWidget(self._make_banner())
        column.addWidget(self._make_composer())
        return middle

    def _make_welcome(self) -> QWidget:
        welcome = QWidget()
        column = QVBoxLayout(welcome)
        column.addStretch(1)
        title = QLabel(self.tr("Ask about a picture"))
        title.setProperty("kind", "title")
        title.setAlignment(Qt.AlignmentFlag.AlignCenter)
        column.addWidget(title)
        self._welcome_text = QLabel()
        self._welcome_text.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._welcome_text.setWordWrap(True)
        self._welcome_text.setProperty("kind", "soft")
        column.addWidget(self._welcome_text)
        column.addSpacing(12)
        self._welcome_buttons = QWidget()
        buttons = QVBoxLayout(self._welcome_buttons)
        for text, do, main in (
            (self.tr("Try the small demo model"), self.open_demo, True),
            (self.tr("Open a model folder"), self._ask_for_model, False),
            (
                self.tr("Convert a downloaded checkpoint"),
                partial(self._context.show_page, "convert"),
                False,
            ),
        ):
            button = QPushButton(text)
            button.setAccessibleName(text)
            button.setMinimumWidth(280)
            if main:
                button.setProperty("kind", "main")
                self.demo_button = button
            button.clicked.connect(lambda _=False, do=do: do())
            buttons.addWidget(button, alignment=Qt.AlignmentFlag.AlignHCenter)
        column.addWidget(self._welcome_buttons)
        column.addStretch(1)
        return welcome

    def _make_banner(self) -> QWidget:
        self._banner = QFrame()
        self._banner.setProperty("kind", "trouble")
        row = QHBoxLayout(self._banner)
        row.setContentsMargins(12, 8, 8, 8)
        self._banner_text = QLabel()
        self._banner_text.setWordWrap(True)
        row.addWidget(self._banner_text, 1)
        self.restart_button = QPushButton(self.tr("Start again"))
        self.restart_button.setAccessibleName(self.tr("Start the engine again"))
        self.restart_button.clicked.connect(self._context.engine.client.restart)
        row.addWidget(self.restart_button)
        close = QToolButton()
        close.setIcon(theme.icon("close"))
        close.setProperty("kind", "quiet")
        close.setAccessibleName(self.tr("Close the message"))
        close.setToolTip(self.tr("Close the message"))
        close.clicked.connect(self._banner.hide)
        row.addWidget(close)
        self._banner.hide()
        holder = QWidget()
        around = QVBoxLayout(holder)
        around.setContentsMargins(24, 0, 24, 0)
        around.addWidget(self._banner)
        return holder

    def _make_composer(self) -> QWidget:
        holder = QWidget()
        column = QVBoxLayout(holder)
        column.setContentsMargins(24, 8, 24, 12)
        column.setSpacing(6)
        card = QFrame()
        card.setProperty("kind", "card")
        inner = QVBoxLayout(card)
        inner.setContentsMargins(12, 10, 10, 8)
        self.composer = QPlainTextEdit()
        self.composer.setProperty("kind", "clear")
        self.composer.setPlaceholderText(self.tr("Ask about the picture"))
        self.composer.setAccessibleName(self.tr("Your question"))
        self.composer.setFixedHeight(64)
        self.composer.setTabChangesFocus(True)
        self.composer.installEventFilter(self)
        self.composer.textChanged.connect(self._show_state)
        inner.addWidget(self.composer)
        row = QHBoxLayout()
        self.presets = PresetButton(
            self._context.settings, self._use_preset, self.composer.toPlainText
        )
        row.addWidget(self.presets)
        row.addStretch(1)
        self.send_button = QToolButton()
        self.send_button.setIconSize(QSize(20, 20))
        self.send_button.clicked.connect(self._send_or_stop)
        row.addWidget(self.send_button)
        inner.addLayout(row)
        column.addWidget(card)
        self.status = QLabel()
        self.status.setProperty("kind", "soft")
        self.status.setAccessibleName(self.tr("What the engine does"))
        self.progress = QProgressBar()
        self.progress.setAccessibleName(self.tr("Progress"))
        self.progress.setFixedWidth(120)
        self.progress.hide()
        foot = QHBoxLayout()
        foot.addWidget(self.status, 1)
        foot.addWidget(self.progress)
        column.addLayout(foot)
        return holder

    def _use_preset(self, question: str) -> None:
        self.composer.setPlainText(question)
        self.composer.setFocus()

    def _keys(self) -> None:
        for keys, do in (
            ("Ctrl+N", self.start_new),
            ("Ctrl+O", self.panel.ask_for_file),
            ("Ctrl+F", self.search.setFocus),
            ("Ctrl+L", self.composer.setFocus),
            ("Ctrl+R", self._again_last),
            ("Esc", self.stop),
        ):
            action = QAction(self)
            action.setShortcut(QKeySequence(keys))
            action.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            action.triggered.connect(lambda _=False, do=do: do())
            self.addAction(action)

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Give a narrow window to the talk: the list goes first."""
        super().resizeEvent(event)
        self._side.setVisible(self.width() >= _NARROW)
        self.panel.setMaximumWidth(16_777_215 if self.width() >= _NARROW else 220)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Send with Enter (Shift+Enter breaks the line), and take pictures that are pasted."""
        if watched is self.composer and isinstance(event, QKeyEvent):
            if event.type() is QEvent.Type.KeyPress and event.matches(
                QKeySequence.StandardKey.Paste
            ):
                from PySide6.QtGui import QGuiApplication

                mime = QGuiApplication.clipboard().mimeData()
                return not mime.hasText() and self.panel.take(mime)
            enter = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
            broken = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
            if event.type() is QEvent.Type.KeyPress and enter and not broken:
                self.send()
                return True
        return super().eventFilter(watched, event)

    # --- conversations ---------------------------------------------------------------------------

    def reload_list(self) -> None:
        """Read the list again."""
        self.list.clear()
        try:
            rows = self._context.history.list(self.search.text())
        except HistoryError as error:
            self.say(f"{error.message} {error.hint}".strip())
            return
        for row in rows:
            item = QListWidgetItem(row.title or self.tr("New conversation"))
            item.setData(Qt.ItemDataRole.UserRole, row.id)
            item.setToolTip(row.title)
            if row.pinned:
                item.setIcon(theme.icon("pin"))
            self.list.addItem(item)
            if self._conversation is not None and row.id == self._conversation.id:
                self.list.setCurrentItem(item)

    def show_conversation(self, conversation: Conversation | None) -> None:
        """Show a conversation, or an empty page for a new one."""
        self._conversation, self._edited = conversation, None
        self._picture = b""
        if conversation is not None and conversation.picture:
            try:
                self._picture = self._context.history.picture(conversation.picture)
            except HistoryError as error:
                self.say(error.message)
        self.panel.show_picture(self._picture)
        self.transcript.show_conversation(conversation)
        empty = conversation is None or not conversation.path()
        self._stack.setCurrentIndex(1 if empty else 0)
        self._show_state()

    def start_new(self) -> None:
        """Begin a conversation."""
        self.show_conversation(None)
        self.list.clearSelection()
        self.composer.setFocus()

    def _item_chosen(self, item: QListWidgetItem) -> None:
        wanted = item.data(Qt.ItemDataRole.UserRole)
        if self._answering is not None and self._answering.id == wanted:
            self.show_conversation(self._answering)
            return
        try:
            self.show_conversation(self._context.history.load(wanted))
        except HistoryError as error:
            self.say(error.message)

    def _list_menu(self, place: QPoint) -> None:
        item = self.list.itemAt(place)
        if item is None:
            return
        wanted = item.data(Qt.ItemDataRole.UserRole)
        menu = QMenu(self)
        menu.addAction(self.tr("Rename"), partial(self._rename, wanted, item.text()))
        menu.addAction(self.tr("Pin or unpin"), partial(self._pin, wanted))
        menu.addAction(self.tr("Export"), partial(self._export, wanted))
        menu.addAction(self.tr("Delete"), partial(self.delete, wanted))
        menu.exec(self.list.mapToGlobal(place))

    def _rename(self, wanted: int, title: str) -> None:
        text, sure = QInputDialog.getText(self, self.tr("Rename"), self.tr("Title"), text=title)
        if sure and text.strip():
            self._guard(lambda: self._context.history.rename(wanted, text.strip()))
            if self._conversation is not None and self._conversation.id == wanted:
                self._conversation.title = text.strip()
            self.reload_list()

    def _pin(self, wanted: int) -> None:
        def change() -> None:
            conversation = self._context.history.load(wanted)
            conversation.pinned = not conversation.pinned
            self._context.history.save(conversation)

        self._guard(change)
        self.reload_list()

    def _export(self, wanted: int) -> None:
        name, _ = QFileDialog.getSaveFileName(
            self,
            self.tr("Export the conversation"),
            "",
            "Markdown (*.md);;HTML (*.html);;JSON (*.json)",
        )
        if name:
            self._guard(lambda: self.export_to(wanted, Path(name)))

    def export_to(self, wanted: int, target: Path) -> None:
        """Write a conversation to a file; HistoryError when that fails."""
        talk = self._context.history.load(wanted)
        picture = self._context.history.picture(talk.picture) if talk.picture else b""
        export(talk, picture, target if target.suffix else target.with_suffix(".md"))

    def delete(self, wanted: int) -> None:
        """Delete a conversation; the button below the list takes it back."""
        if self._answering is not None and self._answering.id == wanted:
            self.say(self.tr("An answer is still coming in this conversation. Stop it first."))
            return
        self._guard(lambda: self._context.history.delete(wanted))
        self._last_deleted = wanted
        self.undo.show()
        if self._conversation is not None and self._conversation.id == wanted:
            self.show_conversation(None)
        self.reload_list()

    def _restore_deleted(self) -> None:
        if self._last_deleted is not None:
            wanted = self._last_deleted
            self._guard(lambda: self._context.history.restore(wanted))
        self.undo.hide()
        self.reload_list()

    def _guard(self, work: Callable[[], object]) -> bool:
        """Do something with the history; a sentence when it fails."""
        try:
            work()
        except HistoryError as error:
            self.say(f"{error.message} {error.hint}".strip())
            return False
        return True

    # --- pictures --------------------------------------------------------------------------------

    def receive(self, files: Sequence[Path]) -> None:
        """Begin a conversation about a picture file."""
        try:
            data = read_file(files[0])
        except CogVLM2LiteError as error:
            self.say(f"{error.message} {error.hint}".strip())
            return
        self.start_new()
        self.panel.offer(data)

    def _picture_given(self, data: bytes) -> None:
        shown = self._conversation
        if shown is not None and shown.path() and data != self._picture:
            if not self._agree_to_new():
                return
            self.start_new()
        elif shown is not None:
            self._set_picture(shown, data)
        self._picture = data
        self.panel.show_picture(data)
        self._show_state()

    def _agree_to_new(self) -> bool:
        box = QMessageBox(self)
        box.setText(self.tr("The model takes one picture per conversation."))
        box.setInformativeText(
            self.tr("Begin a new conversation with this picture? This one stays in the list.")
        )
        box.addButton(
            self.tr("New conversation with this picture"), QMessageBox.ButtonRole.AcceptRole
        )
        cancel = box.addButton(QMessageBox.StandardButton.Cancel)
        box.exec()
        return box.clickedButton() is not cancel

    def _set_picture(self, conversation: Conversation, data: bytes) -> None:
        def change() -> None:
            conversation.picture = self._context.history.keep_picture(data)
            self._context.history.save(conversation)

        self._guard(change)

    # --- asking ----------------------------------------------------------------------------------

    def open_demo(self) -> None:
        """Open the small model that ships with the program."""
        from cogvlm2_lite.demo.shipped import checkpoint_folder

        self._context.open_model(checkpoint_folder())

    def _ask_for_model(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, self.tr("Open a model folder"))
        if folder:
            self._context.open_model(Path(folder))

    def _send_or_stop(self) -> None:
        if self.busy:
            self.stop()
        else:
            self.send()

    def send(self) -> None:
        """Ask what stands in the composer."""
        question = self.composer.toPlainText().strip()
        if not question or self.busy or not self._can_ask():
            return
        parent = None
        if self._edited is not None:
            parent = self._edited.parent
        elif self._conversation is not None:
            parent = self._conversation.leaf
        if self._ask(question, parent):
            self.composer.clear()

    def answer_again(self, turn_id: int) -> None:
        """Ask a question once more; the earlier answer stays as another version."""
        if self.busy or self._conversation is None or not self._can_ask():
            return
        turn = self._conversation.turns[turn_id]
        self._ask(turn.question, turn.parent)

    def edit_question(self, turn_id: int) -> None:
        """Put a question into the composer; sending it makes another version."""
        if self._conversation is None:
            return
        self._edited = self._conversation.turns[turn_id]
        self.composer.setPlainText(self._edited.question)
        self.composer.setFocus()

    def stop(self) -> None:
        """Stop the answer within one token."""
        if self._request is not None:
            self._context.engine.client.cancel(self._request)

    def _again_last(self) -> None:
        if self._conversation is not None and self._conversation.leaf is not None:
            self.answer_again(self._conversation.leaf)

    def _can_ask(self) -> bool:
        return self._context.engine.client.state is EngineState.READY

    def _ask(self, question: str, parent: int | None) -> bool:
        history = self._context.history
        try:
            if self._conversation is None:
                name = history.keep_picture(self._picture) if self._picture else ""
                self._conversation = history.create(picture=name)
            turn = history.ask(self._conversation, question, parent)
        except HistoryError as error:
            self.say(f"{error.message} {error.hint}".strip())
            return False
        self._edited = None
        self._answering, self._turn = self._conversation, turn.id
        self._written = time.monotonic()
        self._banner.hide()
        self._request = self._context.engine.client.ask(
            Ask(
                request=0,
                question=question,
                image=self._picture or None,
                history=self._conversation.before(turn),
                sampling=sampling_of(self._context.settings),
            )
        )
        self.transcript.show_new(self._conversation, turn)
        self._stack.setCurrentIndex(0)
        self.reload_list()
        self._drawing.start()
        self._show_state()
        return True

    def _choose_branch(self, turn_id: int) -> None:
        if self.busy or self._conversation is None:
            return
        conversation = self._conversation
        conversation.choose(turn_id)
        self._guard(lambda: self._context.history.save(conversation))
        self.transcript.show_conversation(conversation)

    # --- what the engine tells -------------------------------------------------------------------

    def _told(self, number: int, outcome: Outcome) -> None:
        talk = self._answering
        if self._gone or number != self._request or talk is None:
            return
        if isinstance(outcome, TextDelta):
            talk.append(self._turn, outcome.text)
            self._unwritten = True
        elif isinstance(outcome, Progress):
            self._show_progress(outcome)
        elif isinstance(outcome, Notice | Replanned):
            talk.note(self._turn, outcome.text)
        elif isinstance(outcome, Streaming):
            needs = max(outcome.picture_bytes, outcome.prompt_bytes, outcome.token_bytes)
            talk.note(
                self._turn,
                self.tr("Memory is short: up to {size} of weights come from RAM or disk.").format(
                    size=format_bytes(needs)
                ),
            )
        elif isinstance(outcome, TurnsDropped):
            talk.note(
                self._turn,
                self.tr("The oldest {count} questions no longer fit and were left out.").format(
                    count=outcome.count
                ),
            )
        elif isinstance(outcome, Finished):
            talk.finish(self._turn, outcome)
            self._end_answer()
        elif isinstance(outcome, CogVLM2LiteError):
            talk.fail(self._turn, f"{outcome.message} {outcome.hint}".strip())
            self._end_answer()

    def _end_answer(self) -> None:
        self._write()
        self._drawing.stop()
        self._draw()
        self._request, self._answering = None, None
        self.progress.hide()
        self._show_state()

    def _write(self) -> None:
        talk, self._written = self._answering, time.monotonic()
        self._unwritten = False
        if talk is not None:
            self._guard(lambda: self._context.history.write(talk.turns[self._turn]))

    def _tick(self) -> None:
        """Draw and write what came. By the clock: after a slow token the next may be long away."""
        self._draw()
        if self._unwritten and time.monotonic() - self._written > _WRITE_S:
            self._write()

    def _draw(self) -> None:
        if self._answering is not None and self._answering is self._conversation:
            self.transcript.show_turn(self._answering.turns[self._turn])

    def _show_progress(self, event: Progress) -> None:
        words = {
            "load": self.tr("Loading"),
            "encode": self.tr("Looking at the picture"),
            "prefill": self.tr("Reading the question"),
            "decode": self.tr("Answering"),
        }
        held = f", {format_bytes(event.held_bytes)}" if event.held_bytes else ""
        self.status.setText(words.get(event.phase, event.phase) + held)
        self.progress.setRange(0, max(event.total, 1))
        self.progress.setValue(event.done)
        self.progress.show()

    def _show_state(self) -> None:
        """Draw what the engine can do now."""
        if self._gone:
            return
        client = self._context.engine.client
        state, ready = client.state, client.state is EngineState.READY
        self.send_button.setIcon(theme.icon("stop" if self.busy else "send"))
        text = self.tr("Stop (Esc)") if self.busy else self.tr("Send (Enter)")
        self.send_button.setToolTip(text)
        self.send_button.setAccessibleName(text)
        wanted = bool(self.composer.toPlainText().strip())
        self.send_button.setEnabled(self.busy or (ready and wanted))
        model = client.load is not None
        self._welcome_buttons.setVisible(not model)
        self._welcome_text.setText(
            self.tr("Drop a picture at the right, and write a question below.")
            if model
            else self.tr("Everything stays on this computer. First choose a model.")
        )
        if not self.busy:
            self.status.setText(
                {
                    EngineState.READY: self.tr("Ready"),
                    EngineState.LOADING: self.tr("Loading the model…"),
                    EngineState.EMPTY: self.tr("The model is unloaded."),
                    EngineState.DEAD: self.tr("The engine has ended."),
                    EngineState.STOPPED: self.tr("No model is open."),
                }[state]
            )
        ended = (EngineState.DEAD, EngineState.EMPTY)
        if model and (state in ended or (client.reason and not ready)):
            self._banner_text.setText(client.reason or self.tr("The model is unloaded."))
            self.restart_button.show()
            self._banner.show()
        elif self.restart_button.isVisible() and ready:
            self._banner.hide()

    def say(self, text: str) -> None:
        """Show a sentence above the composer."""
        self._banner_text.setText(text)
        self.restart_button.hide()
        self._banner.show()

    @property
    def said(self) -> str:
        """The sentence that is shown; empty without one."""
        return self._banner_text.text() if self._banner.isVisibleTo(self) else ""

    def answered(self) -> bool:
        """Say whether the last turn of the conversation has its whole answer."""
        if self._conversation is None or self._conversation.leaf is None:
            return False
        return self._conversation.turns[self._conversation.leaf].status is Status.DONE
