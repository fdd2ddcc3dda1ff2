"""The page "Chat": connects the conversations, the question, the picture and the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtGui import (
    QAction,
    QDragEnterEvent,
    QDragLeaveEvent,
    QDropEvent,
    QKeySequence,
    QResizeEvent,
)
from PySide6.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QSplitter,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.worker.client import EngineState
from cogvlm2_lite.worker.protocol import Ask, Loaded
from gui.chat.answering import Answering
from gui.chat.composer import Composer
from gui.chat.dropped import read_file
from gui.chat.picture import PicturePanel
from gui.chat.picture_choice import (
    PictureAction,
    ReadPictures,
    ask_about_many,
    ask_about_second,
    read_pictures,
)
from gui.chat.sidebar import Sidebar
from gui.chat.transcript import Transcript
from gui.chat.welcome import Banner, Welcome
from gui.context import Context
from gui.data.history import HistoryError
from gui.data.settings import sampling_of
from gui.data.state import Conversation, Status, Turn
from gui.translation import error_text, translate

_NARROW = 720
"""Below this width, in pixels, the list of conversations is hidden."""
_NARROW_PANEL = 220


def make(context: Context) -> QWidget:
    """Make the page."""
    return ChatPage(context)


class ChatPage(QWidget):
    """The list of conversations, the open conversation, and its picture, side by side."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._conversation: Conversation | None = None
        self._picture = b""
        self._page: int | None = None
        self._edited: Turn | None = None
        self._closed = False
        self._warned: Loaded | None = None
        self.setProperty("kind", "page")
        self._answering = Answering(context.engine, context.history, self)
        self._answering.changed.connect(self._draw)
        self._answering.ended.connect(self._show_state)
        self._answering.failed.connect(self.show_message)
        self.panel = PicturePanel(context)
        self.panel.setMinimumWidth(180)
        self.panel.chosen.connect(lambda data: self._choose_picture(data, None))
        self.panel.page_chosen.connect(lambda page: self._choose_picture(self._picture, page))
        self.panel.files_dropped.connect(self._files_dropped)
        self.panel.failed.connect(self.show_message)
        self.sidebar = self._make_sidebar()
        self.setAcceptDrops(True)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._splitter = splitter = QSplitter(Qt.Orientation.Horizontal)
        splitter.setChildrenCollapsible(True)
        splitter.addWidget(self.sidebar)
        splitter.addWidget(self._make_middle())
        splitter.addWidget(self.panel)
        splitter.setStretchFactor(1, 1)
        splitter.setSizes([230, 560, 320])
        row.addWidget(splitter)
        context.engine.state_changed.connect(self._show_state)
        self._keys()
        self.reload_list()
        self.show_conversation(None)

    @property
    def busy(self) -> bool:
        """True while an answer is being generated."""
        return self._answering.busy

    def focus_input(self) -> None:
        """Focus the question field. A focus proxy would make the list unreachable by Tab."""
        self.composer.setFocus()

    @property
    def conversation(self) -> Conversation | None:
        """The conversation that is shown."""
        return self._conversation

    def save_state(self) -> tuple[int | None, bytes, str, int | None]:
        """Return conversation, picture, question and page for a widget that replaces this one."""
        shown, text = self._conversation, self.composer.toPlainText()
        return (shown.id if shown else None), self._picture, text, self._page

    def restore_state(self, saved: tuple[int | None, bytes, str, int | None]) -> None:
        """Show what the replaced widget showed."""
        conversation_id, picture, text, page = saved
        if conversation_id is not None:
            self._guard(lambda: self.show_conversation(self._context.history.load(conversation_id)))
            self.reload_list()
        elif picture:
            self._picture, self._page = picture, page
            self.panel.show_picture(picture, page)
        self.composer.setPlainText(text)

    def shut_down(self) -> None:
        """Save the text of a running answer, and ignore later events."""
        self._answering.shut_down()
        self._closed = True

    # --- layout ----------------------------------------------------------------------------------

    def _make_sidebar(self) -> Sidebar:
        side = Sidebar(self._context, self._is_answering)
        side.new_requested.connect(self.start_new)
        side.selected.connect(self._open)
        side.renamed.connect(self._renamed)
        side.deleted.connect(self._deleted)
        side.failed.connect(self.show_message)
        self.list, self.search, self.undo = side.list, side.search, side.undo
        self.new_button = side.new_button
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
        self.transcript.resume.connect(self.continue_answer)
        self.transcript.choose.connect(self._choose_branch)
        self._stack.addWidget(self.transcript)
        self._welcome = Welcome()
        self._welcome.demo.connect(self.open_demo)
        self._welcome.folder.connect(self._ask_for_model)
        self._welcome.convert.connect(partial(self._context.show_page, "convert"))
        self.demo_button = self._welcome.demo_button
        self._stack.addWidget(self._welcome)
        column.addWidget(self._stack, 1)
        self._banner = Banner()
        self._banner.restart.connect(self._context.engine.client.restart)
        self.restart_button = self._banner.restart_button
        column.addWidget(self._banner)
        self._input = Composer(self._context.settings, self.panel.accept_mime)
        self._input.asked.connect(self.send)
        self._input.stopped.connect(self.stop)
        self._answering.progress.connect(self._input.show_progress)
        self.composer, self.send_button = self._input.text, self._input.send_button
        self.presets, self.status = self._input.presets, self._input.status
        self.progress, self.sampling = self._input.progress, self._input.sampling
        column.addWidget(self._input)
        return middle

    def _keys(self) -> None:
        for keys, do in (
            ("Ctrl+N", self.start_new),
            ("Ctrl+O", self.panel.ask_for_file),
            ("Ctrl+Shift+S", self.panel.capture),
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
        """Hide the list in a narrow window."""
        super().resizeEvent(event)
        narrow = self.width() < _NARROW
        self.sidebar.setVisible(not narrow)
        self.panel.setMaximumWidth(_NARROW_PANEL if narrow else 16_777_215)
        if narrow:  # else the width that the panel may not use stays empty
            self._splitter.setSizes([0, self.width() - _NARROW_PANEL, _NARROW_PANEL])

    # A picture may be dropped anywhere on the page; the panel shows where it will be.

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: N802 - Qt's name
        """Pass the event to the picture panel."""
        self.panel.dragEnterEvent(event)

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:  # noqa: N802 - Qt's name
        """Pass the event to the picture panel."""
        self.panel.dragLeaveEvent(event)

    def dropEvent(self, event: QDropEvent) -> None:  # noqa: N802 - Qt's name
        """Pass the event to the picture panel."""
        self.panel.dropEvent(event)

    # --- conversations ---------------------------------------------------------------------------

    def reload_list(self) -> None:
        """Read the list again."""
        self.sidebar.set_current(self._conversation.id if self._conversation else None)
        self.sidebar.reload()

    def delete(self, conversation_id: int) -> None:
        """Delete a conversation; the button below the list restores it."""
        self.sidebar.delete(conversation_id)

    def export_to(self, conversation_id: int, target: Path) -> None:
        """Write a conversation to a file. Raises HistoryError."""
        self.sidebar.export_to(conversation_id, target)

    def show_conversation(self, conversation: Conversation | None) -> None:
        """Show a conversation, or an empty page for a new one."""
        self._conversation, self._edited = conversation, None
        self._picture, self._page = b"", None
        if conversation is not None and conversation.picture:
            try:
                self._picture = self._context.history.picture(conversation.picture)
                self._page = conversation.page
            except HistoryError as error:
                self.show_message(error_text(error))
        self.panel.show_picture(self._picture, self._page)
        self.transcript.show_conversation(conversation)
        empty = conversation is None or not conversation.path()
        self._stack.setCurrentIndex(1 if empty else 0)
        self.sidebar.set_current(conversation.id if conversation else None)
        self._show_state()

    def start_new(self) -> None:
        """Start a new conversation."""
        self.show_conversation(None)
        self.composer.setFocus()

    def _is_answering(self, conversation_id: int) -> bool:
        conversation = self._answering.conversation
        return conversation is not None and conversation.id == conversation_id

    def _open(self, conversation_id: int) -> None:
        if self._is_answering(conversation_id):
            self.show_conversation(self._answering.conversation)
            return
        self._guard(lambda: self.show_conversation(self._context.history.load(conversation_id)))

    def _renamed(self, conversation_id: int, title: str) -> None:
        for conversation in (self._conversation, self._answering.conversation):
            if conversation is not None and conversation.id == conversation_id:
                conversation.title = title

    def _deleted(self, conversation_id: int) -> None:
        if self._conversation is not None and self._conversation.id == conversation_id:
            self.show_conversation(None)

    def _guard(self, work: Callable[[], object]) -> bool:
        """Return True if `work` succeeded; show the message of a HistoryError."""
        try:
            work()
        except HistoryError as error:
            self.show_message(error_text(error))
            return False
        return True

    # --- pictures --------------------------------------------------------------------------------

    def receive(self, files: Sequence[Path]) -> None:
        """Start a new conversation about a picture file."""
        try:
            data = read_file(files[0])
        except CogVLM2LiteError as error:
            self.show_message(error_text(error))
            return
        self.start_new()
        self.panel.load(data)

    def _choose_picture(self, data: bytes, page: int | None) -> None:
        """Use a picture, or another page of the picture. Another page is another picture."""
        shown = self._conversation
        if shown is not None and shown.path() and (data, page) != (self._picture, self._page):
            choice = ask_about_second(self)
            if choice is PictureAction.CANCEL:
                if data == self._picture:  # the panel shows the number of the other page
                    self.panel.show_picture(data, self._page)
                return
            if choice is PictureAction.NEW:
                self.start_new()
                shown = None
        if shown is not None and not self._set_picture(shown, data, page):
            return
        self._picture, self._page = data, page
        self.panel.show_picture(data, page)
        self._show_state()

    def _files_dropped(self, files: list[Path]) -> None:
        choice = ask_about_many(self, files)
        if choice is PictureAction.BATCH:
            self._context.send_files("batch", files)
        elif choice is PictureAction.NEW:
            self.show_message(self.tr("Reading the pictures…"))
            work = partial(read_pictures, files)
            self._context.tasks.run(work, self._begin_each, lambda error: None, self)

    def _begin_each(self, several: ReadPictures) -> None:
        """Create a conversation for each picture, and show the first one."""
        history = self._context.history
        try:
            for name, data in reversed(several.pictures):
                picture = history.save_picture(data)
                first = history.create(picture=picture, title=escape_line(name))
        except HistoryError as error:
            self.show_message(error_text(error))
            return
        if several.pictures:
            self.show_conversation(first)
        self.reload_list()
        if several.errors:
            self.show_message("\n".join(several.errors))
        else:
            self._banner.hide()

    def _set_picture(self, conversation: Conversation, data: bytes, page: int | None) -> bool:
        before = conversation.picture, conversation.page

        def change() -> None:
            conversation.picture = self._context.history.save_picture(data)
            conversation.page = page
            self._context.history.save(conversation)

        if self._guard(change):
            return True
        conversation.picture, conversation.page = before
        return False

    # --- asking ----------------------------------------------------------------------------------

    def open_demo(self) -> None:
        """Open the demo model."""
        from cogvlm2_lite.demo.shipped import checkpoint_folder

        self._context.open_model(checkpoint_folder())

    def _ask_for_model(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, self.tr("Open a model folder"))
        if folder:
            self._context.open_model(Path(folder))

    def send(self) -> None:
        """Ask the question in the composer."""
        question = self.composer.toPlainText().strip()
        if not question or not self._can_ask():
            return
        parent = None
        if self._edited is not None:
            parent = self._edited.parent
        elif self._conversation is not None:
            parent = self._conversation.leaf
        if self._ask(question, parent):
            self.composer.clear()

    def answer_again(self, turn_id: int) -> None:
        """Ask a question again. The earlier answer stays as another version."""
        if self._conversation is not None and self._can_ask():
            turn = self._conversation.turns[turn_id]
            self._ask(turn.question, turn.parent)

    def continue_answer(self, turn_id: int) -> None:
        """Continue an answer that stopped early."""
        conversation = self._conversation
        if (
            conversation is None
            or not self._can_ask()
            or not conversation.can_continue(conversation.turns[turn_id])
        ):
            return
        cut = conversation.turns[turn_id]
        turn = conversation.reopen(turn_id)
        if not self._guard(lambda: self._context.history.write(turn)):
            conversation.turns[turn_id] = cut
            return
        ids = cut.stats.token_ids if cut.stats is not None else ()
        self._begin(conversation, turn, continue_from=cut.answer, continue_ids=ids)
        self._draw()

    def edit_question(self, turn_id: int) -> None:
        """Put a question into the composer. Sending it adds another version."""
        if self._conversation is None:
            return
        self._edited = self._conversation.turns[turn_id]
        self.composer.setPlainText(self._edited.question)
        self.composer.setFocus()

    def stop(self) -> None:
        """Stop the answer within one token."""
        self._answering.stop()

    def _again_last(self) -> None:
        if self._conversation is not None and self._conversation.leaf is not None:
            self.answer_again(self._conversation.leaf)

    def _can_ask(self) -> bool:
        return not self.busy and self._context.engine.client.state is EngineState.READY

    def _ask(self, question: str, parent: int | None) -> bool:
        history = self._context.history
        try:
            if self._conversation is None:
                name = history.save_picture(self._picture) if self._picture else ""
                self._conversation = history.create(picture=name, page=self._page)
            turn = history.ask(self._conversation, question, parent)
        except HistoryError as error:
            self.show_message(error_text(error))
            return False
        self._edited = None
        self._begin(self._conversation, turn)
        self.transcript.show_new(self._conversation, turn)
        self._stack.setCurrentIndex(0)
        self.reload_list()
        return True

    def _begin(
        self,
        conversation: Conversation,
        turn: Turn,
        *,
        continue_from: str = "",
        continue_ids: tuple[int, ...] = (),
    ) -> None:
        """Ask the engine for the answer to a turn that is already saved."""
        self._banner.hide()
        ask = Ask(
            request=0,
            question=turn.question,
            image=self._picture or None,
            page=self._page,
            history=conversation.before(turn),
            sampling=sampling_of(self._context.settings),
            continue_from=continue_from,
            continue_ids=continue_ids,
        )
        self._answering.begin(conversation, turn.id, ask)
        self._show_state()

    def _choose_branch(self, turn_id: int) -> None:
        if self.busy or self._conversation is None:
            return
        conversation = self._conversation
        conversation.choose(turn_id)
        self._guard(lambda: self._context.history.save(conversation))
        self.transcript.show_conversation(conversation)

    # --- state of the engine ---------------------------------------------------------------------

    def _draw(self) -> None:
        conversation = self._answering.conversation
        if conversation is not None and conversation is self._conversation:
            self.transcript.show_turn(conversation.turns[self._answering.turn])

    def _show_state(self) -> None:
        """Show the engine's state."""
        if self._closed:
            return
        client = self._context.engine.client
        state, ready = client.state, client.state is EngineState.READY
        self._input.show_state(state, busy=self.busy)
        model = client.options is not None
        self._welcome.show_model(model)
        ended = (EngineState.DEAD, EngineState.EMPTY)
        if model and (state in ended or (client.reason and not ready)):
            self._banner.show_message(
                translate(client.reason) or self.tr("The model is unloaded."), restart=True
            )
        elif self.restart_button.isVisible() and ready:
            self._banner.hide()
        if ready and client.loaded is not self._warned:
            self._warned = client.loaded
            self._warn()

    def _warn(self) -> None:
        """Show what is wrong with the files of the model that has just been loaded."""
        warnings = self._warned.warnings if self._warned is not None else ()
        if warnings:
            self._banner.show_message(" ".join(translate(warning) for warning in warnings))

    def show_message(self, text: str) -> None:
        """Show a message above the composer."""
        self._banner.show_message(text)

    @property
    def message(self) -> str:
        """The message that is shown, or "" without one."""
        return self._banner.text if self._banner.isVisibleTo(self) else ""

    def answered(self) -> bool:
        """Return True if the last turn of the conversation has its complete answer."""
        if self._conversation is None or self._conversation.leaf is None:
            return False
        return self._conversation.turns[self._conversation.leaf].status is Status.DONE
