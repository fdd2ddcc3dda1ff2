"""The Evaluate page: what its command reports, scores as cards, pause and cancel."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QFrame, QLabel, QPushButton

from cogvlm2_lite.worker.client import EngineState
from gui.batch.page import BatchPage
from gui.data.run_state import RunState
from gui.evaluate.page import EvaluatePage
from gui.evaluate.run import EvaluationRun, Job, arguments
from tests.helpers.desk import Desk, Script

CHILD = """
import json, sys
def emit(event, **values): print(json.dumps({"event": event, **values}), flush=True)
if "cut" in " ".join(sys.argv):
    sys.exit("The disk is full.")
emit("arguments", words=sys.argv[1:])
key = {"model": "/m/my-nf4", "data": "demo-vqa"}
emit("plan", **key, questions=3, known=1, seconds=90.0, notices=["Two rows are odd."])
emit("loading", model="my-nf4")
for done in (2, 3):
    emit("answered", **key, done=done, failed=done - 2, seconds_left=30.0 * (3 - done))
    order = sys.stdin.readline().strip()
    if order == "stop":
        emit("finished", total=3, failed=0, left=3 - done)
        sys.exit(1)
    if order == "pause":
        emit("paused")
        assert sys.stdin.readline().strip() == "resume"
        emit("resumed")
emit("scored", **key, benchmark="vqa", value=66.7, low=20.8, high=93.9, unit="points", hits=2,
     asked=3, of=5, protocol="vlmevalkit", report=sys.argv[0])
emit("compared", data="demo-vqa", a="/m/bf16", b="/m/my-nf4", loss=0.0, low=-1.4, high=2.3,
     changed=0.2, verdict="not decided with 3 questions", questions=3, needed=4321)
emit("finished", total=3, failed=1, left=0)
"""
SCORED: dict[str, Any] = {
    "event": "scored", "benchmark": "textvqa", "data": "textvqa", "model": "/m/a", "value": 84.25,
    "low": 80.0, "high": 88.0, "unit": "points", "hits": None, "asked": 9, "of": 9,
    "protocol": "vlmevalkit", "report": "r.html",
}  # fmt: skip
COMPARED: dict[str, Any] = {
    "event": "compared", "data": "textvqa", "a": "/m/bf16", "b": "/m/a", "loss": 1.6, "low": 0.1,
    "high": 3.5, "changed": 0.1, "verdict": "a loss is shown", "questions": 9, "needed": None,
}  # fmt: skip


def plan(model: str, data: str, questions: int, known: int = 0) -> dict[str, object]:
    return {"event": "plan", "model": model, "data": data, "questions": questions,
            "known": known, "seconds": 10.0, "notices": ["Odd."]}  # fmt: skip


def test_a_run_adds_up_models_and_benchmarks() -> None:
    run = EvaluationRun(job=Job(benchmarks=("textvqa",), output=Path("o")))
    for model in ("a", "b"):
        run.apply_event(plan(model, "textvqa", 10, known=4))
    assert (run.total, run.done, run.seconds_left, run.notes) == (20, 8, 20.0, ("Odd.",))
    run.apply_event({"event": "loading", "model": "a"})
    assert run.state is RunState.LOADING
    answered = {"event": "answered", "model": "a", "data": "textvqa", "done": 9, "failed": 2}
    run.apply_event({**answered, "seconds_left": 1.0})
    assert (run.state, run.done, run.failed, run.seconds_left) == (RunState.ASKING, 13, 2, 11.0)
    run.apply_event(SCORED)
    assert run.scored[0].title == "TextVQA"
    run.apply_event({"event": "finished", "total": 20, "failed": 2, "left": 1})
    assert (run.state, run.seconds_left) == (RunState.STOPPED, None)


def test_a_command_that_dies_leaves_its_reason() -> None:
    run = EvaluationRun(job=Job(benchmarks=("textvqa",), output=Path("o")))
    run.process_ended("Killed.")
    assert (run.state, run.error) == (RunState.FAILED, "Killed.")


def test_unknown_events_are_ignored() -> None:
    run = EvaluationRun(job=Job(benchmarks=("textvqa",), output=Path("o")))
    run.apply_event({"event": "overall", "loss": 1.0})
    run.apply_event({})
    assert run.state is RunState.READING


def test_one_benchmark_and_several_write_to_the_same_folders() -> None:
    output = Path("out")
    one = Job(benchmarks=("/d/my set.tsv",), output=output)
    several = Job(
        benchmarks=("textvqa", "mmmu"), output=output, data=Path("d"), limit=50,
        protocol="vqa-template", against=Path("bf16"), restart=True,
    )  # fmt: skip
    assert arguments(one, Path("m"), "nf4", vram="", ram="") == [
        "evaluate", "m", "/d/my set.tsv", "--json", "--control",
        f"--output={output / 'nf4' / 'my set'}",
    ]  # fmt: skip
    assert arguments(one, Path("m"), "nf4", vram="", ram="", adapter=Path("forms"))[-1] == (
        "--adapter=forms"
    )
    assert arguments(several, Path("m"), "nf4", vram="6GiB", ram="8GiB") == [
        "evaluate", "m", "textvqa", "mmmu", "--json", "--control", f"--output={output / 'nf4'}",
        "--data=d", "--limit=50", "--protocol=vqa-template", "--against=bf16", "--vram=6GiB",
        "--ram=8GiB", "--restart",
    ]  # fmt: skip


def open_page(desk: Desk) -> EvaluatePage:
    desk.program.window.show_page("evaluate")
    page = desk.program.window.page("evaluate")
    assert isinstance(page, EvaluatePage)
    return page


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command is a script that does one step for each order."""
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    monkeypatch.setattr("gui.background.json_lines.PROGRAM", (sys.executable, str(script)))
    return script


