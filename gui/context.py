"""What every page of the window is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gui.engine import EngineBridge
from gui.history import History
from gui.settings import Settings
from gui.tasks import Tasks


@dataclass(frozen=True, kw_only=True)
class Context:
    """The window's shared things.

    open_model  opens a model folder in the engine, and remembers it
    show_page   shows a page by the name of its row in `gui.window.PAGES`
    hand        shows a page and gives it picture files (its `receive`)
    """

    settings: Settings
    engine: EngineBridge
    history: History
    tasks: Tasks
    data: Path
    open_model: Callable[[Path], None]
    show_page: Callable[[str], None]
    hand: Callable[[str, Sequence[Path]], None]
