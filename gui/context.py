"""What every page of the window is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gui.background.engine import EngineBridge
from gui.background.tasks import Tasks
from gui.data.history import History
from gui.data.settings import Preferences


@dataclass(frozen=True, kw_only=True)
class Context:
    """The window's shared things.

    open_model  opens a model folder in the engine, and remembers it
    show_page   shows a page by the name of its row in `gui.window.PAGES`
    send_files        shows a page and gives it picture files (its `receive`)
    """

    settings: Preferences
    engine: EngineBridge
    history: History
    tasks: Tasks
    data: Path
    open_model: Callable[[Path], None]
    show_page: Callable[[str], None]
    send_files: Callable[[str, Sequence[Path]], None]


def model_name(folder: Path) -> str:
    """Give what the window calls a model."""
    return "demo" if folder.name == "checkpoint" and folder.parent.name == "demo" else folder.name
