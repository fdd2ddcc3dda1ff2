"""What is shown of a conversation and not sent yet: its pictures, and a question that waits."""

from __future__ import annotations

from dataclasses import dataclass

from gui.background.attachments import Attachment
from gui.data.state import Conversation


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What is asked as soon as the picture is ready.

    parent     the turn before the question
    continued  the turn whose answer is continued; None for a question
    typed      the question is in the composer, and about the picture there
    """

    question: str = ""
    parent: int | None = None
    continued: int | None = None
    typed: bool = False


@dataclass(eq=False, kw_only=True)
class Draft:
    """A conversation that is shown or has something to be sent, with its pictures.

    conversation  None for a new one that is not saved
    current       the picture of the earlier questions
    given         the picture for the next question, which the composer shows
    replaced      the picture that `given` replaced, for an undo
    waiting       what is asked when the picture is ready
    unsent        the question that waited when the conversation was left
    """

    conversation: Conversation | None = None
    current: Attachment | None = None
    given: Attachment | None = None
    replaced: Attachment | None = None
    waiting: Waiting | None = None
    unsent: str = ""

    @property
    def picture(self) -> Attachment | None:
        """The picture that the next question is about."""
        return self.given or self.current

    @property
    def asked(self) -> bool:
        """Whether the conversation has a question."""
        return self.conversation is not None and bool(self.conversation.turns)

    @property
    def is_second(self) -> bool:
        """Whether there were questions about another picture."""
        return self.asked and self.given is not None and self.current is not None
