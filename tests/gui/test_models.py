"""The model button, loading with progress, and the first steps: a wrong choice costs nothing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QAction
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QFileDialog, QLabel, QWidget

from cogvlm2_lite.demo.shipped import checkpoint_folder, sample_pictures
from cogvlm2_lite.errors import DoesNotFitError
from cogvlm2_lite.units import GIB
from cogvlm2_lite.worker.client import EngineState
from gui.memory.page import MemoryPage
from gui.model_bar import ModelBar
from tests.helpers.desk import Desk, Script
from tests.helpers.giving import asked_about

COMMAND_LINE = re.compile(r"--[a-z]|`|cogvlm2-lite [a-z]")
"""What a person in the window can't use."""


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A second model folder."""
    folder = tmp_path / "my-model"
    shutil.copytree(checkpoint_folder(), folder)
    return folder


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    """A folder that is no model."""
    folder = tmp_path / "Pictures"
    folder.mkdir()
    return folder


def bar_of(desk: Desk) -> ModelBar:
    return desk.program.window.model_bar


def menu_of(desk: Desk) -> dict[str, QAction]:
    """Open the menu of the model button, and return what it offers."""
    menu = bar_of(desk).menu
    menu.aboutToShow.emit()
    return {action.text(): action for action in menu.actions() if action.text()}


def choose(desk: Desk, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choose a folder with the menu and the dialog of the system."""
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    menu_of(desk)["Open a model folder…"].trigger()


def settled(desk: Desk, state: EngineState = EngineState.READY) -> None:
    client = desk.program.engine.client
    desk.qtbot.waitUntil(lambda: client.state is state and client.opening is None)
    desk.qtbot.wait(20)


# --- a wrong choice -------------------------------------------------------------------------------


