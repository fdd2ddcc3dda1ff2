"""What the pages that run a command of this program share: Batch, Evaluate and Teach.

The command gets the memory of the chat's model: one model in memory, not two. If one just fits, a
second one would be streamed or fail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QLayout, QPushButton, QWidget

from cogvlm2_lite.worker.client import EngineState
from gui.background.engine import EngineClient
from gui.background.json_lines import Command
from gui.context import Context


class CommandPage(QWidget):
    """A page with a command. Subclasses implement `_on_event` and `_ended`.

    command  of the page; it goes on when another page in another language replaces this one
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context
        self._connect_command(Command(self))

    @property
    def running(self) -> bool:
        """True while the command runs."""
        return self.command.running

    def shut_down(self) -> None:
        """End the command. Finished work is kept."""
        self.command.end()

    def _on_event(self, event: dict[str, Any]) -> None:
        """Show an event of the command."""
        raise NotImplementedError

    def _ended(self) -> None:
        """Show that the command has ended."""
        raise NotImplementedError

    def _connect_command(self, command: Command) -> None:
        self.command = command
        command.event_received.connect(self._on_event)
        command.ended.connect(self._ended)

    def _take_over(self, command: Command) -> None:
        """Continue with the command of a page that this one replaces."""
        self._connect_command(command)
        command.setParent(self)

    def _hand_over(self) -> Command:
        """Return the command, and stop following it."""
        command = self.command
        command.event_received.disconnect(self._on_event)
        command.ended.disconnect(self._ended)
        command.setParent(self._context.engine)
        self.command = Command(self)
        return command

    def _why_it_ended(self) -> str:
        """Return the last error line of the command."""
        return self.command.reason or QCoreApplication.translate(
            "Command", "The command ended without giving a reason."
        )


def push(row: QLayout, do: Callable[[], None]) -> QPushButton:
    """Add a button to a row."""
    button = QPushButton()
    button.clicked.connect(lambda _=False: do())
    row.addWidget(button)
    return button


def is_running() -> str:
    """Return the sentence for what can't be done while another page uses the model's memory."""
    return QCoreApplication.translate(
        "Command",
        "A batch, an evaluation or a training run is in progress. Wait until it ends, or cancel it "
        "first.",
    )


def why_not_now(client: EngineClient) -> str:
    """Return why no command can get the model's memory now; "" if one can."""
    if client.lent:
        return is_running()
    if client.opening is not None or client.state is EngineState.LOADING:
        return QCoreApplication.translate(
            "Command", "The model is still loading. Wait until it is ready."
        )
    if client.options is None:
        return QCoreApplication.translate("Command", "Open a model first, on the Chat page.")
    if client.answering:
        return QCoreApplication.translate(
            "Command", "The chat is still writing an answer. Stop it first."
        )
    return ""
