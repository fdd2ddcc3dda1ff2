"""Adapters beside the model: chosen, remembered for each model, and shown at each answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QFileDialog, QMenu

from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.errors import AdapterError
from cogvlm2_lite.events import FinishReason
from cogvlm2_lite.weights.adapter_choice import AdapterChoice
from cogvlm2_lite.worker.client import EngineState
from gui.chat.dropped import DroppedContent
from gui.data.adapters import KnownAdapters
from gui.data.settings import Preferences
from gui.evaluate.page import EvaluatePage
from gui.model_bar import ModelBar
from gui.teach.page import TeachPage
from gui.teach.run import Job, TeachRun
from tests.helpers.desk import Desk, Script

MODEL, OTHER = Path("/m/one"), Path("/m/two")
DEMO = checkpoint_folder()


def choice(name: str, folder: str | Path) -> AdapterChoice:
    return AdapterChoice(name=name, folder=Path(folder))


def test_adapters_are_known_for_each_model() -> None:
    known = KnownAdapters(Preferences())
    assert known.of(MODEL) == []
    forms = known.choice(MODEL, Path("/a/forms"))
    assert forms == choice("forms", "/a/forms")
    known.use(MODEL, forms)
    assert known.choice(MODEL, Path("/a/forms")) == forms
    second = known.choice(MODEL, Path("/b/Forms"))
    assert second.name == "Forms 2"  # answers name the adapter
    known.use(MODEL, second)
    assert (known.of(MODEL), known.used(MODEL)) == ([second, forms], second)
    assert (known.of(OTHER), known.used(OTHER)) == ([], None)
    assert known.choice(OTHER, Path("/b/Forms")).name == "Forms"
    known.use(MODEL, None)
    assert (known.of(MODEL), known.used(MODEL)) == ([second, forms], None)
    known.forget(MODEL, second)
    assert known.of(MODEL) == [forms]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/a/base", "base 2"),
        ("/", "adapter"),
        ("/a/" + "x" * 200, "x" * 60),
        ("/a/b\n", "b\\x0a"),
    ],
)
def test_any_folder_has_a_name_that_the_engine_takes(folder: str, name: str) -> None:
    assert KnownAdapters(Preferences()).choice(MODEL, Path(folder)).name == name


def test_a_damaged_entry_of_the_settings_is_left_out() -> None:
    settings = Preferences()
    good = json.dumps(["/m/one", "a", "/a", True])
    settings.set("adapters", ["", "{}", "[1]", '["x"]', "[1, 2, 3, 4]", good])
    assert KnownAdapters(settings).used(MODEL) == choice("a", "/a")


# --- in the window --------------------------------------------------------------------------------


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A folder that looks like an adapter; scripted engines do not read it."""
    return make_adapter(tmp_path / "forms")


def make_adapter(folder: Path) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    return folder


def bar_of(desk: Desk) -> ModelBar:
    return desk.program.window.model_bar


def menu_of(desk: Desk) -> dict[str, QAction]:
    menu = bar_of(desk).adapter_menu
    menu.aboutToShow.emit()
    return {action.text(): action for action in menu.actions() if action.text()}


def settled(desk: Desk) -> None:
    client = desk.program.engine.client
    desk.qtbot.waitUntil(lambda: client.state is EngineState.READY and client.opening is None)
    desk.qtbot.wait(20)