def start(desk: Desk) -> EvaluatePage:
    desk.open_demo()
    page = open_page(desk)
    page.start()
    desk.qtbot.waitUntil(lambda: page.pause_button.isEnabled(), timeout=10_000)
    return page


def texts(page: EvaluatePage) -> list[str]:
    """Return the texts of the cards, from the top."""
    cards = [card for card in page.findChildren(QFrame) if card.property("kind") == "card"]
    return [label.text() for c in cards if c.isVisible() for label in c.findChildren(QLabel)]


def test_the_page_asks_for_what_it_needs(desk: Desk, child: Path) -> None:
    page = open_page(desk)
    for box in page.form.boxes.values():
        box.setChecked(False)
    page.start()
    assert page.status.text() == "Choose a benchmark first."
    page.form.boxes["textvqa"].setChecked(True)
    page.start()
    assert page.status.text() == "Open a model first, on the Chat page."
    assert not page.running


def test_a_data_file_needs_no_choice_of_a_benchmark(desk: Desk, child: Path) -> None:
    page = open_page(desk)
    page.form.data.setText(str(child))
    assert not page.form.boxes["textvqa"].isEnabled()
    job = page.form.job()
    assert job is not None
    assert (job.benchmarks, job.data) == ((str(child),), None)
    page.form.data.setText(str(child.parent))
    assert page.form.boxes["textvqa"].isEnabled()
    job = page.form.job()
    assert job is not None
    assert (job.benchmarks, job.data) == (("demo-vqa",), child.parent)


def test_nothing_starts_while_the_chat_answers(desk: Desk, child: Path, script: Script) -> None:
    script.hold = True
    desk.open_demo()
    desk.chat.composer.setPlainText("Tell me")
    desk.chat.send()
    desk.qtbot.waitUntil(lambda: desk.program.engine.client.answering)
    page = open_page(desk)
    page.start()
    assert "still writing an answer" in page.status.text()
    desk.chat.stop()
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)


def test_a_run_is_paused_scored_and_its_report_opened(
    desk: Desk, child: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()))
    page = start(desk)
    desk.qtbot.waitUntil(lambda: desk.engine.state is EngineState.EMPTY)  # one model, not two
    assert page.status.text() == "2 of 3 questions. 30.0 s left."
    assert page.notes.text() == "Two rows are odd."
    page.pause_or_resume()
    assert "Pausing after the current questions" in page.status.text()
    desk.qtbot.waitUntil(lambda: "Paused" in page.status.text())
    page.pause_or_resume()
    page.command.send_line("")
    desk.qtbot.waitUntil(lambda: not page.running)
    desk.qtbot.waitUntil(lambda: desk.engine.state is EngineState.READY)
    desk.qtbot.waitUntil(lambda: len(texts(page)) == 3)
    assert page.status.text() == "3 of 3 questions, 1 failed."
    assert page.bar.value() == page.bar.maximum() == 3
    assert texts(page) == [
        "demo-vqa: 66.7 points",
        "my-nf4; 95 % interval 20.8 to 93.9; 3 of 5 questions; protocol vlmevalkit",
        "Not decided with 3 questions. About 4321 questions would decide it. Loss of my-nf4 "
        "against bf16: 0.0 points, 95 % interval -1.4 to +2.3. 20.0 % of the answers have another "
        "text.",
    ]
    (button,) = (b for b in page.findChildren(QPushButton) if b.text() == "Open the report")
    button.click()
    assert opened == [str(child)]
    assert page.start_button.text() == "Start"