def test_a_wrong_folder_keeps_the_model_and_says_why(
    desk: Desk, wrong: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open_demo()
    engine = desk.engine
    choose(desk, wrong, monkeypatch)
    desk.qtbot.waitUntil(lambda: "no config.json" in desk.chat.message)
    assert desk.chat.message.startswith("Pictures can't be opened: ")
    assert desk.chat.message.endswith("The model demo is still used.")
    assert desk.engine is engine
    assert engine.starts == 1, "the model was not loaded again"
    desk.ask("Does it work?")
    assert desk.chat.answered()
    assert desk.program.settings.get("model") == str(checkpoint_folder())
    assert desk.program.settings.get("recent_models") == [str(checkpoint_folder())]
    assert desk.program.window.windowTitle() == "demo - CogVLM2 Lite"


@pytest.mark.parametrize("kind", ["empty", "gone", "a file", "no weights", "no tokenizer"])
def test_a_first_choice_that_is_wrong_leaves_the_first_steps(
    desk: Desk, tmp_path: Path, other: Path, kind: str
) -> None:
    folder = {"gone": tmp_path / "gone", "empty": tmp_path / "empty"}.get(kind, other)
    if kind == "empty":
        folder.mkdir()
    elif kind == "a file":
        folder = other / "model.safetensors"
    elif kind == "no weights":
        (other / "model.safetensors").unlink()
    elif kind == "no tokenizer":
        (other / "tokenizer.json").unlink()
    desk.program.window.open_model(folder)
    desk.qtbot.waitUntil(lambda: "can't be opened: " in desk.chat.message)
    assert not COMMAND_LINE.search(desk.chat.message)
    assert desk.chat.demo_button.isVisible()
    assert desk.program.settings.get("model") == ""
    desk.open_demo()
    assert desk.chat.message == ""
    desk.ask("Does it work?")
    assert desk.chat.answered()


def test_a_folder_that_is_gone_at_the_next_start_is_told_and_others_can_be_opened(
    open_desk: Callable[[Path], Desk], tmp_path: Path, other: Path
) -> None:
    data = tmp_path / "data"
    desk = open_desk(data)
    desk.program.window.open_model(other)
    settled(desk)
    desk.program.close()
    assert json.loads((data / "settings.json").read_text())["model"] == str(other)
    other.rename(tmp_path / "moved")
    desk = open_desk(data)
    desk.program.window.load_model()  # as the program does at its start
    desk.qtbot.waitUntil(lambda: "my-model can't be opened: There is no" in desk.chat.message)
    assert desk.chat.demo_button.isVisible()
    (tmp_path / "moved").rename(other)
    desk.chat.restart_button.click()  # the disk is connected again
    settled(desk)
    desk.ask("Does it work?")
    assert desk.chat.answered()


def test_a_model_that_can_not_be_loaded_gives_way_to_the_one_before(
    desk: Desk, other: Path, script: Script
) -> None:
    desk.open_demo()
    script.loads = False
    desk.program.window.open_model(other)
    desk.qtbot.waitUntil(lambda: desk.engine.options.folder == other)
    desk.chat.composer.setPlainText("For my-model")
    desk.chat.send()
    assert desk.chat.waiting
    script.loads = True
    desk.engine.fail_load(DoesNotFitError("It needs 3 GiB more.", hint="Close other programs."))
    desk.qtbot.waitUntil(lambda: desk.engine.options.folder == checkpoint_folder())
    settled(desk)
    assert desk.chat.message == (
        "my-model can't be opened: It needs 3 GiB more. Close other programs. "
        "The model demo is still used."
    )
    assert desk.program.settings.get("model") == str(checkpoint_folder())
    assert desk.chat.composer.toPlainText() == "For my-model", "another model is not asked"
    assert desk.engine.asked == []
    desk.ask("Does it work?")
    assert desk.chat.answered()


def test_an_error_of_memory_leads_to_the_memory_page_and_its_model(
    desk: Desk, other: Path, script: Script
) -> None:
    script.loads = False
    desk.program.window.open_model(other)
    desk.qtbot.waitUntil(lambda: desk.program.engine.client.pid is None and bool(desk._made))
    desk.engine.fail_load(DoesNotFitError("It needs 3 GiB more."))
    desk.qtbot.waitUntil(desk.chat.memory_button.isVisible)
    desk.chat.memory_button.click()
    page = desk.program.window.page("memory")
    assert isinstance(page, MemoryPage)
    assert page.isVisible()
    assert page.model.currentText() == "my-model"
    script.loads = True
    page.kind.setCurrentIndex(1)
    page.slider.setValue(16)
    desk.qtbot.waitUntil(page.use_button.isEnabled, timeout=15_000)
    page.use_button.click()
    settled(desk)
    assert (desk.engine.options.folder, desk.engine.options.ram) == (other, "4GiB")
    assert desk.program.settings.get("ram") == "4GiB"
    assert desk.chat.message == ""


def test_a_model_and_its_budget_are_remembered_only_when_they_are_loaded(
    desk: Desk, other: Path, script: Script
) -> None:
    script.loads = False
    desk.program.window.open_model(other, {"ram": "3GiB"})
    desk.qtbot.waitUntil(lambda: bool(desk._made))
    settings = desk.program.settings
    assert [settings.get(name) for name in ("model", "ram", "recent_models")] == ["", "", []]
    desk.engine.end_load()
    settled(desk)
    assert settings.get("model") == str(other)
    assert (settings.get("ram"), settings.get("recent_models")) == ("3GiB", [str(other)])


# --- the button -----------------------------------------------------------------------------------


def test_the_button_shows_the_model_and_offers_what_can_be_done(
    desk: Desk, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bar_of(desk).button.text().startswith("No model")
    assert bar_of(desk).state.whole == "Choose a model."
    menu_of(desk)["Open the demo model"].trigger()
    settled(desk)
    choose(desk, other, monkeypatch)
    settled(desk)
    assert bar_of(desk).button.text().startswith("my-model")
    rows = menu_of(desk)
    assert [row for row in rows if rows[row].isChecked()] == [f"my-model  ({other.parent})"]
    rows["demo"].trigger()
    settled(desk)
    assert desk.engine.options.folder == checkpoint_folder()
    menu_of(desk)["Unload"].trigger()
    settled(desk, EngineState.EMPTY)
    assert bar_of(desk).state.whole == "Unloaded. The next question loads it again."
    menu_of(desk)["Load again"].trigger()
    settled(desk)
    menu_of(desk)["Convert a downloaded checkpoint…"].trigger()
    convert = desk.program.window.page("convert")
    assert convert is not None
    assert convert.isVisible()
    assert bar_of(desk).isVisible(), "it is above every page"


def test_the_model_does_not_change_while_an_answer_is_written(
    desk: Desk, other: Path, script: Script
) -> None:
    desk.open_demo()
    script.hold = True
    desk.chat.composer.setPlainText("Long?")
    desk.chat.send()
    desk.qtbot.waitUntil(lambda: desk.engine.open_answers > 0)
    rows = menu_of(desk)
    assert not rows["Open a model folder…"].isEnabled()
    desk.program.window.open_model(other)
    assert "answer is being written" in desk.chat.message
    desk.engine_says_all()
    desk.qtbot.waitUntil(desk.chat.answered)
    assert desk.engine.options.folder == checkpoint_folder()


def test_loading_shows_share_bytes_and_time_left(
    desk: Desk, other: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.loads = False
    desk.program.window.open_model(other)
    desk.qtbot.waitUntil(lambda: bool(desk._made))
    bar = bar_of(desk)
    assert bar.progress.isVisible()
    assert bar.progress.maximum() == 0, "the share is not known yet"
    now = [100.0]
    monkeypatch.setattr(bar._estimate, "_clock", lambda: now[0])
    for gib in (1, 2, 3):
        now[0] += 10
        desk.engine.report_load(gib * GIB, 12 * GIB)
    desk.qtbot.waitUntil(lambda: "25 %" in bar.state.whole)
    assert bar.state.whole == "Loading: 25 %, about 2 min left, 3.00 GiB"
    assert bar.progress.value() == 250
    desk.engine.end_load()
    settled(desk)
    assert not bar.progress.isVisible()
    assert bar.state.whole == "Ready. It runs on the processor, without a GPU."


def test_cancel_returns_to_the_model_before(desk: Desk, other: Path, script: Script) -> None:
    desk.open_demo()
    script.loads = False
    desk.program.window.open_model(other)
    desk.qtbot.waitUntil(lambda: desk.engine.options.folder == other)
    desk.chat.composer.setPlainText("Which model?")
    desk.chat.send()
    assert desk.chat.waiting
    script.loads = True
    bar_of(desk).cancel_button.click()
    desk.qtbot.waitUntil(lambda: desk.engine.options.folder == checkpoint_folder())
    settled(desk)
    assert desk.program.settings.get("model") == str(checkpoint_folder())
    assert not bar_of(desk).cancel_button.isVisible()


def test_cancel_of_a_first_load_gives_the_question_back(
    desk: Desk, other: Path, script: Script
) -> None:
    script.loads = False
    desk.program.window.open_model(other)
    desk.qtbot.waitUntil(lambda: bool(desk._made))
    desk.chat.composer.setPlainText("Later?")
    desk.chat.send()
    bar_of(desk).cancel_button.click()
    settled(desk, EngineState.STOPPED)
    assert not desk.chat.waiting
    assert desk.chat.composer.toPlainText() == "Later?"
    assert not desk.chat.composer.isReadOnly()
    assert desk.chat.demo_button.isVisible()


# --- a question loads the model -------------------------------------------------------------------


def test_a_question_loads_the_unloaded_model_and_is_asked_once(desk: Desk, script: Script) -> None:
    desk.open_demo()
    desk.program.engine.client.unload()
    settled(desk, EngineState.EMPTY)
    assert desk.chat.message == "", "it is no error"
    script.loads = False
    QTest.keyClicks(desk.chat.composer, "Are you there?")
    QTest.keyClick(desk.chat.composer, Qt.Key.Key_Return)
    desk.qtbot.waitUntil(lambda: desk.engine.state is EngineState.LOADING)
    desk.qtbot.waitUntil(lambda: desk.chat.status.text().startswith("Waiting for the model"))
    desk.engine.end_load()
    desk.qtbot.waitUntil(desk.chat.answered)
    assert [ask.question for ask in desk.engine.asked] == ["Are you there?"]
    assert desk.chat.composer.toPlainText() == ""


def test_a_question_while_the_model_loads_waits_for_it(desk: Desk, script: Script) -> None:
    script.loads = False
    desk.chat.open_demo()
    desk.chat.composer.setPlainText("Already?")
    desk.chat.send()
    desk.qtbot.waitUntil(lambda: bool(desk._made))
    assert desk.engine.asked == []
    desk.engine.end_load()
    desk.qtbot.waitUntil(desk.chat.answered)
    assert [ask.question for ask in desk.engine.asked] == ["Already?"]


def test_a_question_whose_model_can_not_be_loaded_stays_in_the_composer(
    desk: Desk, other: Path, script: Script
) -> None:
    script.loads = False
    desk.program.window.open_model(other)
    desk.qtbot.waitUntil(lambda: bool(desk._made))
    desk.chat.composer.setPlainText("Kept?")
    desk.chat.send()
    desk.engine.fail_load(DoesNotFitError("It needs 3 GiB more."))
    desk.qtbot.waitUntil(lambda: "3 GiB more" in desk.chat.message)
    assert not desk.chat.waiting
    assert desk.chat.composer.toPlainText() == "Kept?"
    script.loads = True
    desk.chat.send()  # tries again
    desk.qtbot.waitUntil(desk.chat.answered)


def test_a_question_without_any_model_says_what_to_do(desk: Desk) -> None:
    desk.chat.composer.setPlainText("Hello?")
    desk.chat.send()
    assert desk.chat.message.startswith("No model is open. Choose one")
    assert desk.chat.composer.toPlainText() == "Hello?"


def test_a_question_starts_a_dead_engine_again(desk: Desk) -> None:
    desk.open_demo()
    desk.engine.die("The engine was killed.")
    desk.program.engine.state_changed.emit()
    desk.ask("Again?")
    assert desk.chat.answered()


def test_a_question_during_a_batch_is_asked_when_it_ends(desk: Desk, other: Path) -> None:
    desk.open_demo()
    client = desk.program.engine.client
    client.unload()
    settled(desk, EngineState.EMPTY)
    client.lend()  # as the batch page does
    desk.chat.composer.setPlainText("After the batch?")
    desk.chat.send()
    desk.program.window.open_model(other)
    assert "A batch, an evaluation or a training run is in progress" in desk.chat.message
    desk.qtbot.wait(50)
    assert desk.engine.state is EngineState.EMPTY, "one model in memory, not two"
    client.take_back()
    desk.qtbot.waitUntil(desk.chat.answered)


def test_typing_counts_as_use(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    real = QTimer.start

    def start(timer: QTimer, *after_ms: int) -> None:
        """A minute is 100 milliseconds here."""
        real(timer, *(ms // 600 if ms >= 60_000 else ms for ms in after_ms))

    monkeypatch.setattr(QTimer, "start", start)
    desk.open_demo()
    desk.program.settings.set("unload_minutes", 1)
    for letter in "a question that takes long":
        QTest.keyClicks(desk.chat.composer, letter)
        desk.qtbot.wait(20)
        assert desk.engine.state is EngineState.READY
    desk.qtbot.waitUntil(lambda: desk.engine.state is EngineState.EMPTY)


# --- the first page -------------------------------------------------------------------------------


def samples_of(desk: Desk) -> dict[str, QWidget]:
    grid = desk.chat._welcome.samples
    desk.qtbot.waitUntil(lambda: len(grid.buttons) == 6)
    return {button.text().replace("\n", " "): button for button in grid.buttons}


def test_a_sample_picture_opens_the_demo_model_and_is_asked_about(desk: Desk) -> None:
    buttons = samples_of(desk)
    known = {asked.question for sample in sample_pictures() for asked in sample.questions}
    assert set(buttons) <= known
    QTest.mouseClick(buttons["What is written on the sign?"], Qt.MouseButton.LeftButton)
    desk.qtbot.waitUntil(desk.chat.answered, timeout=15_000)
    [ask] = desk.engine.asked
    sign = checkpoint_folder().parent / "pictures" / "sign.png"
    assert ask.question == "What is written on the sign?"
    assert asked_about(ask, sign.read_bytes())
    assert desk.engine.options.folder == checkpoint_folder()


def test_a_sample_does_not_replace_a_question_that_was_typed(desk: Desk) -> None:
    desk.open_demo()
    desk.chat.composer.setPlainText("My own question")
    QTest.mouseClick(samples_of(desk)["What number is shown?"], Qt.MouseButton.LeftButton)
    desk.qtbot.waitUntil(lambda: bool(desk.chat.picture), timeout=15_000)
    assert desk.chat.composer.toPlainText() == "My own question"
    assert desk.engine.asked == []


def test_samples_are_chinese_in_a_chinese_window(desk: Desk) -> None:
    before = desk.chat
    desk.program.settings.set("language", "zh_CN")
    desk.qtbot.waitUntil(lambda: desk.chat is not before, timeout=20_000)
    assert not any(question.isascii() for question in samples_of(desk))


def test_the_first_page_says_what_the_demo_knows_and_where_the_real_model_is(
    desk: Desk, other: Path
) -> None:
    welcome = desk.chat._welcome
    assert "It knows only drawn pictures" in welcome.knows.text()
    for word in (
        "cogvlm2-llama3-chat-19B", "cogvlm2-llama3-chinese-chat-19B", "39 GB", "Convert", "12 GB",
    ):  # fmt: skip
        assert word in welcome.get.text()
    desk.open_demo()
    assert welcome.knows.isVisible(), "the demo model still knows no photographs"
    desk.program.window.open_model(other)
    settled(desk)
    assert not welcome.knows.isVisible()


# --- words ----------------------------------------------------------------------------------------


def texts_of(page: QWidget) -> list[str]:
    found = []
    for widget in page.findChildren(QWidget):
        for name in ("text", "toPlainText", "toolTip", "placeholderText"):
            read = getattr(widget, name, None)
            if callable(read):
                found.append(str(read()))
    return found


@pytest.mark.parametrize(
    "name", ["chat", "memory", "settings", "convert", "batch", "evaluate", "teach"]
)
def test_no_page_has_words_of_the_command_line(desk: Desk, name: str) -> None:
    desk.program.window.show_page(name)
    page = desk.program.window.page(name)
    assert page is not None
    if isinstance(page, MemoryPage):
        told = page.table
        desk.qtbot.waitUntil(lambda: "Answers are the same" in told.toPlainText(), timeout=30_000)
    desk.qtbot.wait(50)
    assert [text for text in texts_of(page) if COMMAND_LINE.search(text)] == []


def test_labels_are_plain_text(desk: Desk, tmp_path: Path) -> None:
    folder = tmp_path / "<b>bold"
    folder.mkdir()
    desk.program.window.open_model(folder)
    desk.qtbot.waitUntil(lambda: "<b>bold can't be opened" in desk.chat.message)
    for label in bar_of(desk).findChildren(QLabel):
        assert label.textFormat() is Qt.TextFormat.PlainText
