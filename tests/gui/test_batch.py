"""The batch page: what its command tells, a table beside small pictures, pause and cancel."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QDesktopServices, QImage
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QPlainTextEdit, QPushButton
from pytestqt.qtbot import QtBot

from cogvlm2_lite.batch.texts import Existing
from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.file_names import escape_name
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.worker.client import EngineState
from gui.background.thumbnails import SIDE, Thumbnails
from gui.batch.page import BatchPage
from gui.batch.run import BatchRun, Job, Row, RowState, arguments, export_rows
from gui.batch.table import Table
from gui.data.run_state import RunState
from gui.data.saving import How
from tests.helpers.desk import Desk, Script

PICTURES = checkpoint_folder().parent / "pictures"
CHILD = """
import json, sys
def emit(event, **values): print(json.dumps({"event": event, **values}), flush=True)
if "cut" in sys.argv[3]:
    sys.exit("The disk is full.")
names = [f"p{n}.png" for n in range(3)]
known = {"picture": "p0.png", "answer": "old", "error": "", "notices": []}
emit("plan", pictures=names, known=[known], notes=["Already answered: 1."])
emit("loading")
for done, name in enumerate(names[1:], 2):
    emit("asking", picture=name)
    order = sys.stdin.readline().strip()
    if order == "stop":
        emit("finished", total=3, failed=0, left=4 - done)
        sys.exit(1)
    error = "Broken." if name == "p2.png" else ""
    answered = {"picture": name, "answer": "" if error else "new", "error": error, "notices": []}
    emit("answered", answered=answered, seconds_left=30.0 * (3 - done))
    if order == "pause":
        emit("paused")
        assert sys.stdin.readline().strip() == "resume"
        emit("resumed")
