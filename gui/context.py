"""What every page of the window gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.errors import CheckpointError
from cogvlm2_lite.weights.adapter_choice import AdapterChoice
from gui.background.attachments import Attachments
from gui.background.engine import EngineBridge
from gui.background.tasks import Tasks
from gui.data.adapters import KnownAdapters
from gui.data.history import History
from gui.data.settings import Preferences


class OpenModel(Protocol):
    """Opens a model folder. budget: other values of the settings "vram" and "ram"."""

    def __call__(self, folder: Path, budget: Mapping[str, str] | None = None) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Context:
    """The objects and actions that all pages share.

    open_model  open a model folder in the engine; a budget is remembered with it once it is loaded
    load_model  load the model again, with the settings of now
    choose_model ask for a model folder, and open it
    adapters    the known ones of each model
    use_adapter use an adapter of the open model in the next answers; None: none
    use         note that a person uses the window, so that the idle model is not unloaded
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
    open_model: OpenModel
    load_model: Callable[[], None]
    choose_model: Callable[[], None]
    adapters: KnownAdapters
    use_adapter: Callable[[Path | None], None]
    use: Callable[[], None]
    show_page: Callable[[str], None]
    open_conversation: Callable[[int], None]
    send_files: Callable[[str, Sequence[Path]], None]

    @property
    def adapter(self) -> AdapterChoice | None:
        """The adapter that the next answers use; None: none."""
        options = self.engine.client.options
        used = self.adapters.used(options.folder) if options is not None else None
        return used if options is not None and used in options.adapters else None


def model_name(folder: Path) -> str:
    """Return the name of a model as the window shows it."""
    return "demo" if is_demo(folder) else folder.name


def is_demo(folder: Path) -> bool:
    """Return whether a folder is the demo model of an installation."""
    return folder.name == "checkpoint" and folder.parent.name == "demo"


def demo_folder() -> Path | None:
    """Return the folder of the demo model; None if it is not installed."""
    try:
        return checkpoint_folder()
    except CheckpointError:
        return None
