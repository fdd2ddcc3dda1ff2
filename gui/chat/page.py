"""The page "Chat": connects the conversations, the question, the picture and the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QAction, QGuiApplication, QImage, QKeySequence
from PySide6.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QStackedWidget,
    QWidget,
)

from cogvlm2_lite.errors import AdapterError, DoesNotFitError
from cogvlm2_lite.file_names import escape_line
from cogvlm2_lite.inputs.formats import readable_suffixes
from cogvlm2_lite.worker.client import EngineState
from cogvlm2_lite.worker.protocol import Ask, Loaded
from gui import theme
from gui.announce import announce
from gui.background.attachments import Attachment, AttachmentState, cut_part, whole_page
from gui.background.engine import LoadError
from gui.chat.answering import Answering, Cut
from gui.chat.banner import Banner, MessageKind
from gui.chat.capture import Capture, can_capture
from gui.chat.composer import Composer
from gui.chat.drafts import Draft, Waiting
from gui.chat.dropped import (
    DroppedContent,
    is_file,
    is_folder,
    png_bytes,
    read_file,
    read_mime,
)
from gui.chat.giving import Drafts, Giving
from gui.chat.layout import ChatLayout
from gui.chat.middle import Middle
from gui.chat.picture import PicturePanel
from gui.chat.portal import PortalCapture
from gui.chat.progress import Phase, describe
from gui.chat.several import ReadPictures, read_pictures
from gui.chat.sidebar import Sidebar
from gui.chat.transcript import Transcript
from gui.chat.welcome import Welcome
from gui.context import Context, demo_folder, model_name
from gui.data.history import HistoryError, Unsent
from gui.data.rendering import tables
from gui.data.saving import Kind, save_table
from gui.data.settings import sampling_of
from gui.data.state import Conversation, Part, Status, Turn
from gui.save_dialog import ask_for_target
from gui.translation import error_text, fill, sentences, translate

_SAVE_MS = 500
"""What is typed is saved so long after the last key."""


@dataclass(frozen=True, kw_only=True)
class SavedChat:
    """What the page shows, for a page that replaces it.

    model_message  whether a message about the model is shown
    """

    drafts: Drafts
    text: str
    model_message: bool


def make(context: Context) -> QWidget:
    """Make the page."""
    return ChatPage(context)


class ChatPage(QWidget):
    """The list of conversations, the open conversation, and its picture, side by side."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._handed_over = False
        self._composed_for = 0  # the conversation whose text the composer has; 0: a new one
        self._closed = False
        self._saving = QTimer(self)
        self._saving.setSingleShot(True)
        self._saving.setInterval(_SAVE_MS)
        self._saving.timeout.connect(self._save_unsent)
        self._warned: Loaded | None = None
        self._engine_state = context.engine.client.state
        self._failure: LoadError | None = None
        self.setProperty("kind", "page")
        self._answering = Answering(context.engine, context.history, context.tasks, self)
        self._answering.changed.connect(self._draw)
        self._answering.ended.connect(self._answer_ended)
        self._answering.failed.connect(partial(self.show_message, cause="save"))
        self._answering.written.connect(lambda: self._banner.clear("save"))
        self.panel = PicturePanel(context)
        self._giving = Giving(context, self)
        self._portal = PortalCapture(self)
        self._portal.captured.connect(self._captured_file)
        self._portal.failed.connect(self._no_capture)
        self.panel.page_chosen.connect(self._giving.choose_page)
        self.panel.open_wanted.connect(self.ask_for_file)
        self.panel.paste_wanted.connect(self.paste)
        self.panel.capture_wanted.connect(self.capture)
        self.panel.failed.connect(self.show_message)
        self.panel.picture.chosen.connect(self._part_chosen)
        self.panel.picture.rotated.connect(self._rotated)
        self.sidebar = self._make_sidebar()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self.layout_of_page = ChatLayout(
            context.settings, self.sidebar, self._make_middle(), self.panel
        )
        self.panel.filled.connect(self.layout_of_page.set_filled)
        row.addWidget(self.layout_of_page)
        context.engine.state_changed.connect(self._engine_changed)
        self._giving.changed.connect(self._show_pictures)
        self._giving.ready.connect(self._continue_asking)
        self._giving.kept.connect(self.reload_list)
        self._giving.failed.connect(partial(self.show_message, cause="picture"))
        self._keys()
        self.reload_list()
        self._giving.show(None)
        self._show_draft()
        self._show_unsent()
        self.composer.textChanged.connect(self._saving.start)
        self.transcript.typed.connect(self._saving.start)

    @property
    def busy(self) -> bool:
        """True while an answer is being generated."""
        return self._answering.busy

    @property
    def waiting(self) -> bool:
        """True while a question waits for its picture or for another answer."""
        return bool(self._giving.waiting)

    def focus_input(self) -> None:
        """Focus the question field. A focus proxy would make the list unreachable by Tab."""
        self.composer.setFocus()

    @property
    def conversation(self) -> Conversation | None:
        """The conversation that is shown."""
        return self._giving.draft.conversation

    @property
    def picture(self) -> bytes:
        """The file of the picture that the next question is about; empty until it is ready."""
        found = self._giving.draft.picture
        return found.data if found is not None and found.picture is not None else b""

    def save_state(self) -> SavedChat:
        """Return what is shown and waits, for a widget that replaces this one."""
        self._save_unsent()
        self._handed_over = True
        return SavedChat(
            drafts=self._giving.save(),
            text=self.composer.toPlainText(),
            model_message=self._banner.has("model"),
        )

    def restore_state(self, saved: SavedChat) -> None:
        """Show what the replaced widget showed."""
        self._giving.restore(saved.drafts)
        self._composed_for = self.conversation.id if self.conversation is not None else 0
        self._show_draft()
        self._show_unsent()
        self.reload_list()
        self.composer.setPlainText(saved.text)
        if not saved.model_message:  # it was closed on the page before
            self._banner.clear("model")

    def shut_down(self) -> None:
        """Save the text of a running answer and what was typed, and ignore later events."""
        unsent = self._unsent()
        draft = self._giving.draft
        self._answering.shut_down()
        self._giving.shut_down()
        if not (self._closed or self._handed_over):
            self._keep_unsent(draft, unsent)
        self._saving.stop()
        self.sidebar.shut_down()
        self._closed = True

    # --- layout ----------------------------------------------------------------------------------

    def _make_sidebar(self) -> Sidebar:
        side = Sidebar(self._context, self._is_answering)
        side.new_requested.connect(self.start_new)
        side.selected.connect(self._open)
        side.renamed.connect(self._renamed)
        side.deleted.connect(self._deleted)
        side.failed.connect(partial(self.show_message, cause="list"))
        side.told.connect(partial(self.show_message, kind=MessageKind.INFO, cause="list"))
        self.list, self.search, self.undo = side.list, side.search, side.undo
        self.new_button = side.new_button
        return side

    def _make_middle(self) -> Middle:
        self._stack = QStackedWidget()
        middle = Middle(self._stack)
        self.transcript = Transcript()
        self.transcript.again.connect(self.answer_again)
        self.transcript.edited.connect(self.ask_edited)
        self.transcript.left.connect(self.focus_input)
        self.transcript.table_wanted.connect(self._save_table)
        self.transcript.resume.connect(self.continue_answer)
        self.transcript.choose.connect(self._choose_branch)
        self.transcript.wanted.connect(self._show_parts)
        self._stack.addWidget(self.transcript)
        self._welcome = Welcome(self._context)
        self._welcome.demo.connect(self.open_demo)
        self._welcome.folder.connect(self._context.choose_model)
        self._welcome.memory.connect(partial(self._context.show_page, "memory"))
        self._welcome.sample.connect(self.ask_sample)
        self._welcome.left.connect(self.focus_input)
        self._welcome.convert.connect(partial(self._context.show_page, "convert"))
        self.demo_button = self._welcome.demo_button
        self._stack.addWidget(self._welcome)
        self._banner = Banner()
        self._banner.shown.connect(partial(middle.foot.attend, self._banner))
        self._banner.restart.connect(self._try_again)
        self._banner.memory.connect(partial(self._context.show_page, "memory"))
        self.restart_button = self._banner.restart_button
        self.memory_button = self._banner.memory_button
        middle.foot.add(self._banner)
        self._input = Composer(self._context.settings)
        self.chip, self.several = self._input.chip, self._input.several
        self.chip.removed.connect(self._giving.remove)
        self.chip.undone.connect(self._giving.undo)
        self.chip.new_chosen.connect(partial(self._context.settings.set, "second_picture_new"))
        self.several.each.connect(self._begin_conversations)
        self.several.batch.connect(partial(self._context.send_files, "batch"))
        self._input.add_menu.aboutToShow.connect(self._fill_add_menu)
        self._input.asked.connect(self.send)
        self._input.stopped.connect(self.stop)
        self._answering.progress.connect(self._show_progress)
        self.composer, self.send_button = self._input.text, self._input.send_button
        self.composer.textChanged.connect(self._context.use)
        self.composer.textChanged.connect(partial(middle.foot.attend, self.composer))
        self.presets, self.status = self._input.presets, self._input.status
        self.progress, self.sampling = self._input.progress, self._input.sampling
        middle.foot.add(self._input)
        return middle

    def _keys(self) -> None:
        for keys, do in (
            ("Ctrl+N", self.start_new),
            ("Ctrl+O", self.ask_for_file),
            ("Ctrl+Shift+S", self.capture),
            ("Ctrl+F", self.search.setFocus),
            ("Ctrl+L", self.composer.setFocus),
            ("Ctrl+R", self._again_last),
            ("Ctrl+Shift+C", self.copy_answer),
            ("Esc", self.cancel),
        ):
            action = QAction(self)
            action.setShortcut(QKeySequence(keys))
            if keys == "Esc":  # elsewhere in the window it leaves something else
                action.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            action.triggered.connect(lambda _=False, do=do: do())
            self.addAction(action)

    # --- conversations ---------------------------------------------------------------------------

    def reload_list(self) -> None:
        """Read the list again."""
        self.sidebar.set_current(self.conversation.id if self.conversation else None)
        self.sidebar.reload()

    def delete(self, conversation_id: int) -> None:
        """Delete a conversation; the button below the list restores it."""
        self.sidebar.delete(conversation_id)

    def export_to(self, conversation_id: int, target: Path) -> None:
        """Write a conversation to a new file. Raises HistoryError or SaveError."""
        self.sidebar.export_to(conversation_id, target)

    def show_conversation(self, conversation: Conversation | None) -> None:
        """Show a conversation, or an empty page for a new one."""
        left, unsent = self._giving.draft, self._unsent()
        self.transcript.end_edit()
        self._giving.show(conversation)
        self._keep_unsent(left, unsent)
        self._composed_for = self.conversation.id if self.conversation is not None else 0
        self._show_draft()
        self._show_unsent()

    # --- what was typed and not asked

    def _unsent(self) -> Unsent:
        turn, edit = self.transcript.editing or (None, "")
        return Unsent(text=self.composer.toPlainText(), turn=turn, edit=edit)

    def _save_unsent(self) -> None:
        self._keep_unsent(self._giving.draft, self._unsent())

    def _keep_unsent(self, draft: Draft, unsent: Unsent) -> None:
        """Save what was typed in a conversation, which may have got its number just now."""
        self._saving.stop()
        history, number = self._context.history, self._composed_for
        if draft.conversation is not None and number != draft.conversation.id:
            before, number = number, draft.conversation.id
            self._guard(lambda: history.save_unsent(before, Unsent()))
        self._guard(lambda: history.save_unsent(number, unsent))

    def _show_unsent(self) -> None:
        try:
            unsent = self._context.history.unsent(self._composed_for)
        except HistoryError as error:
            self.show_message(error_text(error))
            return
        self.composer.setPlainText(unsent.text)
        if unsent.turn is not None:
            self.transcript.start_edit(unsent.turn, unsent.edit)
        self._saving.stop()

    def _forget_unsent(self, draft: Draft, *, before: Draft) -> None:
        """Forget what was typed, because it was asked. before: the draft that it was typed in."""
        numbers = {0 if d.conversation is None else d.conversation.id for d in (draft, before)}
        shown = self._giving.draft
        if draft is shown:
            assert draft.conversation is not None
            numbers.add(self._composed_for)
            self._composed_for = draft.conversation.id
        for number in numbers:
            self._guard(partial(self._context.history.save_unsent, number, Unsent()))
        self._saving.stop()

    def _show_draft(self) -> None:
        """Show the conversation of the draft, which has changed."""
        conversation = self.conversation
        self.transcript.show_conversation(conversation)
        empty = conversation is None or not conversation.path()
        self._stack.setCurrentIndex(1 if empty else 0)
        self._welcome.scroll_to_top()
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
        left = self._giving.left(conversation_id)
        if left is not None:
            self.show_conversation(left)
            return
        self._guard(lambda: self.show_conversation(self._context.history.load(conversation_id)))

    def open_conversation(self, conversation_id: int) -> None:
        """Show a conversation that was saved by another page."""
        self._open(conversation_id)
        self.reload_list()

    def _renamed(self, conversation_id: int, title: str) -> None:
        self._giving.renamed(conversation_id, title)
        answered = self._answering.conversation
        if answered is not None and answered.id == conversation_id:
            answered.title = title

    def _deleted(self, conversation_id: int) -> None:
        shown = self.conversation
        self._giving.forget(conversation_id)
        if shown is not None and shown.id == conversation_id:
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
        """Start a new conversation about a picture file, or ask what to do with several."""
        draft = self._giving.draft
        if draft.conversation is not None or draft.given is not None:
            self.start_new()
        self.take(DroppedContent(files=tuple(files)))

    def take(self, content: DroppedContent) -> None:
        """Use what was dropped, pasted or opened for the shown conversation."""
        if any(map(is_folder, content.files)):
            self._context.send_files("batch", content.files)
        elif len(content.files) > 1:
            self.several.show_files(content.files)
        elif content.files:
            [path] = content.files
            self._giving.give(partial(read_file, path), name=path.name, path=path)
        elif content.url:
            self.show_message(
                fill(
                    self.tr(
                        "{address} is a network address, and this program downloads nothing. "
                        "Save the picture and drop the file."
                    ),
                    address=content.url,
                ),
                kind=MessageKind.INFO,
                cause="picture",
            )
        elif not content.is_empty:
            self._giving.give(content.read, name=self.tr("Pasted picture"))
        self.composer.setFocus()

    def paste(self) -> None:
        """Use the picture on the clipboard."""
        content = read_mime(QGuiApplication.clipboard().mimeData())
        self.take(content)
        if content.is_empty:
            self.show_message(
                self.tr("There is no picture on the clipboard."),
                kind=MessageKind.INFO,
                cause="picture",
            )

    def ask_for_file(self) -> None:
        """Ask for one or more picture files."""
        patterns = " ".join(f"*{suffix}" for suffix in readable_suffixes())
        names, _ = QFileDialog.getOpenFileNames(
            self, self.tr("Open pictures"), "", self.tr("Pictures") + f" ({patterns})"
        )
        self.take(DroppedContent(files=tuple(map(Path, names))))

    def _fill_add_menu(self) -> None:
        menu = self._input.add_menu
        menu.clear()
        menu.addAction(theme.icon("open"), self.tr("Open a file… (Ctrl+O)"), self.ask_for_file)
        menu.addAction(theme.icon("paste"), self.tr("Paste (Ctrl+V)"), self.paste)
        menu.addAction(
            theme.icon("capture"),
            self.tr("Capture a part of the screen (Ctrl+Shift+S)"),
            self.capture,
        )
        recent = self._giving.recent
        paths = recent.paths()
        if not paths:
            return
        menu.addSection(self.tr("Recent pictures"))
        names = [path.name for path in paths]
        for path in paths:
            name = escape_line(path.name)
            if names.count(path.name) > 1:
                name = f"{name} ({escape_line(str(path.parent))})"
            action = menu.addAction(name.replace("&", "&&"), partial(self._open_recent, path))
            action.setToolTip(escape_line(str(path)))
        menu.addSeparator()
        menu.addAction(self.tr("Clear the list"), recent.clear)

    def _open_recent(self, path: Path) -> None:
        if is_file(path):
            self.take(DroppedContent(files=(path,)))
            return
        self._giving.recent.remove(path)
        self.show_message(
            fill(
                self.tr("{file} no longer exists. It was removed from the recent pictures."),
                file=escape_line(str(path)),
            )
        )

    def capture(self) -> None:
        """Capture a part of the screen."""
        if can_capture():
            Capture(self.window(), self.captured)
        else:
            self._portal.start()

    def _captured_file(self, path: Path) -> None:
        self._giving.give(partial(read_file, path), name=self.tr("Screenshot"))

    def _no_capture(self) -> None:
        self.show_message(
            self.tr(
                "The desktop's screenshot dialog can't be opened. Use the desktop's own "
                "screenshot key, then paste here with Ctrl+V."
            )
        )

    def captured(self, image: QImage | None) -> None:
        """Use a part of the screen; None if the user cancelled."""
        if image is not None:
            self._giving.give(lambda: png_bytes(image), name=self.tr("Screenshot"))

    def _begin_conversations(self, files: Sequence[Path]) -> None:
        """Read several pictures, and create a conversation for each."""
        self.show_message(self.tr("Reading the pictures…"), kind=MessageKind.INFO, cause="reading")
        work = partial(read_pictures, files, self._context.history.save_picture)
        self._context.tasks.run(work, self._begin_each, lambda error: None, self)

    def _begin_each(self, several: ReadPictures) -> None:
        """Create a conversation for each picture, and show the first one."""
        history = self._context.history
        try:
            for name, picture in reversed(several.pictures):
                first = history.create(picture=picture, title=escape_line(name))
        except HistoryError as error:
            self.show_message(error_text(error), cause="reading")
            return
        if several.pictures:
            self.show_conversation(first)
        self.reload_list()
        if several.errors:
            self.show_message("\n".join(several.errors), cause="reading")
        else:
            self._banner.clear("reading")

    def _show_pictures(self) -> None:
        """Show the pictures of the conversation in the panel and in the composer."""
        draft, shown = self._giving.draft, self._giving.shown
        if draft.picture is None or draft.picture.state is not AttachmentState.FAILED:
            self._banner.clear("picture")
        new = self._context.settings.get("second_picture_new")
        draft.see()
        self.transcript.pictures.show(draft.current)
        self.panel.show_attachment(
            shown,
            turning=shown is not draft.picture,
            rotation=draft.rotation,
            parts=draft.parts,
        )
        self._show_target()
        self.chip.show_draft(draft, new=new)
        self._show_state()

    def _show_parts(self, parts: tuple[Part, ...]) -> None:
        """Show large what a question was about, and ask the next question about it, too."""
        draft, view = self._giving.draft, self.panel.picture
        page = draft.picture.page if draft.picture is not None else None
        if any(part.page != page for part in parts):
            return  # another page is shown now
        rotation = parts[0].rotation if parts else 0
        draft.rotation = rotation
        view.turn_to(rotation)
        if len(parts) == 1:
            view.show_part(parts[0])
        else:
            view.choose_parts(parts)

    def _part_chosen(self) -> None:
        self._giving.draft.parts = self.panel.picture.marked
        self._show_target()
        if self.panel.picture.marked:
            self.composer.setFocus()

    def _rotated(self, rotation: int) -> None:
        draft = self._giving.draft
        draft.rotation, draft.parts = rotation, self.panel.picture.marked
        if draft.conversation is not None and draft.picture is draft.current:
            self._guard(lambda: self._keep_rotation(draft))

    def _show_target(self) -> None:
        """Show in the question field what the next question is about."""
        count = len(self.panel.picture.marked)
        texts = {0: self.tr("Ask about the picture"), 1: self.tr("Ask about this part")}
        several = fill(self.tr("Ask about each of {count} parts"), count=count)
        self.composer.setPlaceholderText(texts.get(count, several))

    # --- asking ----------------------------------------------------------------------------------

    def open_demo(self) -> None:
        """Open the demo model."""
        folder = demo_folder()
        if folder is None:
            self.show_message(self.tr("The demo model is not part of this installation."))
        else:
            self._context.open_model(folder)

    def ask_sample(self, path: Path, question: str) -> None:
        """Ask a question about a sample picture. Without a model, the demo model is opened first.

        A question that is in the composer is kept, and not asked.
        """
        client = self._context.engine.client
        if client.options is None and client.opening is None:
            self.open_demo()
        draft = self._giving.draft
        if draft.conversation is not None or draft.given is not None:
            self.start_new()
        self.take(DroppedContent(files=(path,)))
        if not self.composer.toPlainText().strip():
            self.composer.setPlainText(question)
            self.send()

    def send(self) -> None:
        """Ask the question in the composer, as soon as its picture and the model are ready."""
        question = self.composer.toPlainText().strip()
        if not question:
            return
        if self.busy:
            self._say_busy()
            return
        if not self._load():
            return
        conversation, parent = self.conversation, None
        if conversation is not None:
            parent = conversation.leaf
        self._ask_when_ready(Waiting(question=question, parent=parent, typed=True))

    def answer_again(self, turn_id: int) -> None:
        """Ask a question again. The earlier answer stays as another version."""
        if self.conversation is not None and not self.busy and self._load():
            turn = self.conversation.turns[turn_id]
            self._ask_when_ready(
                Waiting(
                    question=turn.question,
                    parts=turn.parts,
                    page=turn.page,
                    file=turn.file,
                    parent=turn.parent,
                )
            )

    def continue_answer(self, turn_id: int) -> None:
        """Continue an answer that stopped early."""
        conversation = self.conversation
        if (
            conversation is not None
            and not self.busy
            and conversation.can_continue(conversation.turns[turn_id])
            and self._load()
        ):
            self._ask_when_ready(Waiting(continued=turn_id))

    def _ask_when_ready(self, waiting: Waiting) -> None:
        draft = self._giving.draft
        if draft.waiting is None:
            draft.waiting = waiting
            self._continue_asking(draft)
            self._show_state()

    def _continue_asking(self, draft: Draft) -> None:
        """Ask what waits in a conversation, if its picture is ready. It need not be shown."""
        waiting = draft.waiting
        if waiting is None or self._closed:
            return
        picture = draft.picture if waiting.typed else draft.current
        if picture is not None and picture.state is AttachmentState.READING:
            return
        if picture is not None and picture.state is AttachmentState.FAILED:
            draft.waiting = None
            if draft is self._giving.draft:
                self._show_picture_error(picture.error)
            return
        if not self._can_ask():  # another answer is being generated; asked when it ends
            return
        draft.waiting = None
        if waiting.continued is not None:
            self._continue(draft, waiting.continued)
        else:
            self._ask(draft, waiting)

    def _show_picture_error(self, error: str) -> None:
        self._show_state()
        self.show_message(
            sentences(
                translate(error),
                self.tr("The question was not asked. Remove the picture or choose another one."),
            )
        )

    def _continue(self, draft: Draft, turn_id: int) -> None:
        conversation = draft.conversation
        assert conversation is not None
        cut = conversation.turns[turn_id]
        options = self._context.engine.client.options
        loaded = {choice.name for choice in options.adapters} if options is not None else set()
        if cut.adapter and cut.adapter not in loaded:
            text = self.tr(
                "This answer used the adapter {name}. Choose it at the top, then continue."
            )
            self.show_message(fill(text, name=cut.adapter), kind=MessageKind.INFO, cause="adapter")
            self._show_state()
            return
        turn = conversation.reopen(turn_id)
        if not self._guard(lambda: self._context.history.write(turn)):
            conversation.turns[turn_id] = cut
            return
        if len(cut.parts) > 1:
            self._begin(draft, turn)
        else:
            ids = cut.stats.token_ids if cut.stats is not None else ()
            self._begin(draft, turn, continue_from=cut.answer, continue_ids=ids)
        self._draw()

    def edit_question(self, turn_id: int) -> None:
        """Let the user change a question in its bubble."""
        self.transcript.start_edit(turn_id)

    def ask_edited(self, turn_id: int, question: str) -> None:
        """Ask a changed question. The earlier one stays as another version, with what followed."""
        if self.conversation is None:
            return
        if self.busy:
            self._say_busy()
            return
        if not self._load():
            return
        turn = self.conversation.turns[turn_id]
        self._ask_when_ready(
            Waiting(
                question=question,
                parts=turn.parts,
                page=turn.page,
                file=turn.file,
                parent=turn.parent,
                edited=True,
            )
        )

    def _say_busy(self) -> None:
        """Say why Enter asks nothing: the answer may be in another conversation."""
        self.show_message(
            self.tr("No question can be asked now. What you typed is kept in its place."),
            kind=MessageKind.INFO,
            cause="list",  # goes when the answer ends
        )

    def cancel(self) -> None:
        """Stop what is going on; with nothing to stop, close the message or leave the list."""
        if self.busy or self._giving.draft.waiting is not None:
            self.stop()
        elif self._banner.isVisible():
            self._banner.dismiss()
        else:
            self.composer.setFocus()

    def copy_answer(self) -> None:
        """Copy the last answer that is shown, as text."""
        shown = self.conversation.path() if self.conversation is not None else []
        answered = [turn for turn in shown if turn.answer]
        if answered:
            self.transcript.view_of(answered[-1].id).copy()

    def stop(self) -> None:
        """Stop the answer within one token, or keep a question that waits for its picture."""
        if self._giving.draft.waiting is not None:
            self._giving.draft.waiting = None
            self._show_state()
        else:
            self._answering.stop()

    def _again_last(self) -> None:
        if self.conversation is not None and self.conversation.leaf is not None:
            self.answer_again(self.conversation.leaf)

    def _load(self) -> bool:
        """Load the model unless it is loaded or loading. Returns False if there is none."""
        client = self._context.engine.client
        if client.state in (EngineState.READY, EngineState.LOADING):
            return True
        self._context.load_model()
        if client.options is not None or client.opening is not None:
            return True
        self.show_message(
            self.tr("No model is open. Choose one with the button at the top, then send again."),
            cause="model",
        )
        return False

    def _try_again(self) -> None:
        failure = self._context.engine.client.failure
        if failure is not None and failure.kept is not None:
            self._context.open_model(failure.options.folder)
        else:
            self._context.load_model()

    def _can_ask(self) -> bool:
        return not self.busy and self._context.engine.client.state is EngineState.READY

    def _ask(self, draft: Draft, waiting: Waiting) -> None:
        """Save a question and its picture, and ask the engine."""
        parent, before = waiting.parent, draft
        shown = draft is self._giving.draft
        if waiting.typed and draft.is_second and self._context.settings.get("second_picture_new"):
            draft, parent = self._giving.split(draft), None
            if shown:
                self._show_draft()
        try:
            if waiting.typed:
                self._giving.settle(draft)
            assert draft.conversation is not None
            parts = draft.about if waiting.typed else waiting.parts
            file, page = waiting.file, waiting.page
            if draft.current is not None and not file:
                file, page = draft.current.name, draft.current.page_of_several
            adapter = self._context.adapter
            turn = self._context.history.ask(
                draft.conversation,
                waiting.question,
                parent,
                parts,
                file=file,
                page=page,
                adapter=adapter.name if adapter is not None else "",
            )
            self._keep_rotation(draft)
        except HistoryError as error:
            self.show_message(error_text(error))
            return
        self._begin(draft, turn)
        if shown:
            if waiting.typed:
                self.composer.clear()
            if waiting.edited:
                self.transcript.end_edit()
        if waiting.typed:
            self._forget_unsent(draft, before=before)
        if shown:
            self.transcript.show_new(draft.conversation, turn)
            self._stack.setCurrentIndex(0)
        self.reload_list()

    def _begin(
        self,
        draft: Draft,
        turn: Turn,
        *,
        continue_from: str = "",
        continue_ids: tuple[int, ...] = (),
    ) -> None:
        """Ask the engine for the answer to a turn that is already saved."""
        conversation = draft.conversation
        assert conversation is not None
        self._banner.clear("", "list", "reading")
        image, decoded = draft.current.pixels() if draft.current is not None else (None, None)
        ask = Ask(
            request=0,
            question=turn.question,
            image=image,
            decoded=decoded,
            history=conversation.before(turn),
            sampling=sampling_of(self._context.settings),
            continue_from=continue_from,
            continue_ids=continue_ids,
            adapter=turn.adapter,
        )
        self._answering.begin(conversation, turn.id, ask, _cuts(turn, draft.current))
        self._show_state()

    def _keep_rotation(self, draft: Draft) -> None:
        conversation = draft.conversation
        if conversation is not None and conversation.rotation != draft.rotation:
            conversation.rotation = draft.rotation
            self._context.history.save(conversation)

    def _choose_branch(self, turn_id: int) -> None:
        conversation = self.conversation
        if self.busy or conversation is None:
            return
        conversation.choose(turn_id)
        self._guard(lambda: self._context.history.save(conversation))
        self.transcript.show_conversation(conversation)

    def _save_table(self, turn_id: int, place: int) -> None:
        """Ask where to save a table of an answer, and save it as CSV."""
        conversation = self.conversation
        if conversation is None:
            return
        rows = tables(conversation.turns[turn_id].answer)[place]
        target = ask_for_target(
            self,
            self._context.settings,
            title=self.tr("Save the table"),
            name=conversation.title,
            kinds=(Kind(suffix=".csv", label="CSV", adds=True),),
        )
        if target is None:
            return
        saved = fill(self.tr("The table was saved as {file}."), file=escape_line(str(target.file)))
        self._context.tasks.run(
            partial(save_table, rows, target.file, target.how),
            lambda _: self.show_message(saved),
            lambda error: self.show_message(error_text(error)),
            self,
        )

    # --- state of the engine ---------------------------------------------------------------------

    def _show_progress(self, phase: Phase) -> None:
        """Show how far the answer is, in the status line and in the waiting answer."""
        self._input.show_progress(phase)
        conversation = self._answering.conversation
        if conversation is not None and conversation is self.conversation:
            self.transcript.show_waiting(self._answering.turn, describe(phase))

    def _draw(self) -> None:
        conversation = self._answering.conversation
        if conversation is not None and conversation is self.conversation:
            self.transcript.show_turn(conversation.turns[self._answering.turn])

    def _answer_ended(self, turn: Turn) -> None:
        self._banner.clear("list")
        self._announce(turn)
        self._show_state()
        for draft in self._giving.waiting:
            self._continue_asking(draft)

    def _announce(self, turn: Turn) -> None:
        """Let a screen reader read an answer that has ended, or why there is none."""
        if turn.error:
            announce(self, turn.error, urgent=True)
        elif turn.status is Status.STOPPED:
            announce(self, self.tr("The answer was stopped."))
        else:
            announce(
                self, fill(self.tr("The answer is complete: {text}"), text=turn.answer.strip())
            )

    def _engine_changed(self) -> None:
        """Ask what waits for the model once it is loaded, or give it back if loading failed."""
        client, before = self._context.engine.client, self._engine_state
        state = self._engine_state = client.state
        new_failure = client.failure is not None and client.failure is not self._failure
        stopped = before is EngineState.LOADING and state is not EngineState.READY
        if new_failure or (stopped and state is not EngineState.LOADING):
            for draft in self._giving.waiting:
                draft.waiting = None
        self._show_state()
        if state is EngineState.READY and before is not state and not self._closed:
            for draft in self._giving.waiting:
                self._continue_asking(draft)

    def _show_failure(self, failure: LoadError) -> None:
        """Show which model could not be loaded, why, and what to do."""
        why, of_adapter = error_text(failure.error), isinstance(failure.error, AdapterError)
        text = fill(
            self.tr("{model} can't be opened: {why}"),
            model=model_name(failure.options.folder),
            why=why,
        )
        if of_adapter:
            text = fill(self.tr("The adapter can't be used: {why}"), why=why)
        if failure.kept is not None:
            kept = model_name(failure.kept.folder)
            text = sentences(text, fill(self.tr("The model {model} is still used."), model=kept))
        self._banner.show_message(
            text,
            cause="model",
            again=not of_adapter,
            memory=isinstance(failure.error, DoesNotFitError),
        )

    def _show_state(self) -> None:
        """Show the engine's state."""
        if self._closed:
            return
        client = self._context.engine.client
        state, ready = client.state, client.state is EngineState.READY
        waiting = self._giving.draft.waiting is not None
        self._input.show_state(state, busy=self.busy, waiting=waiting)
        options, failure = client.opening or client.options, client.failure
        self._welcome.show_model(options.folder if options is not None else None)
        if failure is not None and failure is not self._failure:
            self._show_failure(failure)
        elif state is EngineState.DEAD:
            self._banner.show_message(translate(client.reason), cause="model", restart=True)
        elif failure is None and (ready or state is EngineState.LOADING):
            self._banner.clear("model")
        self._failure = failure
        if ready and client.loaded is not self._warned:
            self._warned = client.loaded
            self._warn()

    def _warn(self) -> None:
        """Show what is wrong with the files of the model that has just been loaded."""
        loaded = self._warned
        remarks = loaded.adapter_remarks if loaded is not None else ()
        if remarks:
            text = sentences(*map(translate, remarks))
            self._banner.show_message(text, kind=MessageKind.INFO, cause="adapter")
        warnings = loaded.warnings if loaded is not None else ()
        if warnings:
            self._banner.show_message(
                sentences(*map(translate, warnings)), kind=MessageKind.WARNING, cause="files"
            )
        else:
            self._banner.clear("files")

    def show_message(
        self, text: str, *, kind: MessageKind = MessageKind.ERROR, cause: str = ""
    ) -> None:
        """Show a message above the composer. cause: for `clear_message`"""
        self._banner.show_message(text, kind=kind, cause=cause)

    def clear_message(self, cause: str) -> None:
        """Remove the message with a cause that is gone."""
        self._banner.clear(cause)

    @property
    def message_kind(self) -> MessageKind:
        """The kind of the message that is shown."""
        return MessageKind(self._banner.frame.property("kind"))

    @property
    def message(self) -> str:
        """The message that is shown, or "" without one."""
        return self._banner.text if self._banner.isVisibleTo(self) else ""

    def answered(self) -> bool:
        """Return True if the last turn of the conversation has its complete answer."""
        if self.conversation is None or self.conversation.leaf is None:
            return False
        return self.conversation.turns[self.conversation.leaf].status is Status.DONE


def _cuts(turn: Turn, picture: Attachment | None) -> list[Cut]:
    """Return functions that return the pixels for a turn; none for the picture that is shown."""
    if picture is None:
        return []
    if turn.parts:
        return [partial(cut_part, picture, part) for part in turn.parts]
    other = turn.file == picture.name and turn.page != picture.page_of_several
    return [partial(whole_page, picture, turn.page)] if other and turn.page is not None else []
