"""The pictures that the user gives: each belongs to a conversation from the first moment.

A picture is read in the background. Whatever conversation is shown when it is ready, it is used
for the one that it was given to. A conversation that is left before its picture was sent is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from cogvlm2_lite.file_names import escape_line
from gui.background.attachments import Attachment, AttachmentState
from gui.chat.drafts import Draft
from gui.context import Context
from gui.data.history import Given, HistoryError
from gui.data.recent import RecentPictures
from gui.data.state import Conversation
from gui.translation import error_text, translate


@dataclass
class Drafts:
    """The shown conversation, and those that were left with something to be sent, by number."""

    shown: Draft = field(default_factory=Draft)
    left: dict[int, Draft] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Draft]:
        return iter([self.shown, *self.left.values()])


class Giving(QObject):
    """Keeps the pictures of the conversations.

    changed  the pictures of the shown conversation changed
    ready    (Draft) the picture that a question waits for became ready, or failed
    kept     a conversation was saved because it was left with a picture
    failed   (message) something could not be saved or read
    """

    changed = Signal()
    ready = Signal(object)
    kept = Signal()
    failed = Signal(str)

    def __init__(self, context: Context, parent: QObject) -> None:
        super().__init__(parent)
        self._context = context
        kept = context.history.folder is not None
        self.recent = RecentPictures(context.settings, kept=kept)
        self._drafts = Drafts()
        self._closed = False
        context.attachments.changed.connect(self._attachment_changed)

    @property
    def draft(self) -> Draft:
        """The shown conversation."""
        return self._drafts.shown

    @property
    def waiting(self) -> list[Draft]:
        """The conversations with a question that waits for its picture or for the engine."""
        return [draft for draft in self._drafts if draft.waiting is not None]

    @property
    def shown(self) -> Attachment | None:
        """The picture to show: the last one that is ready, while another page of it is read."""
        at = self.draft.picture
        while at is not None and at.picture is None and at.before is not None:
            at = at.before
        return at

    def left(self, conversation_id: int) -> Conversation | None:
        """Return a conversation that was left with something to be sent."""
        draft = self._drafts.left.get(conversation_id)
        return draft.conversation if draft is not None else None

    def show(self, conversation: Conversation | None) -> Draft:
        """Leave the shown conversation, and show another one; None is a new one."""
        self._leave()
        kept = self._drafts.left.pop(conversation.id, None) if conversation is not None else None
        if kept is not None:
            kept.conversation = conversation
        self._drafts.shown = kept or self._enter(conversation)
        self.changed.emit()
        return self.draft

    def forget(self, conversation_id: int) -> None:
        """Drop what was given to a conversation that was deleted."""
        shown = self.draft.conversation
        dropped = self._drafts.left.pop(conversation_id, None)
        if shown is not None and shown.id == conversation_id:
            dropped, self._drafts.shown = self.draft, Draft()
        if dropped is not None:
            for attachment in (dropped.given, dropped.replaced):
                self._context.attachments.cancel(attachment)

    def renamed(self, conversation_id: int, title: str) -> None:
        """Note a new title."""
        for draft in self._drafts:
            if draft.conversation is not None and draft.conversation.id == conversation_id:
                draft.conversation.title = title

    def save(self) -> Drafts:
        """Return everything for the object that replaces this one, and stop using it."""
        saved, self._drafts = self._drafts, Drafts()
        return saved

    def restore(self, drafts: Drafts) -> None:
        """Continue with what another object had."""
        self._drafts = drafts
        self.changed.emit()

    def shut_down(self) -> None:
        """Save a picture that was given and not sent, and ignore what becomes ready later."""
        if not self._closed:
            self._leave()
        self._closed = True

    # --- giving ----------------------------------------------------------------------------------

    def give(self, read: Callable[[], bytes], *, name: str, path: Path | None = None) -> None:
        """Give the shown conversation a picture. It replaces one that was not sent yet.

        read  returns the bytes of the file, and is called on another thread
        """
        draft = self.draft
        before = draft.given
        made = self._context.attachments.read(read, name=escape_line(name), path=path)
        if before is None or not before.error:  # a broken one leaves the good one before it
            self._context.attachments.cancel(draft.replaced)
            draft.replaced = before
        draft.given = made
        self.changed.emit()

    def choose_page(self, page: int) -> None:
        """Give the shown conversation another page of its picture."""
        base = self.shown
        if base is None or base.picture is None or page == base.picture.page:
            return
        if self.draft.given is not base:
            self._context.attachments.cancel(self.draft.given)
        self.draft.given = self._context.attachments.other_page(base, page)
        self.changed.emit()

    def remove(self) -> None:
        """Remove the picture that was not sent yet."""
        draft = self.draft
        given, draft.given, draft.waiting = draft.given, None, None
        if given is not None and given.state is AttachmentState.READY:
            self._context.attachments.cancel(draft.replaced)
            draft.replaced = given
        else:
            self._context.attachments.cancel(given)
        self._store(draft)
        self.changed.emit()

    def undo(self) -> None:
        """Use the picture that was replaced or removed."""
        draft = self.draft
        given, draft.given = draft.given, draft.replaced
        draft.replaced = None if given is None or given.error else given
        self._store(draft)
        self.changed.emit()

    # --- sending ---------------------------------------------------------------------------------

    def split(self, draft: Draft) -> Draft:
        """Move the picture that was not sent to a new conversation, and return that."""
        fresh = Draft(
            given=draft.given, rotation=draft.rotation, parts=draft.parts, seen=draft.seen
        )
        draft.given, draft.replaced = None, None
        self._store(draft)
        self._store(fresh)
        if draft is self.draft:
            if draft.waiting is not None and draft.conversation is not None:
                self._drafts.left[draft.conversation.id] = draft
            self._drafts.shown = fresh
            self.changed.emit()
        return fresh

    def settle(self, draft: Draft) -> Conversation:
        """Save the given picture as the one of its conversation. Raises HistoryError."""
        history, given = self._context.history, draft.given
        conversation, number = draft.conversation, _number(draft)
        saved, page = "", None
        if given is not None:
            saved, page = given.saved or history.save_picture(given.data), given.page
            given.saved = saved
        if conversation is None:
            draft.conversation = conversation = history.create(picture=saved, page=page)
        elif given is not None:
            self._save_picture(conversation, saved, page)
        if given is not None:
            draft.current, draft.given = given, None
        self._guard(partial(history.save_given, number, None))
        self._context.attachments.cancel(draft.replaced)
        draft.replaced = None
        if draft is self.draft:
            self.changed.emit()
        return conversation

    def _enter(self, conversation: Conversation | None) -> Draft:
        draft = Draft(conversation=conversation)
        unsent = self._unsent(_number(draft))
        if conversation is not None and conversation.picture:
            named = [turn.file for turn in conversation.turns.values() if turn.file]
            name = named[-1] if named else escape_line(conversation.title)
            found = self._context.attachments.of_history(
                conversation.picture, conversation.page, name
            )
            if conversation.turns:
                draft.current = found
            else:
                draft.given = found
            last = conversation.path()[-1:]
            draft.rotation, draft.seen = conversation.rotation, found
            draft.parts = tuple(part for turn in last for part in turn.parts)
            if found.error:
                self.failed.emit(translate(found.error))
        if unsent is not None and (conversation is None or conversation.turns):
            draft.given = self._context.attachments.of_history(
                unsent.picture, unsent.page, unsent.name
            )
        return draft

    def _unsent(self, number: int) -> Given | None:
        """Return the picture that was given and not sent before the program ended."""
        try:
            return self._context.history.given(number)
        except HistoryError as error:
            self.failed.emit(error_text(error))
            return None

    def _leave(self) -> None:
        """Keep the shown conversation if it has something to be sent."""
        draft = self.draft
        current, given = draft.current, draft.given
        if draft.waiting is None:
            self._context.attachments.cancel(current)
        if draft.waiting is None and (given is None or given.error):
            if draft.conversation is None and given is not None:
                self._forget_new()
            return
        if draft.conversation is None:
            try:
                draft.conversation = self._context.history.create(
                    title=given.name if given is not None else ""
                )
            except HistoryError as error:
                self.failed.emit(error_text(error))
                return
            self._store(draft)
            self._forget_new()
            self.kept.emit()
        stored = given is not None and not draft.asked and draft.conversation.picture
        if draft.waiting is not None or not (stored and given is not None and given.picture):
            self._drafts.left[draft.conversation.id] = draft

    def _attachment_changed(self, attachment: Attachment) -> None:
        if self._closed:
            return
        for draft in self._drafts:
            if attachment is draft.given and attachment.error and attachment.before is not None:
                self._turn_back(draft, attachment)
            elif attachment is draft.given:
                self._store(draft)
                if attachment.path is not None and attachment.picture is not None:
                    self.recent.add(attachment.path)
            elif attachment is draft.current and attachment.error and draft is self.draft:
                self.failed.emit(translate(attachment.error))
            if attachment in (draft.given, draft.current, draft.replaced):
                if draft is self.draft:
                    self.changed.emit()
                if draft.waiting is not None:
                    self.ready.emit(draft)
        attachment.before = None

    def _turn_back(self, draft: Draft, attachment: Attachment) -> None:
        """Use the page before again, because another one can't be read."""
        before = attachment.before
        draft.given = None if before is draft.current else before
        self._store(draft)
        if draft is self.draft:
            self.failed.emit(translate(attachment.error))
            self.changed.emit()
        if draft.waiting is not None:
            self.ready.emit(draft)

    def _store(self, draft: Draft) -> None:
        """Save which picture was given and not sent, for the next start after a kill.

        Until another one is ready, the one before counts.
        """
        conversation, given = draft.conversation, draft.given
        if given is None or given.state is AttachmentState.READY:
            self._guard(partial(self._store_ready, conversation, given))

    def _store_ready(self, conversation: Conversation | None, given: Attachment | None) -> None:
        history = self._context.history
        saved, page = "", None
        if given is not None:
            saved, page = given.saved or history.save_picture(given.data), given.page
            given.saved = saved
        if conversation is not None and not conversation.turns:
            self._save_picture(conversation, saved, page)
            return
        number = conversation.id if conversation is not None else 0
        unsent = Given(picture=saved, page=page, name=given.name) if given is not None else None
        history.save_given(number, unsent)

    def _forget_new(self) -> None:
        """Forget what was given to a new conversation, which is left now."""
        self._guard(partial(self._context.history.save_given, 0, None))

    def _guard(self, work: Callable[[], object]) -> None:
        """Do something that may fail; report that."""
        try:
            work()
        except HistoryError as error:
            self.failed.emit(error_text(error))

    def _save_picture(self, conversation: Conversation, saved: str, page: int | None) -> None:
        before = conversation.picture, conversation.page
        if before == (saved, page):
            return
        conversation.picture, conversation.page = saved, page
        try:
            self._context.history.save(conversation)
        except HistoryError:
            conversation.picture, conversation.page = before
            raise


def _number(draft: Draft) -> int:
    """Return the number of a draft's conversation; 0 is a new one."""
    return draft.conversation.id if draft.conversation is not None else 0