def add(desk: Desk, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    menu_of(desk)["Add an adapter…"].trigger()
    settled(desk)


def test_a_model_without_an_adapter_says_so(desk: Desk) -> None:
    assert not bar_of(desk).adapter_button.isVisible()
    desk.open_demo()
    button = bar_of(desk).adapter_button
    assert (button.text(), button.accessibleName()) == ("No adapter", "Adapter: No adapter")
    actions = menu_of(desk)
    assert list(actions) == ["No adapter", "Add an adapter…", "Teach a new adapter…"]
    assert actions["No adapter"].isChecked()
    desk.ask("What is it?")
    assert desk.engine.asked[-1].adapter == ""
    actions["Teach a new adapter…"].trigger()
    assert isinstance(desk.program.window.page("teach"), TeachPage)


def test_an_adapter_is_added_used_shown_and_remembered(
    open_desk: Callable[[Path], Desk],
    tmp_path: Path,
    adapter: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = open_desk(tmp_path / "data")
    desk.open_demo()
    add(desk, adapter, monkeypatch)
    assert desk.engine.options.adapters == (choice("forms", adapter),)
    assert bar_of(desk).adapter_button.text() == "forms"
    desk.ask("What is it?")
    assert desk.engine.asked[-1].adapter == "forms"
    conversation = desk.chat.conversation
    assert conversation is not None
    [turn] = conversation.path()
    assert turn.adapter == "forms"
    assert desk.chat.transcript.view_of(turn.id).stats.text().startswith("Adapter: forms. 5 tokens")
    desk.program.close()
    again = open_desk(tmp_path / "data")
    again.program.window.load_model()
    settled(again)
    assert again.engine.options.adapters == (choice("forms", adapter),)
    assert bar_of(again).adapter_button.text() == "forms"
    assert again.program.history.load(conversation.id).path()[0].adapter == "forms"


def test_loaded_adapters_are_switched_without_loading_the_model(
    desk: Desk, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open_demo()
    add(desk, adapter, monkeypatch)
    add(desk, make_adapter(tmp_path / "captions & more"), monkeypatch)
    engine = desk.engine
    assert [a.name for a in engine.options.adapters] == ["captions & more", "forms"]
    for text, name in (
        ("forms", "forms"), ("No adapter", ""), ("captions && more", "captions & more"),
    ):  # fmt: skip
        menu_of(desk)[text].trigger()
        assert menu_of(desk)[text].isChecked()
        assert bar_of(desk).adapter_button.text() == text  # "&" marks a key
        assert bar_of(desk).adapter_button.accessibleName() == f"Adapter: {name or text}"
        desk.ask("And now?")
        assert engine.asked[-1].adapter == name
    assert desk.engine is engine
    assert engine.starts == 1
    assert [t.adapter for t in desk.chat.conversation.path()] == ["forms", "", "captions & more"]


def test_a_missing_adapter_leaves_the_model_as_it_is(desk: Desk, adapter: Path) -> None:
    desk.open_demo()
    engine = desk.engine
    shutil.rmtree(adapter)
    desk.program.window.use_adapter(adapter)
    desk.qtbot.waitUntil(lambda: "can't be used" in desk.chat.message)
    assert desk.chat.message == (
        f"The adapter can't be used: There is no adapter folder {adapter}. It was moved or "
        "deleted, or its disk is not connected. Choose another one. The model demo is still used."
    )
    assert not desk.chat.restart_button.isVisible()
    assert (desk.engine is engine, engine.starts) == (True, 1)
    assert bar_of(desk).adapter_button.text() == "No adapter"
    desk.ask("Does it work?")
    assert desk.chat.answered()


def test_an_unsuitable_adapter_brings_the_model_back(
    desk: Desk, adapter: Path, script: Script
) -> None:
    desk.open_demo()
    script.loads = False
    desk.program.window.use_adapter(adapter)
    client = desk.program.engine.client
    desk.qtbot.waitUntil(lambda: bool(desk.engine.options.adapters) and desk.engine.starts > 0)
    script.loads = True
    desk.engine.fail_load(AdapterError("The adapter was made for another model."))
    desk.qtbot.waitUntil(lambda: client.state is EngineState.READY)
    desk.qtbot.waitUntil(lambda: "The model demo is still used." in desk.chat.message)
    assert desk.chat.message.startswith("The adapter can't be used: The adapter was made for")
    assert desk.engine.options.adapters == ()
    assert desk.program.window.context.adapters.used(DEMO) is None
    desk.ask("Does it work?")
    assert desk.engine.asked[-1].adapter == ""


def test_an_adapter_that_is_gone_at_the_start_is_left_out(
    open_desk: Callable[[Path], Desk],
    tmp_path: Path,
    adapter: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = open_desk(tmp_path / "data")
    desk.open_demo()
    add(desk, adapter, monkeypatch)
    desk.program.close()
    adapter.rename(adapter.with_name("moved"))
    again = open_desk(tmp_path / "data")
    again.program.window.load_model()
    again.qtbot.waitUntil(lambda: "The model is opened without it." in again.chat.message)
    settled(again)
    assert again.engine.options.adapters == ()
    assert bar_of(again).adapter_button.text() == "No adapter"
    assert "forms" in menu_of(again)  # its disk may be connected later
    again.ask("Does it work?")
    assert again.chat.answered()


def test_another_model_has_its_own_adapter(
    desk: Desk, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open_demo()
    add(desk, adapter, monkeypatch)
    other = tmp_path / "my-model"
    shutil.copytree(DEMO, other)
    desk.program.window.open_model(other)
    settled(desk)
    assert desk.engine.options.adapters == ()
    assert bar_of(desk).adapter_button.text() == "No adapter"
    assert "forms" not in menu_of(desk)
    desk.program.window.open_model(DEMO)
    settled(desk)
    assert desk.engine.options.adapters == (choice("forms", adapter),)


def test_an_adapter_is_dropped_on_any_page(desk: Desk, adapter: Path) -> None:
    desk.program.window.take(DroppedContent(files=(adapter,)))
    assert desk.chat.message == "Open a model first, on the Chat page."
    desk.open_demo()
    for name in ("batch", "teach"):
        desk.program.window.use_adapter(None)
        desk.program.window.show_page(name)
        desk.program.window.take(DroppedContent(files=(adapter,)))
        settled(desk)
        assert bar_of(desk).adapter_button.text() == "forms"
    assert desk.chat.message == ""


def test_an_evaluation_uses_it_and_has_results_of_its_own(
    desk: Desk, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open_demo()
    add(desk, adapter, monkeypatch)
    desk.program.window.show_page("evaluate")
    page = desk.program.window.page("evaluate")
    assert isinstance(page, EvaluatePage)
    started: list[list[str]] = []
    monkeypatch.setattr(page.command, "start", started.append)
    page.start()
    [words] = started
    assert f"--adapter={adapter}" in words
    [output] = [word for word in words if word.startswith("--output=")]
    assert "+forms" in output


def test_one_is_removed_from_the_list(
    desk: Desk, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open_demo()
    add(desk, adapter, monkeypatch)
    remove = menu_of(desk)["Remove from this list"].menu()
    assert isinstance(remove, QMenu)
    [action] = remove.actions()
    action.trigger()
    assert "forms" not in menu_of(desk)
    assert bar_of(desk).adapter_button.text() == "No adapter"
    assert adapter.is_dir()


def test_none_is_added_while_an_answer_is_written(
    desk: Desk, adapter: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open_demo()
    add(desk, adapter, monkeypatch)
    script.hold = True
    desk.chat.composer.setPlainText("Tell me")
    desk.chat.send()
    desk.qtbot.waitUntil(lambda: desk.program.engine.client.answering)
    actions = menu_of(desk)
    assert not actions["Add an adapter…"].isEnabled()
    assert actions["forms"].isEnabled()
    actions["No adapter"].trigger()  # for the next answer
    desk.program.window.use_adapter(adapter.parent)
    assert "An answer is being written." in desk.chat.message
    desk.chat.stop()
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    assert desk.chat.conversation.path()[0].adapter == "forms"


def test_an_answer_is_continued_with_its_own_adapter(
    desk: Desk, adapter: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open_demo()
    add(desk, adapter, monkeypatch)
    script.ends = FinishReason.LENGTH
    desk.ask("Tell me")
    turn = desk.chat.conversation.path()[0]
    menu_of(desk)["No adapter"].trigger()
    desk.chat.continue_answer(turn.id)
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    assert desk.engine.asked[-1].adapter == "forms"
    desk.program.engine.client.unload()
    desk.qtbot.waitUntil(lambda: desk.engine.state is EngineState.EMPTY)
    desk.program.window.load_model()  # without the adapter, which is not used now
    settled(desk)
    desk.chat.continue_answer(turn.id)
    assert desk.chat.message == (
        "This answer used the adapter forms. Choose it at the top, then continue."
    )
    assert not desk.chat.busy


def test_the_adapter_of_a_finished_run_is_used(desk: Desk, adapter: Path) -> None:
    desk.open_demo()
    desk.program.window.show_page("teach")
    page = desk.program.window.page("teach")
    assert isinstance(page, TeachPage)
    page._run = TeachRun(job=Job(data=Path("d"), output=adapter))
    page._run.apply_event({
        "event": "finished", "asked": 0, "right": 0, "right_before": 0, "held_out": None,
        "held_out_before": None, "old": None, "old_before": None,
    })  # fmt: skip
    page._show()
    page.use_button.click()
    settled(desk)
    assert desk.chat.isVisible()
    assert bar_of(desk).adapter_button.text() == "forms"
