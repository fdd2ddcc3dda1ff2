"""Opens a model in a process that starts, in less time than one import after the other."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

from cogvlm2_lite.devices import prepare_threads
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.quick_imports import load_torch_libraries, paused_collector

if TYPE_CHECKING:
    from pathlib import Path

    from cogvlm2_lite.engine.model import Model
    from cogvlm2_lite.inputs.tokenizer import Tokenizer


def open_quickly(options: LoadOptions) -> Model:
    """Return the same model as engine.model.load_with, with the same errors; imports torch.

    The tokenizer is read while another thread loads torch's libraries. Both need no Python code for
    0.2 s, but only the second one lets other threads run Python.
    """
    prepare_threads()
    tokenizer = None
    if "torch" not in sys.modules:
        with paused_collector():
            load_torch_libraries()
            tokenizer = _read_tokenizer(options.folder)
            import cogvlm2_lite.engine.model  # noqa: F401 - the collector is paused here
        gc.freeze()  # modules stay, so the collector need not look at them (0.1 s each time)
    from cogvlm2_lite.engine.model import load_with

    model = load_with(options)
    if tokenizer is not None:
        model.tokenizer = tokenizer
    return model


def _read_tokenizer(folder: Path) -> Tokenizer | None:
    """Return the tokenizer of a folder, or None if it has none: the model reports that in turn."""
    from cogvlm2_lite.inputs.tokenizer import Tokenizer

    try:
        return Tokenizer.from_folder(folder)
    except CogVLM2LiteError:
        return None