emit("finished", total=3, failed=1, left=0)
"""


def plan(*names: str) -> dict[str, object]:
    return {"event": "plan", "pictures": list(names), "known": [], "notes": []}


def answered(picture: str, answer: str = "", error: str = "") -> dict[str, object]:
    values = {"picture": picture, "answer": answer, "error": error, "notices": []}
    return {"event": "answered", "answered": values, "seconds_left": 2.0}


def test_a_run_follows_the_commands_events() -> None:
    run = BatchRun(job=Job(folder=Path("f"), question="?"))
    assert run.apply_event(plan("a", "b", "c")) is None
    run.apply_event({"event": "loading"})
    assert run.state is RunState.LOADING
    assert run.apply_event({"event": "asking", "picture": "b"}) == 1
    assert run.rows[1].state is RowState.ASKING
    assert run.apply_event(answered("b", "yes")) == 1
    run.apply_event(answered("c", error="Broken."))
    assert (run.done, run.failed, run.seconds_left) == (2, 1, 2.0)
    assert run.rows[2] == Row(picture="c", state=RowState.FAILED, text="Broken.")
    run.apply_event({"event": "finished", "left": 1})
    assert run.state is RunState.STOPPED


def test_a_command_that_dies_leaves_its_reason_and_no_row_half_asked() -> None:
    run = BatchRun(job=Job(folder=Path("f"), question="?"))
    run.apply_event(plan("a"))
    run.apply_event({"event": "asking", "picture": "a"})
    run.process_ended("Killed.")
    assert (run.state, run.error) == (RunState.FAILED, "Killed.")
    assert run.rows[0].state is RowState.WAITING
    run.process_ended("Again.")
    assert run.error == "Killed."


def test_a_question_that_looks_like_an_option_reaches_the_command() -> None:
    from cogvlm2_lite.cli.batch import build_parser

    job = Job(folder=Path("in"), question="--recursive?", output=Path("out"), texts=False)
    line = arguments(
        job,
        Path("m"),
        Sampling(top_k=3),
        vram="6GiB",
        ram="",
        only_file=Path("n"),
        adapter=Path("forms"),
    )
    args = build_parser().read(line[1:])
    assert args.adapter == ["forms"]
    assert (args.question, args.recursive, args.no_text) == ("--recursive?", False, True)
    assert (args.output, args.only, args.vram, args.top_k) == (Path("out"), Path("n"), "6GiB", 3)
    assert args.json
    assert args.control


def test_rows_are_exported_as_a_table_or_as_lines(tmp_path: Path) -> None:
    rows = [
        Row(picture="a", state=RowState.ANSWERED, text='one, "two"\nthree'),
        Row(picture="b", state=RowState.FAILED, text="Broken."),
        Row(picture="c"),
    ]
    export_rows(rows, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(encoding="utf-8-sig", newline="") as stream:
        table = list(csv.reader(stream))
    assert table[1:] == [["a", 'one, "two"\nthree', ""], ["b", "", "Broken."], ["c", "", ""]]
    export_rows(rows, tmp_path / "t.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert lines[1] == {"picture": "b", "answer": "", "error": "Broken."}
    with pytest.raises(CogVLM2LiteError, match="can't be written"):
        export_rows(rows, tmp_path / "t.csv" / "x.csv")


def test_an_export_runs_nothing_and_replaces_nothing_without_a_question(tmp_path: Path) -> None:
    name = escape_name(os.fsdecode(b"=caf\xe9\n.png"))
    rows = [Row(picture=name, state=RowState.ANSWERED, text="=1+1")]
    export_rows(rows, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(encoding="utf-8-sig", newline="") as stream:
        assert list(csv.reader(stream))[1] == ["'=caf\\xe9\\x0a.png", "'=1+1", ""]
    export_rows(rows, tmp_path / "t.jsonl")
    (line,) = (tmp_path / "t.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["picture"] == name
    (tmp_path / "mine.csv").write_text("mine")
    with pytest.raises(CogVLM2LiteError, match="already exists"):
        export_rows(rows, tmp_path / "mine.csv")
    assert (tmp_path / "mine.csv").read_text() == "mine"
    export_rows(rows, tmp_path / "mine.csv", How.REPLACE)
    assert "1+1" in (tmp_path / "mine.csv").read_text()


def test_a_row_with_a_strange_name_is_counted_and_opens_its_file() -> None:
    name = os.fsdecode("照片\n.png".encode("gbk"))
    run = BatchRun(job=Job(folder=Path("f"), question="?"))
    run.apply_event(plan(escape_name(name), "b"))
    run.apply_event(answered(escape_name(name), "yes"))
    run.apply_event(answered("b", error="Broken."))
    assert (run.done, run.failed) == (2, 1)
    assert run.rows[0].file == name
    assert "\n" not in run.rows[0].shown_name


@pytest.mark.skipif(sys.platform != "linux", reason="such names exist on Linux only")
def test_a_thumbnail_comes_for_a_name_that_is_not_utf_8(qtbot: QtBot, tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode("照片.png".encode("gbk"))
    shutil.copy(PICTURES / "sign.png", file)
    thumbnails = Thumbnails()
    table = Table(thumbnails, thumbnails)
    table.show_rows(tmp_path, [Row(picture=escape_name(file.name))])
    picture = table.index(0, 0)
    table.data(picture, Qt.ItemDataRole.DecorationRole)
    qtbot.waitUntil(
        lambda: table.data(picture, Qt.ItemDataRole.DecorationRole) is not None, timeout=20_000
    )
    assert table.path(0) == file
    thumbnails.close()


def test_small_pictures_come_from_a_child_that_may_die(qtbot: QtBot, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    made = Thumbnails()
    got: dict[str, QImage] = {}
    made.ready.connect(got.__setitem__)
    before = set(psutil.Process().children())
    made.request(broken)
    qtbot.waitUntil(lambda: str(broken) in got, timeout=20_000)
    assert got[str(broken)].isNull()
    (child,) = set(psutil.Process().children()) - before
    child.kill()
    qtbot.waitUntil(lambda: child.status() == psutil.STATUS_ZOMBIE)
    for name in ("chart.png", "sign.png"):  # the first one meets the dead child
        made.request(PICTURES / name)
        qtbot.waitUntil(lambda name=name: str(PICTURES / name) in got, timeout=20_000)
    assert (
        max(got[str(PICTURES / "sign.png")].width(), got[str(PICTURES / "sign.png")].height())
        == SIDE
    )
    made.close()


def open_page(desk: Desk) -> BatchPage:
    desk.program.window.show_page("batch")
    page = desk.program.window.page("batch")
    assert isinstance(page, BatchPage)
    return page


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pictures; the command is a script that does one step for each order."""
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    monkeypatch.setattr("gui.background.json_lines.PROGRAM", (sys.executable, str(script)))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        shutil.copy(PICTURES / "sign.png", folder / f"p{number}.png")
    return folder


