"""What is shown of a conversation and not sent yet: its pictures, and a question that waits."""

from __future__ import annotations

from dataclasses import dataclass

from gui.background.attachments import Attachment
from gui.data.state import Conversation, Part


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What is asked as soon as the picture is ready.

    parts      what a question that was asked before is about
    page, file of which picture, as in Turn
    parent     the turn before the question
    continued  the turn whose answer is continued; None for a question
    typed      the question is in the composer, and about the picture there
    edited     the question is in the bubble of an earlier one
    """

    question: str = ""
    parts: tuple[Part, ...] = ()
    page: int | None = None
    file: str = ""
    parent: int | None = None
    continued: int | None = None
    typed: bool = False
    edited: bool = False


@dataclass(eq=False, kw_only=True)
class Draft:
    """A conversation that is shown or has something to be sent, with its pictures.

    conversation  None for a new one that is not saved
    current       the picture of the earlier questions
    given         the picture for the next question, which the composer shows
    replaced      the picture that `given` replaced, for an undo
    waiting       what is asked when the picture is ready
    rotation      quarter turns of the picture to the right
    parts         what the next question is about; () is the whole picture
    seen          the picture that rotation and parts belong to
    """

    conversation: Conversation | None = None
    current: Attachment | None = None
    given: Attachment | None = None
    replaced: Attachment | None = None
    waiting: Waiting | None = None
    rotation: int = 0
    parts: tuple[Part, ...] = ()
    seen: Attachment | None = None

    @property
    def picture(self) -> Attachment | None:
        """The picture that the next question is about."""
        return self.given or self.current

    @property
    def about(self) -> tuple[Part, ...]:
        """The parts that the next question is about, with the rotation of the whole picture.

        The picture must be ready.
        """
        found = self.picture.picture if self.picture is not None else None
        if found is None or self.seen is not self.picture:
            return ()
        if self.parts or not self.rotation:
            return self.parts
        page = self.picture.page if self.picture is not None else None
        return (
            Part(
                x=0, y=0, width=found.width, height=found.height,
                page=page, rotation=self.rotation,
            ),
        )  # fmt: skip

    def see(self) -> None:
        """Note that the picture is shown; another one is neither turned nor cut."""
        if self.seen is not self.picture:
            self.rotation, self.parts, self.seen = 0, (), self.picture

    @property
    def asked(self) -> bool:
        """Whether the conversation has a question."""
        return self.conversation is not None and bool(self.conversation.turns)

    @property
    def is_second(self) -> bool:
        """Whether there were questions about another picture."""
        return self.asked and self.given is not None and self.current is not None
