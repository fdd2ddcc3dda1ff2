"""The window, without a screen, with an engine that follows a script."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from PySide6.QtCore import QMimeData, Qt, QUrl
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QLineEdit,
    QListWidget,
    QPlainTextEdit,
    QTableView,
    QToolButton,
    QWidget,
)

from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.errors import ImageError
from cogvlm2_lite.events import Notice, TextDelta
from cogvlm2_lite.inputs.image import open_image
from cogvlm2_lite.text import Text
from gui.background.decoder import decode
from gui.background.engine import EngineBridge, EngineClient
from gui.chat.answer import Prose
from gui.data.state import Status
from gui.pages.convert import ConvertPage
from gui.window import PAGES
from tests.helpers.desk import Desk, Script, ScriptedProcess
from tests.helpers.giving import asked_about, drop, give_bytes

PICTURES = checkpoint_folder().parent / "pictures"


def give(desk: Desk, name: str = "shapes.png") -> bytes:
    data = (PICTURES / name).read_bytes()
    give_bytes(desk.chat, data)
    desk.qtbot.waitUntil(lambda: desk.chat.picture == data, timeout=15_000)
    return data


def test_the_first_start_offers_the_demo_model(desk: Desk) -> None:
    assert desk.chat.demo_button.isVisible()
    desk.open_demo()
    assert desk.engine.options.folder == checkpoint_folder()
    assert not desk.chat.demo_button.isVisible()


def test_a_question_about_a_picture_is_answered_and_kept(desk: Desk) -> None:
    desk.open_demo()
    data = give(desk)
    desk.ask("What colour is it?")
    assert asked_about(desk.engine.asked[0], data)
    talk = desk.chat.conversation
    assert talk is not None
    assert talk.path()[0].answer == "It is **red**."
    view = desk.chat.transcript.view_of(talk.path()[0].id)
    assert view.answer.toPlainText() == "It is red."
    assert "5 tokens, 4.0 tokens/s" in view.stats.text()
    kept = desk.program.history.load(talk.id)
    assert kept.path() == talk.path()
    assert desk.program.history.picture(kept.picture) == data
    assert desk.chat.list.item(0).text() == "What colour is it?"


def test_the_next_question_comes_with_the_talk_so_far(desk: Desk) -> None:
    desk.open_demo()
    desk.ask("One?")
    desk.ask("Two?")
    assert desk.engine.asked[1].history == (("One?", "It is **red**."),)


def test_enter_sends_and_shift_enter_breaks_the_line(desk: Desk) -> None:
    desk.open_demo()
    desk.qtbot.keyClicks(desk.chat.composer, "ab")
    desk.qtbot.keyClick(desk.chat.composer, Qt.Key.Key_Return, Qt.KeyboardModifier.ShiftModifier)
    desk.qtbot.keyClicks(desk.chat.composer, "c")
    desk.qtbot.keyClick(desk.chat.composer, Qt.Key.Key_Return)
    desk.qtbot.waitUntil(lambda: bool(desk.engine.asked))
    assert desk.engine.asked[0].question == "ab\nc"
    assert desk.chat.composer.toPlainText() == ""


def test_stop_keeps_what_came(desk: Desk, script: Script) -> None:
    script.hold = True
    desk.open_demo()
    desk.chat.composer.setPlainText("Tell me")
    desk.chat.send()
    talk = desk.chat.conversation
    assert talk is not None
    desk.qtbot.waitUntil(lambda: talk.path()[0].answer == "It is **red**.")
    assert desk.chat.send_button.accessibleName() == "Stop (Esc)"
    desk.chat.stop()
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    assert talk.path()[0].status is Status.STOPPED


def test_a_dead_engine_leaves_the_answer_so_far_and_offers_a_start(
    desk: Desk, script: Script
) -> None:
    script.hold = True
    desk.open_demo()
    desk.chat.composer.setPlainText("Tell me")
    desk.chat.send()
    talk = desk.chat.conversation
    assert talk is not None
    desk.qtbot.waitUntil(lambda: bool(talk.path()[0].answer))
    desk.engine.die("The engine was killed (SIGKILL).")
    desk.program.engine.state_changed.emit()
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    turn = desk.program.history.load(talk.id).path()[0]
    assert (turn.status, turn.answer) == (Status.FAILED, "It is **red**.")
    assert "killed" in turn.error
    assert desk.chat.restart_button.isVisible()
    desk.chat.restart_button.click()
    desk.qtbot.waitUntil(lambda: desk.chat.status.text() == "Ready")
    desk.qtbot.waitUntil(lambda: not desk.chat.restart_button.isVisible())


def test_an_engine_that_can_not_start_is_a_sentence(desk: Desk, script: Script) -> None:
    script.starts = False
    desk.chat.open_demo()
    desk.qtbot.waitUntil(lambda: "can't be started" in desk.chat.message)
    assert desk.chat.restart_button.isVisible()


def test_asking_again_and_editing_make_versions(desk: Desk) -> None:
    desk.open_demo()
    desk.ask("First?")
    talk = desk.chat.conversation
    assert talk is not None
    first = talk.path()[0].id
    desk.chat.answer_again(first)
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    shown = talk.path()[0].id
    desk.chat.edit_question(shown)
    editor = desk.chat.transcript.view_of(shown).editor
    assert editor is not None
    assert editor.text.toPlainText() == "First?"
    editor.text.setPlainText("Second?")
    editor.ask_button.click()
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    assert len(talk.path()) == 1
    assert [t.question for t in talk.siblings(talk.path()[0])] == ["First?", "First?", "Second?"]
    desk.chat.transcript.choose.emit(first)
    assert talk.path()[0].id == first


def test_what_the_engine_tells_stands_under_the_answer(desk: Desk, script: Script) -> None:
    script.events = [Notice(text=Text("The answer went in circles.")), TextDelta(text="a")]
    desk.open_demo()
    desk.ask("Loop?")
    talk = desk.chat.conversation
    assert talk is not None
    view = desk.chat.transcript.view_of(talk.path()[0].id)
    assert view.notes.text() == "The answer went in circles."


def test_conversations_are_searched_deleted_and_brought_back(desk: Desk) -> None:
    desk.open_demo()
    desk.ask("About cats?")
    desk.chat.start_new()
    desk.ask("About dogs?")
    chat = desk.chat
    assert chat.list.count() == 2
    chat.search.setText("cats")
    assert [chat.list.item(i).text() for i in range(chat.list.count())] == ["About cats?"]
    chat.search.clear()
    talk = chat.conversation
    assert talk is not None
    chat.delete(talk.id)
    assert chat.list.count() == 1
    chat.undo.click()
    assert chat.list.count() == 2


def test_a_conversation_is_exported_with_its_picture(desk: Desk, tmp_path: Path) -> None:
    desk.open_demo()
    data = give(desk)
    desk.ask("Export?")
    talk = desk.chat.conversation
    assert talk is not None
    desk.chat.export_to(talk.id, tmp_path / "talk")
    assert "It is **red**." in (tmp_path / "talk.md").read_text()
    assert (tmp_path / "talk.png").read_bytes() == data


def test_a_file_that_is_dropped_is_shown(desk: Desk) -> None:
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(PICTURES / "sign.png"))])
    drop(desk.chat.panel, mime)
    data = (PICTURES / "sign.png").read_bytes()
    desk.qtbot.waitUntil(lambda: desk.chat.picture == data, timeout=15_000)
    desk.qtbot.waitUntil(lambda: desk.chat.panel.view.isVisible(), timeout=15_000)


def test_a_broken_picture_is_a_sentence(desk: Desk, tmp_path: Path) -> None:
    give_bytes(desk.chat, b"\x89PNG\r\n\x1a\n and nothing more")
    text = desk.chat.chip.text
    desk.qtbot.waitUntil(lambda: text.property("kind") == "bad", timeout=15_000)
    assert "picture" in text.text().lower()
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(tmp_path / "gone.png"))])
    drop(desk.chat.panel, mime)
    desk.qtbot.waitUntil(lambda: text.text().startswith("gone.png can't be read"))


def test_a_child_that_crashes_on_a_picture_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    crash = [sys.executable, "-c", "import os; os.abort()"]
    monkeypatch.setattr("gui.background.decoder.child_command", lambda *_: crash)
    with pytest.raises(ImageError, match="decoder crashed"):
        decode(b"x")


def test_a_picture_is_decoded_to_all_its_pixels() -> None:
    found = decode((PICTURES / "chart.png").read_bytes())
    assert (found.width, found.height) == (found.original_width, found.original_height)
    assert len(found.rgb) == 3 * found.width * found.height
    assert found.sha256 == open_image(PICTURES / "chart.png").sha256


def test_what_the_model_sees_is_a_square(desk: Desk) -> None:
    give(desk, "chart.png")
    eye = desk.chat.panel.findChild(QToolButton, "eye")
    eye.click()
    view = desk.chat.panel.view
    desk.qtbot.waitUntil(lambda: view.picture_size.toTuple() == (1344, 1344))


def test_answers_load_nothing_and_open_nothing_by_themselves(desk: Desk) -> None:
    answer = Prose()
    desk.qtbot.addWidget(answer)
    answer.show_text("![x](http://127.0.0.1:1/x.png) ![y](file:///etc/passwd) <b>html</b>")
    assert "<b>html</b>" in answer.toPlainText()
    assert answer.loadResource(2, QUrl("file:///etc/passwd")) is None
    assert not answer.openLinks()


@pytest.mark.parametrize("page", [page.name for page in PAGES])
def test_every_control_has_a_name_for_screen_readers(desk: Desk, page: str) -> None:
    desk.open_demo()
    desk.ask("Name?")
    desk.program.window.show_page(page)
    shown = desk.program.window.page(page)
    assert shown is not None
    kinds = (QAbstractButton, QLineEdit, QPlainTextEdit, QListWidget)
    unnamed = [
        widget
        for widget in shown.findChildren(QWidget)
        if isinstance(widget, kinds)
        and not widget.accessibleName()
        and not (isinstance(widget, QAbstractButton) and widget.text())
        # Inside of a line, a number field or a table are Qt's own parts.
        and not isinstance(widget.parent(), QLineEdit | QAbstractSpinBox | QTableView)
    ]
    assert unnamed == []


def test_a_change_of_theme_keeps_the_conversation(desk: Desk) -> None:
    desk.open_demo()
    desk.ask("Still here?")
    talk = desk.chat.conversation
    assert talk is not None
    desk.chat.composer.setPlainText("half a question")
    desk.program.settings.set("theme", "dark")
    desk.qtbot.wait(50)
    assert desk.chat.conversation is not None
    assert desk.chat.conversation.id == talk.id
    assert desk.chat.composer.toPlainText() == "half a question"


def test_an_answer_is_copied_as_text_or_as_markdown(desk: Desk) -> None:
    desk.open_demo()
    desk.ask("Copy?")
    talk = desk.chat.conversation
    assert talk is not None
    view = desk.chat.transcript.view_of(talk.path()[0].id)
    buttons = {b.accessibleName(): b for b in view.findChildren(QAbstractButton)}
    buttons["Copy as text"].click()
    assert QGuiApplication.clipboard().text() == "It is red."
    buttons["Copy as Markdown"].click()
    assert QGuiApplication.clipboard().text() == "It is **red**."


def convert_page(desk: Desk) -> ConvertPage:
    desk.program.window.show_page("convert")
    page = desk.program.window.page("convert")
    assert isinstance(page, ConvertPage)
    return page


def test_the_convert_page_reads_the_commands_lines(desk: Desk) -> None:
    page = convert_page(desk)
    page.show_event({"event": "progress", "share": 0.5, "seconds_left": 60.0})
    assert page.bar.value() == 500
    assert page.status.text().startswith("50% written")
    page.show_event(
        {"event": "measuring", "done": 3, "total": 12, "block": "words", "seconds_left": 60.0}
    )
    assert page.bar.value() == 250
    assert page.status.text().startswith("Measured 3 of 12 blocks")
    page.show_event({"event": "error", "message": "The disk is full.", "hint": "Free some."})
    assert page.status.text() == "The disk is full. Free some."
    desk.program.settings.set("language", "zh_CN")
    desk.qtbot.wait(50)  # the change of the language makes the pages again
    page = convert_page(desk)
    page.show_event(
        {
            "event": "error",
            "message": Text("There is no folder {folder}.", folder="/x"),
            "hint": "",
        }
    )
    assert page.status.text() == "没有文件夹 /x。"


def test_a_new_folder_that_has_files_is_kept_and_another_one_is_offered(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = convert_page(desk)
    started: list[str] = []
    monkeypatch.setattr(page, "_command", SimpleNamespace(
        running=False, end=lambda: None, start=lambda line: started.append(line[2]),
    ))  # fmt: skip
    taken, free = tmp_path / "nf4", tmp_path / "nf4-2"
    taken.mkdir()
    page.source.setText("/checkpoint")
    page.target.setText(str(taken))
    page.start()
    error = {"event": "error", "message": "It is taken.", "hint": ""}
    page.show_event(error)
    desk.qtbot.waitUntil(lambda: not desk.program.window.tasks.busy)
    assert not page.keep_button.isVisible()  # it is empty: the error has another reason
    (taken / "mine.txt").touch()
    page.show_event(error)
    desk.qtbot.waitUntil(page.keep_button.isVisible)
    assert page.keep_button.text() == "Keep it, write to nf4-2"
    page.keep_button.click()
    assert page.target.text() == str(free)
    assert not page.folder_button.isVisible()
    free.write_text("a file")
    page.show_event(error)
    desk.qtbot.waitUntil(page.folder_button.isVisible)
    other = tmp_path / "other"
    monkeypatch.setattr("gui.pages.convert.QFileDialog.getExistingDirectory", lambda *_: str(other))
    page.folder_button.click()
    assert started == [str(taken), str(free), str(other)]
    assert (taken / "mine.txt").exists()


@pytest.mark.slow
def test_the_convert_page_converts_the_demo_model(desk: Desk, tmp_path: Path) -> None:
    page = convert_page(desk)
    page.source.setText(str(checkpoint_folder()))
    page.target.setText(str(tmp_path / "nf4"))
    page.start()
    desk.qtbot.waitUntil(lambda: not page.running, timeout=60_000)
    assert (tmp_path / "nf4" / "config.json").exists()
    assert page.status.text().startswith("Finished")


def test_opening_the_window_loads_no_torch() -> None:
    program = (
        "import os, sys; os.environ['QT_QPA_PLATFORM'] = 'offscreen'\n"
        "import tempfile; from pathlib import Path\n"
        "from gui.app import Program, make_app\n"
        "app = make_app(); made = Program(app, Path(tempfile.mkdtemp()))\n"
        "made.window.show_page('chat'); made.window.show(); app.processEvents()\n"
        "made.window.grab(); made.close()\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_in_the_terminal_closes_the_window(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cogvlm2_lite", "gui", "--data", str(tmp_path)]
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, cwd=Path(__file__).parents[2]
    ) as window:
        try:
            for _ in range(300):
                if (tmp_path / "conversations.db").exists():
                    break
                time.sleep(0.1)
            window.send_signal(number)
            _, told = window.communicate(timeout=30)
        finally:
            window.kill()
    assert window.returncode == 0
    assert told == ""
    assert "geometry" in (tmp_path / "settings.json").read_text()  # it closed, and was not killed


def test_emitting_a_signal_costs_no_reference() -> None:
    """With PySide6 6.12.0 on Python 3.11 every emit drops one of True; at none the process dies."""
    emitter = EngineBridge(EngineClient(ScriptedProcess))
    before = sys.getrefcount(True)
    for _ in range(200):
        emitter.state_changed.emit()
    lost = before - sys.getrefcount(True)
    assert lost < 100, 'a broken PySide6: pip install "PySide6-Essentials<6.12"'


def test_the_window_speaks_chinese(desk: Desk) -> None:
    desk.program.settings.set("language", "zh_CN")
    desk.qtbot.waitUntil(lambda: desk.chat.new_button.text() == "新对话")
    assert desk.chat.demo_button.text() == "试用小型演示模型"
    desk.program.settings.set("language", "en")
    desk.qtbot.waitUntil(lambda: desk.chat.new_button.text() == "New conversation")


def test_every_text_has_a_chinese_one() -> None:
    file = Path(__file__).parents[2] / "gui" / "translations" / "zh_CN.ts"
    messages = list(ElementTree.parse(file).iter("message"))
    assert len(messages) > 150
    for message in messages:
        source, done = message.findtext("source"), message.find("translation")
        assert done is not None
        assert done.get("type") is None, source
        assert done.text, source


def test_no_socket_leaves_the_window() -> None:
    names = (
        "QtNetwork",
        "urllib.request",
        "http.client",
        "import requests",
        "socket.create_connection",
    )
    local = "from PySide6.QtNetwork import QLocalServer, QLocalSocket\n"  # to this computer only
    for file in (Path(__file__).parents[2] / "gui").rglob("*.py"):
        text = file.read_text(encoding="utf-8").replace(local, "")
        assert not [name for name in names if name in text], file


def test_numbers_in_the_settings_can_be_read(desk: Desk) -> None:
    desk.program.window.show_page("settings")
    page = desk.program.window.page("settings")
    assert page is not None
    boxes = page.findChildren(QAbstractSpinBox)
    assert len(boxes) > 4
    for box in boxes:
        line = box.findChild(QLineEdit)
        assert line is not None
        assert line.width() > line.fontMetrics().horizontalAdvance(box.text()), box.accessibleName()