def test_the_published_number_is_marked_and_ungraded_answers_are_counted(desk: Desk) -> None:
    page = open_page(desk)
    page._run = EvaluationRun(job=Job(benchmarks=("textvqa",), output=Path("o")))
    for event in (
        SCORED, COMPARED,
        {**SCORED, "benchmark": "mmvet", "data": "mmvet", "value": None, "low": None, "high": None},
        {**SCORED, "benchmark": "ocrbench", "data": "ocrbench", "unit": "hits", "hits": 7},
        {**SCORED, "benchmark": "mmbench", "data": "mmbench", "value": None, "low": None},
        {**COMPARED, "data": "ocrbench", "verdict": "not graded", "changed": 0.125},
    ):  # fmt: skip
        page._on_event(event)
    desk.qtbot.waitUntil(lambda: len(texts(page)) > 0)
    shown = texts(page)
    assert shown[0] == "TextVQA: 84.2 points"
    assert shown[2].startswith("Published, protocol unknown: 84.2 (cogvlm2-llama3-chat-19B)")
    assert shown[3].startswith("A loss is shown. Loss of a against bf16: +1.6 points")
    assert "MM-Vet: 9 answered, not graded (needs a GPT-4 judge)" in shown
    assert "OCRBench: 7 of 9 right" in shown
    assert any("95 % interval 80.0 % to 88.0 %" in text for text in shown)
    assert "MMBench: 9 answered, no score yet" in shown
    assert "12.5 % of the answers have another text." in shown


def test_a_name_is_never_markup(desk: Desk) -> None:
    page = open_page(desk)
    page._run = EvaluationRun(job=Job(benchmarks=("x",), output=Path("o")))
    page._on_event({**SCORED, "benchmark": "vqa", "data": "<b>x", "model": "/m/<img src=x>"})
    for label in page.cards.itemAt(0).widget().findChildren(QLabel):
        assert label.textFormat() is Qt.TextFormat.PlainText


def test_a_cancel_ends_the_work_and_the_next_start_resumes(desk: Desk, child: Path) -> None:
    page = start(desk)
    page.cancel()
    assert page.status.text() == "Stopping…"
    desk.qtbot.waitUntil(lambda: not page.running)
    assert page.start_button.text() == "Resume"
    assert page.status.text() == "2 of 3 questions."


def test_a_command_that_dies_is_a_sentence(desk: Desk, child: Path) -> None:
    desk.open_demo()
    page = open_page(desk)
    page.form.output.setText("cut")
    page.start()
    desk.qtbot.waitUntil(lambda: page.status.text() == "The disk is full.")
    assert not page.running


def test_an_error_of_the_command_is_shown_with_its_hint(desk: Desk) -> None:
    page = open_page(desk)
    page._run = EvaluationRun(job=Job(benchmarks=("textvqa",), output=Path("o")))
    page._on_event(json.loads('{"event": "error", "message": "No data.", "hint": "Get it."}'))
    assert page.status.text() == "No data. Get it."


def test_a_rebuilt_window_does_not_end_an_evaluation(desk: Desk, child: Path) -> None:
    before = start(desk)
    before.form.limit.setValue(7)
    command = before.command
    desk.program.window.refresh()
    desk.qtbot.waitUntil(lambda: desk.program.window.page("evaluate") is not before)
    page = open_page(desk)
    assert page.command is command
    assert page.running
    assert page.form.limit.value() == 7
    command.send_line("\n")
    desk.qtbot.waitUntil(lambda: not page.running)
    assert page.status.text() == "3 of 3 questions, 1 failed."
    desk.qtbot.waitUntil(lambda: texts(page)[:1] == ["demo-vqa: 66.7 points"])


def test_only_one_page_uses_the_memory(desk: Desk, child: Path) -> None:
    page = start(desk)
    desk.program.window.show_page("batch")
    batch = desk.program.window.page("batch")
    assert isinstance(batch, BatchPage)
    batch.form.folder.setText(str(child.parent))
    batch.form.question.setPlainText("What?")
    batch.start()
    assert not batch.running
    assert "an evaluation or a training run is in progress" in batch.status.text()
    page.command.send_line("\n")
    desk.qtbot.waitUntil(lambda: not page.running)


def test_everything_is_asked_again_once(desk: Desk, child: Path) -> None:
    page = open_page(desk)
    page.form.restart.setChecked(True)
    page = start(desk)
    assert page._run is not None
    assert page._run.job.restart
    assert not page.form.restart.isChecked()
    page.cancel()
    desk.qtbot.waitUntil(lambda: not page.running)


def test_the_form_is_remembered(desk: Desk, child: Path) -> None:
    page = start(desk)
    assert desk.program.settings.get("evaluate_benchmarks") == ["demo-vqa"]
    page.cancel()
    desk.qtbot.waitUntil(lambda: not page.running)