def test_the_page_asks_for_what_it_needs(desk: Desk, child: Path) -> None:
    page = open_page(desk)
    page.start()
    assert page.status.text() == "Choose a folder and write a question first."
    page.form.folder.setText(str(child))
    page.form.question.setPlainText("What?")
    page.start()
    assert page.status.text() == "Open a model first, on the Chat page."


def test_no_batch_starts_while_the_chat_answers(desk: Desk, child: Path, script: Script) -> None:
    script.hold = True
    desk.open_demo()
    desk.chat.composer.setPlainText("Tell me")
    desk.chat.send()
    desk.qtbot.waitUntil(lambda: desk.program.engine.client.answering)
    page = open_page(desk)
    page.form.folder.setText(str(child))
    page.form.question.setPlainText("What?")
    page.start()
    assert "still writing an answer" in page.status.text()
    assert not page.running
    desk.chat.stop()
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)


def start(desk: Desk, folder: Path) -> BatchPage:
    desk.open_demo()
    page = open_page(desk)
    page.form.folder.setText(str(folder))
    page.form.question.setPlainText("What?")
    page.start()
    desk.qtbot.waitUntil(lambda: page.pause_button.isEnabled(), timeout=10_000)
    return page


def test_a_pause_keeps_the_model_and_answers_stand_in_the_table(desk: Desk, child: Path) -> None:
    page = start(desk, child)
    desk.qtbot.waitUntil(lambda: desk.engine.state is EngineState.EMPTY)  # one model, not two
    assert page.filter.rowCount() == 3
    page.pause_or_resume()
    assert "Pausing after this picture" in page.status.text()
    desk.qtbot.waitUntil(lambda: "Paused" in page.status.text())
    assert page.status.text().startswith("2 of 3 pictures, 1 of them answered before.")
    page.pause_or_resume()
    page.command.send_line("")
    desk.qtbot.waitUntil(lambda: not page.running)
    desk.qtbot.waitUntil(lambda: desk.engine.state is EngineState.READY)
    assert (
        page.status.text()
        == f"3 of 3 pictures, 1 of them answered before, 1 failed. Answers: {child}"
    )
    assert page.bar.value() == page.bar.maximum() == 3
    shown = [(row.picture, row.text) for row in page.filter.shown()]
    assert shown == [("p0.png", "old"), ("p1.png", "new"), ("p2.png", "Broken.")]


def test_rows_are_searched_filtered_and_exported(desk: Desk, child: Path, tmp_path: Path) -> None:
    page = start(desk, child)
    page.command.send_line("\n")
    desk.qtbot.waitUntil(lambda: not page.running)
    page.states.setCurrentIndex(page.states.findText("Failed"))
    assert [row.picture for row in page.filter.shown()] == ["p2.png"]
    page.export_to(tmp_path / "failed")
    written = f"1 rows were written to {tmp_path / 'failed.csv'}."
    desk.qtbot.waitUntil(lambda: page.status.text() == written)
    assert "Broken." in (tmp_path / "failed.csv").read_text(encoding="utf-8-sig")
    page.states.setCurrentIndex(0)
    page.search.setText("NEW")
    assert [row.picture for row in page.filter.shown()] == ["p1.png"]


