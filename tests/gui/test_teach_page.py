"""The page Teach: what its command reports, losses as a curve, stop and continue."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtGui import QDesktopServices

from cogvlm2_lite.worker.client import EngineState
from gui.chat.dropped import DroppedContent
from gui.evaluate.page import EvaluatePage
from gui.teach.form import AIMS
from gui.teach.page import TeachPage
from gui.teach.run import Job, RunState, Sample, TeachRun, arguments, has_state, read_earlier
from tests.helpers.desk import Desk, Script

CHILD = """
import json, sys
def emit(event, **values): print(json.dumps({"event": event, **values}), flush=True)
words = " ".join(sys.argv)
if "bad" in words:
    emit("error", message="3 of 4 rows can't be used: 3 no answer.", hint="Correct them.")
    sys.exit(2)
if "cut" in words:
    sys.exit("Killed.")
emit("arguments", words=sys.argv[1:])
emit("planned", form="JSON", answers=36, pictures=30, held_out=4, replayed=9, skipped=2, steps=3,
     resumed=int("continued" in words), numbers=43008, answer_space=True,
     expected={"device": "cpu", "seconds": 2100.0, "peak_bytes": 6 * 2**30, "disk_bytes": 2**30})
if "--plan" in words:
    sys.exit(0)
emit("encoded", done=2, total=30, seconds_left=12.0)
emit("sample", step=0, number=0, question="Which rows?", expected="top", answer="A <b>red</b> one.")
emit("evaluated", step=0, loss=2.5, best=False)
for step in (1, 2, 3):
    emit("step", step=step, steps=3, epoch=1, loss=2.0 / step, rate=1.0, grad_norm=1.0, answers=12,
         tokens=99, seconds=1.0, seconds_left=60.0 * (3 - step))
    if sys.stdin.readline() in ("stop\\n", ""):
        emit("saved", step=step)
        emit("interrupted", step=step, saved=step)
        sys.exit(130)
emit("evaluated", step=3, loss=0.5, best=True)
emit("sample", step=3, number=0, question="Which rows?", expected="top", answer="top")
emit("notice", step=3, text="The held-out loss rises.")
emit("saved", step=3)
emit("finished", folder=sys.argv[3], asked=8, right=7, right_before=1, held_out=0.5,
     held_out_before=2.5, old=0.1, old_before=None)
