"""What every page of the window gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gui.background.attachments import Attachments
from gui.background.engine import EngineBridge
from gui.background.tasks import Tasks
from gui.data.history import History
from gui.data.settings import Preferences


@dataclass(frozen=True, kw_only=True)
class Context:
    """The objects and actions that all pages share.

    open_model  open a model folder in the engine, and remember it
    show_page   show a page by its name in `gui.window.PAGES`
    open_conversation  show a conversation by its number
    send_files  show a page and pass it picture files (its `receive`)
    attachments reads the pictures of conversations; it outlives the pages
    """

    settings: Preferences
    engine: EngineBridge
    history: History
    tasks: Tasks
    attachments: Attachments
    data: Path
    open_model: Callable[[Path], None]
    show_page: Callable[[str], None]
    open_conversation: Callable[[int], None]
    send_files: Callable[[str, Sequence[Path]], None]


def model_name(folder: Path) -> str:
    """Return the name of a model as the window shows it."""
    return "demo" if folder.name == "checkpoint" and folder.parent.name == "demo" else folder.name