def test_a_cancel_ends_the_work_and_the_next_start_is_called_go_on(desk: Desk, child: Path) -> None:
    page = start(desk, child)
    page.cancel()
    assert page.status.text() == "Stopping…"
    desk.qtbot.waitUntil(lambda: not page.running)
    assert page.start_button.text() == "Resume"
    assert page.status.text().startswith("1 of 3 pictures")


def test_a_command_that_dies_is_a_sentence(desk: Desk, child: Path) -> None:
    desk.open_demo()
    page = open_page(desk)
    cut = child.parent / "cut"
    cut.mkdir()
    page.form.folder.setText(str(cut))
    page.form.question.setPlainText("What?")
    page.start()
    desk.qtbot.waitUntil(lambda: not page.running)
    desk.qtbot.waitUntil(lambda: page.status.text() == "The disk is full.")


def test_a_rebuilt_window_does_not_end_a_batch(desk: Desk, child: Path) -> None:
    before = start(desk, child)
    command = before.command
    desk.program.window.refresh()
    desk.qtbot.waitUntil(lambda: desk.program.window.page("batch") is not before)
    page = open_page(desk)
    assert page.command is command
    assert page.running
    assert page.filter.rowCount() == 3
    command.send_line("\n")
    desk.qtbot.waitUntil(lambda: not page.running)
    assert page.status.text().startswith("3 of 3 pictures")