"""
PLANNED: dict[str, Any] = {
    "event": "planned", "form": "JSON", "answers": 36, "pictures": 30, "held_out": 4,
    "replayed": 0, "skipped": 0, "steps": 200, "resumed": 0, "numbers": 43008,
    "answer_space": True,
}  # fmt: skip


def step(number: int, loss: float = 1.0) -> dict[str, Any]:
    return {"event": "step", "step": number, "steps": 200, "epoch": 1, "loss": loss,
            "seconds_left": 9.0}  # fmt: skip


def sample(number: int) -> dict[str, Any]:
    return {"event": "sample", "step": number, "number": 0, "question": "q", "expected": "e"}


def job(**changes: Any) -> Job:
    return Job(**{"data": Path("d"), "output": Path("o"), **changes})


def test_the_form_becomes_options_of_the_command() -> None:
    assert arguments(job(), Path("m")) == [
        "finetune", "m", "d", "o", "--json", "--control", "--preset=words",
    ]  # fmt: skip
    full = job(
        preset="both", epochs=2, replay=Path("old.jsonl"), share=30, question="What is it?",
        labels="zh", skips=True, restart=True,
    )  # fmt: skip
    assert arguments(full, Path("m"), vram="6GiB", ram="8GiB", plan=True) == [
        "finetune", "m", "d", "o", "--json", "--control", "--preset=both", "--epochs=2",
        "--replay=old.jsonl:0.3", "--ask=What is it?", "--labels=zh", "--vram=6GiB", "--ram=8GiB",
        "--plan", "--allow-skipped", "--restart",
    ]  # fmt: skip


def test_the_options_exist_and_every_aim_has_a_preset() -> None:
    from cogvlm2_lite.cli.finetune import build_parser
    from cogvlm2_lite.finetune.settings import PRESETS

    full = job(replay=Path("r"), epochs=1, question="q", labels="en", skips=True, restart=True)
    for aim in AIMS:
        assert aim.preset in PRESETS
        words = arguments(full, Path("m"), vram="6GiB", ram="8GiB", plan=True)[1:]
        assert build_parser().read(words).preset == "words"


def test_a_run_follows_the_events() -> None:
    run = TeachRun(job=job())
    run.apply_event(PLANNED)
    assert run.state is RunState.TEACHING
    run.apply_event({"event": "encoded", "done": 3, "total": 30, "seconds_left": 5.0})
    assert (run.state, run.prepared, run.seconds_left) == (RunState.PREPARING, (3, 30), 5.0)
    run.apply_event(step(1, 4.0))
    run.apply_event({"event": "evaluated", "step": 1, "loss": 3.0, "best": True, "old": 0.1})
    run.apply_event({"event": "saved", "step": 1})
    run.apply_event({**step(2), "loss": None})  # not a finite number
    assert (run.training, run.held_out, run.saved) == ([(1, 4.0)], [(1, 3.0)], 1)
    run.apply_event({"event": "interrupted", "step": 1, "saved": 1})
    assert (run.state, run.seconds_left) == (RunState.STOPPED, None)


def test_a_stop_before_the_first_state_says_nothing_of_a_step() -> None:
    run = TeachRun(job=job())
    run.apply_event(PLANNED)
    run.apply_event({"event": "interrupted", "step": 0, "saved": None})
    assert (run.state, run.saved) == (RunState.STOPPED, 0)


def test_unknown_events_are_ignored() -> None:
    run = TeachRun(job=job())
    run.apply_event({"event": "news", "why": "of a later version"})
    run.apply_event({})
    assert run.state is RunState.READING


def test_losses_before_a_stop_are_read_from_the_log(tmp_path: Path) -> None:
    assert read_earlier(tmp_path).training == ()
    assert not has_state(tmp_path)
    log = tmp_path / "training" / "log.jsonl"
    log.parent.mkdir()
    (log.parent / "state.json").write_text("{}")
    lines = [
        {"step": 1, "loss": 4.0}, {"step": 2, "loss": 3.0}, {"step": 2, "held_out": 2.5},
        {"step": 3, "loss": 2.0}, {"step": 3, "text": "a notice"}, [], None,
    ]  # fmt: skip
    log.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 4, "lo')
    losses = read_earlier(tmp_path)
    assert losses.training == ((1, 4.0), (2, 3.0), (3, 2.0))
    assert losses.held_out == ((2, 2.5),)
    assert has_state(tmp_path)
    run = TeachRun(job=job())
    run.apply_event({**PLANNED, "resumed": 2})
    run.apply_event(step(3, 1.5))  # before the log was read; its third step is repeated
    before = {**sample(0), "answer": "wrong"}
    (log.parent / "samples.jsonl").write_text(f"{json.dumps(before)}\n3\n" + '{"number"')
    run.apply_event({**sample(3), "answer": "right"})
    run.add_earlier(read_earlier(tmp_path))
    assert run.samples == {0: Sample(question="q", expected="e", before="wrong", after="right")}
    assert run.training == [(1, 4.0), (2, 3.0), (3, 1.5)]
    assert run.held_out == [(2, 2.5)]


def open_page(desk: Desk) -> TeachPage:
    desk.program.window.show_page("teach")
    page = desk.program.window.page("teach")
    assert isinstance(page, TeachPage)
    return page


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command is a script that waits for a line after each step."""
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    monkeypatch.setattr("gui.background.json_lines.PROGRAM", (sys.executable, str(script)))
    return script


def start(desk: Desk, name: str = "rows") -> TeachPage:
    desk.open_demo()
    page = open_page(desk)
    page.form.data.setText(f"/d/{name}/train.jsonl")
    page.start()
    desk.qtbot.waitUntil(lambda: "Step 1 of 3" in page.status.text(), timeout=10_000)
    return page


def cells(page: TeachPage) -> list[list[str]]:
    table = page.samples
    items = [[table.item(r, c) for c in range(4)] for r in range(table.rowCount())]
    return [[item.text() if item is not None else "" for item in row] for row in items]


def test_the_page_asks_for_what_it_needs(desk: Desk, child: Path) -> None:
    page = open_page(desk)
    page.start()
    assert page.status.text() == "Choose pictures with answers first."
    page.form.data.setText("/d/rows")
    page.start()
    assert page.status.text() == "Open a model first, on the Chat page."
    assert not page.running


