"""A process that starts imports torch with less work, and its model is the same."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cogvlm2_lite import quick_imports
from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.engine import quick_start
from cogvlm2_lite.quick_imports import load_torch_libraries, paused_collector

NEW_PROCESS = """
import gc, sys
from pathlib import Path
from cogvlm2_lite.engine import quick_start
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.events import TextDelta
from cogvlm2_lite.inputs.tokenizer import Tokenizer

assert "torch" not in sys.modules
load, read = quick_start.load_torch_libraries, Tokenizer.from_folder
threads, reads = [], []

def load_torch_libraries():
    threads.append(load())

def from_folder(folder):
    reads.append("torch" in sys.modules)
    return read(folder)

def answer(model):
    events = model.answer("What is this?")
    return "".join(event.text for event in events if isinstance(event, TextDelta))

quick_start.load_torch_libraries, Tokenizer.from_folder = load_torch_libraries, from_folder
options = LoadOptions(folder=Path(sys.argv[1]))
first = answer(quick_start.open_quickly(options))
assert gc.isenabled() and gc.get_freeze_count() > 100_000
assert reads == [False], "the tokenizer is read once, before torch is imported"
if sys.platform == "linux":
    assert threads[0] is not None and not threads[0].is_alive()
assert first and answer(quick_start.open_quickly(options)) == first
assert len(threads) == 1, "torch is imported already"
"""


def test_a_new_process_uses_what_it_has_read_ahead() -> None:
    command = [sys.executable, "-c", NEW_PROCESS, str(checkpoint_folder())]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.stderr == ""
    assert found.returncode == 0


def test_a_tokenizer_that_can_not_be_read_is_left_to_the_model(tmp_path: Path) -> None:
    """The model reports it when it is needed, after what is wrong with other files."""
    assert quick_start._read_tokenizer(tmp_path) is None
    (tmp_path / "tokenizer.json").write_text("{")
    assert quick_start._read_tokenizer(tmp_path) is None
    assert quick_start._read_tokenizer(checkpoint_folder()) is not None


def test_the_collector_is_paused_and_on_again_also_after_an_error() -> None:
    with paused_collector():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), paused_collector():
        raise ImportError
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off() -> None:
    gc.disable()
    try:
        with paused_collector():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_libraries_are_loaded_only_where_torch_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_torch_libraries() is None, "torch is imported"
    monkeypatch.setattr(quick_imports, "sys", SimpleNamespace(modules={}, platform="linux"))
    monkeypatch.setattr(quick_imports, "_torch_folder", lambda: tmp_path)
    assert load_torch_libraries() is None, "another build"
    monkeypatch.setattr(quick_imports, "_torch_folder", lambda: None)
    assert load_torch_libraries() is None, "no torch"


def test_a_library_that_is_damaged_is_left_to_the_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib").mkdir()
    for name in quick_imports._TORCH_LIBRARIES:
        (tmp_path / "lib" / name).write_text("not a library")
    monkeypatch.setattr(quick_imports, "sys", SimpleNamespace(modules={}, platform="linux"))
    monkeypatch.setattr(quick_imports, "_torch_folder", lambda: tmp_path)
    if thread := load_torch_libraries():
        thread.join()
        assert not thread.is_alive()
