"""What a person sees of a training run: the terminal, lines of JSON, the report, TensorBoard."""

from __future__ import annotations

import base64
import json
import math
import re
from io import StringIO
from pathlib import Path

import pytest

from cogvlm2_lite.cli.braille import draw_curve
from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.finetune_output import Reporter
from cogvlm2_lite.finetune.curves import EventFile
from cogvlm2_lite.finetune.events import Evaluated, Interrupted, Notice, Sampled, Saved, StepDone
from cogvlm2_lite.finetune.report import Progress, loss_file, render
from cogvlm2_lite.text import Text
from tests.helpers.finetune import FINETUNE


def test_tensorboard_reads_the_file_that_is_written(tmp_path: Path) -> None:
    """The golden has bytes, and what tensorboard 2.21 read from them."""
    golden = json.loads((FINETUNE / "tensorboard.json").read_text())
    log, file = golden["log"], tmp_path / "events.out.tfevents.0"
    events = EventFile(file)
    for count in (2, 2, 3, len(log)):  # it grows while TensorBoard reads it
        events.update(log[:count])
    assert file.read_bytes() == base64.b64decode(golden["file"])
    losses = [[e["step"], e["loss"]] for e in log if e.get("loss") is not None]
    assert [each[:2] for each in golden["scalars"]["Train/Loss"]] == [
        [step, pytest.approx(loss, rel=1e-6)] for step, loss in losses
    ]
    held_out = [e for e in log if "held_out" in e]
    assert golden["scalars"]["Eval/Perplexity"] == [
        [e["step"], pytest.approx(math.exp(e["held_out"]), rel=1e-6), e["time"]] for e in held_out
    ]
    assert set(golden["scalars"]) >= {
        "Train/Loss", "Train/Epoch_Loss", "Train/Perplexity", "Eval/Epoch_Loss", "Eval/Perplexity",
        "Train/LearningRate", "Train/GradNorm", "Train/TokensPerSecond",
    }  # fmt: skip
    again = EventFile(file)  # another process continues the run
    again.update(log)
    assert file.read_bytes() == base64.b64decode(golden["file"])


def step(number: int, loss: float) -> StepDone:
    return StepDone(
        step=number, steps=72, epoch=2, loss=loss, rate=1e-4, grad_norm=loss, answers=16,
        tokens=1940, labels=64, seconds=1.0, seconds_left=1080.0, peak_bytes=1, held_out=0.52,
    )  # fmt: skip


def show(*, as_json: bool, curve: bool = False) -> tuple[Reporter, StringIO, StringIO]:
    out, err = StringIO(), StringIO()
    return Reporter(Console(out, err), as_json=as_json, curve=curve), out, err


def test_a_step_is_one_line_with_speed_and_time() -> None:
    report, out, err = show(as_json=False)
    report.learnt(Saved(step=33))
    report.learnt(step(34, 0.41))
    assert err.getvalue() == (
        "step 34 of 72  epoch 2   loss 0.41   held-out 0.52   1,940 tokens/s, 960 answers/min   "
        "18 min 00 s left   saved just now\n"
    )
    assert out.getvalue() == ""


def test_events_are_strict_json() -> None:
    report, out, _ = show(as_json=True)
    for event in (
        step(1, math.nan), Evaluated(step=1, loss=math.inf, best=False), Saved(step=1),
        Notice(step=1, text=Text("{file} is damaged.", file="\udcff\n")),
        Interrupted(step=1, saved=None),
    ):  # fmt: skip
        report.learnt(event)

    def refuse(word: str) -> None:
        raise AssertionError(word)

    lines = [json.loads(line, parse_constant=refuse) for line in out.getvalue().splitlines()]
    assert [line["event"] for line in lines] == [
        "step", "evaluated", "saved", "notice", "interrupted"
    ]  # fmt: skip
    assert lines[0]["loss"] is None
    assert lines[0]["answers_per_minute"] == 960


def test_before_has_the_loss_and_the_share_of_right_answers() -> None:
    report, out, _ = show(as_json=False)
    for number, answer in enumerate(["Yes ", "no"]):
        report.learnt(
            Sampled(
                step=0, number=number, picture="p", question="q", expected="yes", answer=answer,
                ended=True, tokens=2,
            )
        )  # fmt: skip
    report.learnt(Evaluated(step=0, loss=1.42, best=False))
    assert out.getvalue() == "before: held-out loss 1.4200, exact 50% of 2 answers\n"


@pytest.mark.parametrize("points", [[], [(1.0, 2.0)], [(1, 1), (2, 1)], [(1, 5), (9, 0.1)]])
def test_a_curve_of_any_points_can_be_drawn(points: list[tuple[float, float]]) -> None:
    lines = draw_curve(points, width=10, height=3)
    assert len(lines) == (3 if points else 0)
    assert all(re.fullmatch(r"[ \d.]*[\u2800-\u28ff]*", line) for line in lines)


def test_a_falling_line_goes_from_the_upper_left_to_the_lower_right() -> None:
    assert draw_curve([(0, 1), (1, 0)], width=4, height=2) == ["1 ⠑⢄", "0 \u2800\u2800⠑⢄"]


def progress(steps: int) -> Progress:
    log = [{"step": 0, "held_out": 3.0, "best": False}]
    log += [{"step": n, "loss": 3 / n, "seconds": 1.0, "epoch": 1} for n in range(1, steps + 1)]
    log[2]["loss"] = None  # type: ignore[assignment]
    log.append({"step": steps, "held_out": 0.5, "best": True, "old": 0.1})
    answers = [("<script>alert(1)</script>", 0), ("yes", steps)]
    samples = [
        {
            "step": at, "number": 0, "picture": "p", "question": "<b>?", "expected": "Yes",
            "answer": text, "ended": True, "tokens": 2,
        }
        for text, at in answers
    ]  # fmt: skip
    return Progress(log=log, samples=samples, steps=steps, best=steps)


def test_the_report_is_one_file_without_scripts_and_network() -> None:
    page = render("<A>", {"model": "<m>"}, progress(30), [("no <answer>", 2)], ["use <it>"])
    assert "<script" not in page
    assert not re.search(r"""(src|href)\s*=|url\(|@import""", page)
    for wanted in (
        "&lt;A&gt;", "&lt;m&gt;", "no &lt;answer&gt;", "use &lt;it&gt;", "&lt;script&gt;",
        "0.5000", "3.0000 before", "1 of 1", "exact match", "ROUGE-L", "Loss of old abilities",
    ):  # fmt: skip
        assert wanted in page
    assert "nan" not in page.lower().replace("finance", "")


def test_a_long_run_has_a_small_chart() -> None:
    chart = loss_file(progress(20_000))
    assert len(chart) < 20_000
    assert chart.startswith("<svg xmlns=")
    assert loss_file(Progress(log=[], samples=[], steps=5, best=0)) == ""