def test_the_adapter_gets_a_folder_named_after_the_data(desk: Desk) -> None:
    form, home = open_page(desk).form, desk.program.data / "adapters"
    for data, name in (
        ("/d/rows/train.jsonl", "rows-train"), ("/d/my captions", "my captions"), ("/", "adapter"),
        ("/d/" + "x" * 200, "x" * 100),
    ):  # fmt: skip
        form.data.setText(data)
        assert form.target == home / name
        assert form.output.placeholderText() == str(home / name)
    form.output.setText("/elsewhere/mine")
    assert form.target == Path("/elsewhere/mine")


def test_the_plan_is_shown_and_nothing_is_trained(desk: Desk, child: Path) -> None:
    desk.open_demo()
    page = open_page(desk)
    page.form.data.setText("/d/rows")
    page.show_plan()
    assert page.form.isVisible()
    desk.qtbot.waitUntil(lambda: not page.running)
    assert page.status.text() == "This is the plan. Nothing was trained."
    assert page.plan.text() == (
        "36 answers about 30 pictures to learn, 4 held out. 9 old answers mixed in. 2 rows can't "
        "be used; training/skipped.jsonl says why. 43,008 numbers to train, in 3 steps. About "
        "35 min 00 s, calculated; 6.00 GiB of memory, 1.00 GiB of disk."
    )
    assert not page.card.isVisible()
    desk.qtbot.waitUntil(lambda: desk.engine.state is EngineState.READY)


def test_a_run_shows_losses_and_answers_and_opens_its_report(
    desk: Desk, child: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()))
    page = start(desk)
    desk.qtbot.waitUntil(lambda: desk.engine.state is EngineState.EMPTY)  # one model, not two
    assert page.status.text() == (
        "Step 1 of 3, pass 1, loss 2.000, held-out loss 2.500. 2 min 00 s left."
    )
    assert not page.form.isVisible()
    assert cells(page) == [["Which rows?", "top", "A <b>red</b> one.", "…"]]
    page.command.send_line("\n")
    desk.qtbot.waitUntil(lambda: "Step 3 of 3" in page.status.text())
    page.command.send_line("")
    desk.qtbot.waitUntil(lambda: not page.running)
    target = desk.program.data / "adapters" / "rows-train"
    assert page.status.text() == (
        f"Finished: {target}. 7 of 8 held-out answers are right, 1 before. Held-out loss 0.500, "
        "2.500 before."
    )
    assert page.notes.text() == "The held-out loss rises."
    assert cells(page) == [["Which rows?", "top", "A <b>red</b> one.", "top"]]
    assert page.curve.accessibleDescription() == (
        "The training loss is 0.667 at step 3. The held-out loss is 0.500 at step 3."
    )
    assert page.bar.value() == page.bar.maximum() == 3
    page.report_button.click()
    page.folder_button.click()
    assert opened == [str(target / "report.html"), str(target)]
    desk.qtbot.waitUntil(lambda: desk.engine.state is EngineState.READY)


def test_a_stop_saves_and_the_next_start_continues(desk: Desk, child: Path, tmp_path: Path) -> None:
    out = tmp_path / "continued"
    (out / "training").mkdir(parents=True)
    desk.open_demo()
    page = open_page(desk)
    page.form.data.setText("/d/rows")
    page.form.output.setText(str(out))
    page.form.restart.setChecked(True)
    assert page.start_button.text() == "Start"
    page.start()
    assert not page.form.restart.isChecked()
    desk.qtbot.waitUntil(lambda: "Step 1 of 3" in page.status.text(), timeout=10_000)
    (out / "training" / "state.json").write_text("{}")
    page.stop()
    assert page.status.text() == "Stopping after this step…"
    assert not page.stop_button.isEnabled()
    desk.qtbot.waitUntil(lambda: not page.running)
    assert page.status.text() == "Stopped after step 1, and saved. Continue when you like."
    desk.qtbot.waitUntil(lambda: page.start_button.text() == "Continue")
    page.form.output.setText(str(tmp_path / "new"))
    desk.qtbot.waitUntil(lambda: page.start_button.text() == "Start")


def test_the_curve_of_a_continued_run_has_its_first_part(
    desk: Desk, child: Path, tmp_path: Path
) -> None:
    log = tmp_path / "continued" / "training" / "log.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text('{"step": 1, "loss": 7.0}\n')
    desk.open_demo()
    page = open_page(desk)
    page.form.data.setText("/d/rows")
    page.form.output.setText(str(tmp_path / "continued"))
    page.start()
    run = page._run
    assert run is not None
    desk.qtbot.waitUntil(lambda: len(run.training) > 1, timeout=10_000)
    assert run.training[0] == (1, 7.0)
    assert "Continues after step 1." in page.plan.text()
    page.stop()
    desk.qtbot.waitUntil(lambda: not page.running)