def test_the_choice_for_existing_files_reaches_the_command(desk: Desk, child: Path) -> None:
    page = open_page(desk)
    page.form.folder.setText(str(child))
    page.form.question.setPlainText("What?")
    job = page.form.job()
    assert job is not None
    assert "--existing=keep" in arguments(job, child, Sampling(), vram="", ram="", only_file=None)
    for existing in Existing:
        page.form.existing.setCurrentIndex(page.form.existing.findData(existing))
        page.form.overwrite.setChecked(True)
        page.form.set_values(page.form.values())
        job = page.form.job()
        assert job is not None
        line = arguments(job, child, Sampling(), vram="", ram="", only_file=None)
        assert f"--existing={existing.value}" in line
        assert "--overwrite" in line


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The arguments of all commands that are started."""
    found: list[list[str]] = []

    def note(*values: Any, **options: Any) -> list[str]:
        found.append(arguments(*values, **options))
        return found[-1]

    monkeypatch.setattr("gui.batch.page.arguments", note)
    return found


def ask_about(desk: Desk, folder: Path) -> BatchPage:
    """Start a batch about a folder in which the user has text files."""
    page = open_page(desk)
    page.form.folder.setText(str(folder))
    page.form.question.setPlainText("What?")
    page.start()
    desk.qtbot.waitUntil(lambda: page.question.isVisible() or page.running, timeout=10_000)
    return page


def end(desk: Desk, page: BatchPage) -> None:
    desk.qtbot.waitUntil(lambda: page.pause_button.isEnabled(), timeout=10_000)
    page.cancel()
    desk.qtbot.waitUntil(lambda: not page.running, timeout=10_000)


def test_text_files_of_the_users_are_asked_about_once(
    desk: Desk, child: Path, lines: list[list[str]]
) -> None:
    desk.open_demo()
    (child / "p0.txt").write_text("mine", encoding="utf-8")
    (child / "p2.txt").write_text("mine, too", encoding="utf-8")
    page = ask_about(desk, child)
    assert page.question.text.text().startswith(f"2 text files in {child} are yours")
    assert not lines
    assert page.question.buttons[Existing.KEEP].hasFocus()
    page.question.buttons[Existing.APPEND].click()
    assert not page.question.isVisible()
    end(desk, page)
    assert "--existing=append" in lines[0]
    page.start()  # resumes: the answer is remembered for this folder
    end(desk, page)
    assert "--existing=append" in lines[1]
    other = child.parent / "other"
    shutil.copytree(child, other)
    page = ask_about(desk, other)  # no answer replaces files of another folder
    assert page.question.isVisible()
    assert page.question.buttons[Existing.APPEND].hasFocus()
    page.question.buttons[Existing.OVERWRITE].click()
    end(desk, page)
    assert "--existing=overwrite" in lines[2]
    page.form.existing.setCurrentIndex(page.form.existing.findData(Existing.SKIP))
    page.start()  # what is chosen in the form is not asked
    end(desk, page)
    assert "--existing=skip" in lines[3]


def test_the_question_about_text_files_can_be_left_with_another_folder_or_without_a_start(
    desk: Desk, child: Path, lines: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open_demo()
    (child / "p1.txt").write_text("mine", encoding="utf-8")
    page = ask_about(desk, child)
    assert page.question.text.text().startswith("1 text file in ")
    QTest.keyClick(page.question.buttons[Existing.KEEP], Qt.Key.Key_Escape)
    assert not page.question.isVisible()
    assert page.status.text() == "Nothing was started."
    assert page.start_button.hasFocus()
    page = ask_about(desk, child)
    answers = child.parent / "answers"
    answers.mkdir()
    monkeypatch.setattr("gui.batch.form.QFileDialog.getExistingDirectory", lambda *_: str(answers))
    page.question.folder_button.click()
    end(desk, page)  # there are none in that folder
    assert lines == [[*lines[0]]]
    assert {"--existing=keep", str(answers)} <= set(lines[0])


def test_without_text_files_to_write_nothing_is_asked(
    desk: Desk, child: Path, lines: list[list[str]]
) -> None:
    desk.open_demo()
    (child / "p1.txt").write_text("mine", encoding="utf-8")
    page = open_page(desk)
    page.form.texts.setChecked(False)
    page = ask_about(desk, child)
    assert not page.question.isVisible()
    end(desk, page)
    assert "--no-text" in lines[0]


def test_what_existed_before_is_shown(desk: Desk, child: Path) -> None:
    page = start(desk, child)
    assert page.notes.text() == "Already answered: 1."
    page.cancel()
    desk.qtbot.waitUntil(lambda: not page.running)


def test_chosen_pictures_take_the_place_of_a_folder(desk: Desk, child: Path) -> None:
    (child / "deep").mkdir()
    shutil.copy(PICTURES / "sign.png", child / "deep" / "x.png")
    desk.program.window.send_files("batch", [child / "p0.png", child / "deep" / "x.png"])
    page = open_page(desk)
    page.form.question.setPlainText("What?")
    job = page.form.job()
    assert job is not None
    assert (job.folder, job.only) == (child, ("p0.png", "deep/x.png"))
    whole = next(b for b in page.findChildren(QPushButton) if b.text() == "Use the whole folder")
    whole.click()
    job = page.form.job()
    assert job is not None
    assert job.only is None


def test_a_row_opens_a_conversation_about_its_picture(desk: Desk, child: Path) -> None:
    page = start(desk, child)
    page.table.activated.emit(page.filter.index(1, 0))
    data = (child / "p1.png").read_bytes()
    desk.qtbot.waitUntil(lambda: desk.chat.picture == data, timeout=15_000)
    assert desk.chat.isVisible()
    page.cancel()
    desk.qtbot.waitUntil(lambda: not page.running)


@pytest.mark.slow
def test_the_demo_model_answers_a_folder(desk: Desk, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("shapes.png", "three-shapes.png"):
        shutil.copy(PICTURES / name, folder / name)
    (folder / "broken.png").write_bytes(b"not a picture")
    desk.open_demo()
    page = open_page(desk)
    desk.program.window.send_files("batch", sorted(folder.iterdir()))
    page.form.question.setPlainText("How many shapes are there?")
    page.start()
    desk.qtbot.waitUntil(lambda: page.bar.value() == 3 and not page.running, timeout=90_000)
    shown = {row.picture: row.text for row in page.filter.shown()}
    assert (shown["shapes.png"], shown["three-shapes.png"]) == ("4", "3")
    assert (folder / "shapes.txt").read_text() == "4\n"
    assert "1 failed" in page.status.text()
    assert page.save_state().only_file is None


# --- answers in the hands of a person -------------------------------------------------------------


def finished_page(desk: Desk, child: Path) -> BatchPage:
    page = start(desk, child)
    page.command.send_line("\n")
    desk.qtbot.waitUntil(lambda: not page.running)
    return page


def test_an_answer_is_edited_in_its_cell_and_saved(desk: Desk, child: Path) -> None:
    page = finished_page(desk, child)
    cell = page.filter.index(1, 1)
    page.table.setCurrentIndex(cell)
    page.table.edit(cell)
    [field] = page.table.viewport().findChildren(QPlainTextEdit)
    assert field.toPlainText() == "new"
    field.setPlainText("a better caption")
    QTest.keyClick(field, Qt.Key.Key_Return)
    desk.qtbot.waitUntil(lambda: page.status.text() == "The answer was saved.")
    assert page.filter.shown()[1].text == "a better caption"
    assert (child / "p1.txt").read_text() == "a better caption\n"
    [line] = (child / "answers.jsonl").read_text().splitlines()
    assert json.loads(line)["answer"] == "a better caption"
    (child / "p1.txt").write_text("mine")  # another program
    assert page.table.model().setData(cell, "again")
    desk.qtbot.waitUntil(lambda: "is kept" in page.status.text())
    assert (child / "p1.txt").read_text() == "mine"


def test_an_answer_can_not_be_edited_while_the_command_writes(desk: Desk, child: Path) -> None:
    page = start(desk, child)
    assert not page.filter.flags(page.filter.index(0, 1)) & Qt.ItemFlag.ItemIsEditable
    page.cancel()
    desk.qtbot.waitUntil(lambda: not page.running)
    assert page.filter.flags(page.filter.index(0, 1)) & Qt.ItemFlag.ItemIsEditable


def test_failed_pictures_are_asked_again_and_the_others_stay(desk: Desk, child: Path) -> None:
    page = finished_page(desk, child)
    assert page.again_button.text() == "Ask again about 1 failed"
    page.again_button.click()
    saved = page.save_state()
    run = saved.run
    assert run is not None
    assert (run.job.only, run.job.overwrite, run.partial) == (("p2.png",), True, True)
    assert [row.text for row in run.rows] == ["old", "new", "Broken."]
    run.apply_event(plan("p2.png"))
    run.apply_event(answered("p2.png", "it is better"))
    assert [row.text for row in run.rows] == ["old", "new", "it is better"]
    assert (run.done, run.failed) == (3, 0)
    saved.command.end()


def test_words_around_answers_reach_the_command_and_are_remembered(desk: Desk, child: Path) -> None:
    page = open_page(desk)
    page.form.folder.setText(str(child))
    page.form.question.setPlainText("What?")
    page.form.prefix.setText("ohwx man, ")
    page.form.suffix.setText(", photo")
    job = page.form.job()
    assert job is not None
    line = arguments(job, child, Sampling(), vram="", ram="", only_file=None)
    assert "--prefix=ohwx man, " in line
    assert "--suffix=, photo" in line
    page.form.remember()
    assert desk.program.settings.get("batch_prefix") == "ohwx man, "


def test_a_row_opens_a_conversation_with_its_answer(desk: Desk, child: Path) -> None:
    page = finished_page(desk, child)
    page.table.activated.emit(page.filter.index(1, 0))
    desk.qtbot.waitUntil(lambda: desk.chat.conversation is not None, timeout=15_000)
    conversation = desk.chat.conversation
    assert conversation is not None
    assert [(t.question, t.answer) for t in conversation.path()] == [("What?", "new")]
    data = (child / "p1.png").read_bytes()
    desk.qtbot.waitUntil(lambda: desk.chat.picture == data, timeout=15_000)
    assert desk.chat.isVisible()


def test_the_folder_is_opened(desk: Desk, child: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()))
    page = finished_page(desk, child)
    page.folder_button.click()
    assert opened == [str(child)]