@pytest.mark.parametrize(
    ("name", "text"),
    [("bad", "3 of 4 rows can't be used: 3 no answer. Correct them."), ("cut", "Killed.")],
)
def test_an_error_of_the_command_is_a_sentence(
    name: str, text: str, desk: Desk, child: Path
) -> None:
    desk.open_demo()
    page = open_page(desk)
    page.form.data.setText(f"/d/{name}")
    page.start()
    desk.qtbot.waitUntil(lambda: page.status.text() == text)
    desk.qtbot.waitUntil(lambda: not page.running)
    assert page.status.text() == text
    assert page.form.isVisible()


def test_nothing_starts_while_the_chat_answers(desk: Desk, child: Path, script: Script) -> None:
    script.hold = True
    desk.open_demo()
    desk.chat.composer.setPlainText("Tell me")
    desk.chat.send()
    desk.qtbot.waitUntil(lambda: desk.program.engine.client.answering)
    page = open_page(desk)
    page.form.data.setText("/d/rows")
    page.show_plan()
    assert "still writing an answer" in page.status.text()
    desk.chat.stop()
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)


def test_only_one_page_uses_the_memory(desk: Desk, child: Path) -> None:
    page = start(desk)
    desk.program.window.show_page("evaluate")
    other = desk.program.window.page("evaluate")
    assert isinstance(other, EvaluatePage)
    other.start()
    assert not other.running
    assert "a training run is in progress" in other.status.text()
    page.receive([Path("/d/other")])
    assert page.form.data.text() == "/d/rows/train.jsonl"
    page.stop()
    desk.qtbot.waitUntil(lambda: not page.running)


def test_a_drop_on_the_page_is_the_data(desk: Desk, tmp_path: Path) -> None:
    page = open_page(desk)
    for path in (tmp_path, tmp_path / "train.JSONL"):
        desk.program.window.take(DroppedContent(files=(path,)))
        assert page.form.data.text() == str(path)
        assert page.isVisible()
    desk.program.window.take(DroppedContent(files=(tmp_path / "a.png",)))
    assert desk.chat.isVisible()  # a picture without an answer


def test_a_rebuilt_window_does_not_end_a_run(desk: Desk, child: Path) -> None:
    before = start(desk)
    command = before.command
    desk.program.window.refresh()
    desk.qtbot.waitUntil(lambda: desk.program.window.page("teach") is not before)
    page = open_page(desk)
    assert page.command is command
    assert page.form.data.text() == "/d/rows/train.jsonl"
    assert cells(page)[0][0] == "Which rows?"
    page.stop()
    desk.qtbot.waitUntil(lambda: not page.running)
    assert page.status.text().startswith("Stopped after step 1")


def test_a_closed_window_lets_the_step_be_saved(desk: Desk, child: Path, tmp_path: Path) -> None:
    child.write_text(CHILD.replace('emit("saved", step=step)', 'open(sys.argv[4], "w").close()'))
    desk.open_demo()
    page = open_page(desk)
    page.form.data.setText("/d/rows")
    page.form.output.setText(str(tmp_path / "saved"))
    page.start()
    desk.qtbot.waitUntil(lambda: "Step 1 of 3" in page.status.text(), timeout=10_000)
    desk.program.window.close()
    assert (tmp_path / "saved").is_file()
    assert not page.running


def test_the_form_is_remembered(desk: Desk, child: Path) -> None:
    page = open_page(desk)
    page.form.aim.setCurrentIndex(page.form.aim.findData("thing"))
    page = start(desk)
    assert page._run is not None
    assert page._run.job.preset == "both"
    settings = desk.program.settings
    assert (settings.get("teach_data"), settings.get("teach_aim")) == (
        "/d/rows/train.jsonl", "thing",
    )  # fmt: skip
    page.stop()
    desk.qtbot.waitUntil(lambda: not page.running)


def test_the_curve_draws_any_losses(desk: Desk) -> None:
    curve = open_page(desk).curve
    for training, held_out in (
        ([], []),
        ([(1, math.nan)], [(0, math.inf)]),
        ([(1, 0.0)], [(1, 0.0)]),
        ([(n, 3.0 / n) for n in range(1, 5000)], [(0, 0.0004), (4999, 1e9)]),
    ):
        curve.show_losses(training, held_out, 5000)
        curve.resize(300, 160)
        assert not curve.grab().isNull()
