"""Training runs on the demo model: they learn, can be stopped anywhere, and say what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import cogvlm2_lite.finetune.prepare as prepare_module
from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.finetune import main
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.events import Cancel
from cogvlm2_lite.finetune.data import Example, split, steps_of_epoch, talks
from cogvlm2_lite.finetune.events import Evaluated, Interrupted, StepDone
from cogvlm2_lite.finetune.known import KnownPictures
from cogvlm2_lite.finetune.prepare import Prepared, prepare
from cogvlm2_lite.finetune.settings import PRESETS, TrainingSettings
from cogvlm2_lite.finetune.task import TrainingTask
from tests.helpers.finetune import FINETUNE

DEMO = model_folder("demo")
ROOT = Path(__file__).parents[2]
ADAPTER = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 drawn pictures with a question that the demo model never saw."""
    folder = tmp_path_factory.mktemp("rows")
    with tarfile.open(FINETUNE / "rows.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    file = folder / "rows" / "train.jsonl"
    file.write_text("".join(file.read_text("utf-8").splitlines(keepends=True)[:72]), "utf-8")
    return file


@pytest.fixture(scope="module")
def few(rows: Path) -> Path:
    file = rows.with_name("few.jsonl")
    file.write_text("".join(rows.read_text("utf-8").splitlines(keepends=True)[:8]), "utf-8")
    return file


def task(data: Path, out: Path, **changes: Any) -> TrainingTask:
    settings = TrainingSettings(**{"rank": 4, "epochs": 2, "step": 3, **changes.pop("s", {})})
    return TrainingTask(
        model=DEMO, data=data, out=out, settings=settings, **{"answer_space": "yes", **changes}
    )


def files(out: Path) -> dict[str, bytes]:
    found = {
        str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.is_file()
    }
    log = found["training/log.jsonl"].decode().splitlines()
    measured = {"seconds", "time", "peak_bytes", "computed"}
    timeless = [{k: v for k, v in json.loads(line).items() if k not in measured} for line in log]
    found["training/log.jsonl"] = json.dumps(timeless).encode()
    return {name: data for name, data in found.items() if not name.startswith(".")}


def test_the_demo_model_learns_a_question_it_never_saw(rows: Path, tmp_path: Path) -> None:
    made = prepare(
        task(rows, tmp_path / "out", s={"rank": 16, "epochs": 3, "step": 8}, answer_space="auto")
    )
    assert made.space  # the demo model was trained with a space before answers
    assert made.space_losses is not None
    assert made.space_losses[1] < made.space_losses[0]
    before = made.run.held_out_loss()
    events = list(made.run.go(Cancel()))
    losses = [event.loss for event in events if isinstance(event, Evaluated)]
    assert before > 4
    assert losses[-1] < 1
    steps = [event for event in events if isinstance(event, StepDone)]
    # A picture's prefix is computed once, so later epochs have fewer tokens.
    first, last = (sum(s.tokens for s in steps if s.epoch == epoch) for epoch in (1, 3))
    assert first > last > 0
    assert [step.step for step in steps] == list(range(1, len(made.run.plan) + 1))
    own = json.loads((tmp_path / "out" / "cogvlm2_lite_adapter.json").read_text())
    assert own["acts_on"] == "behind the picture"
    assert own["answer_space"] is True
    assert own["base"]["source_fingerprint"]


def stop_after(made: Prepared, events: int) -> None:
    work = made.run.go(Cancel())
    for _ in range(events):
        next(work, None)
    work.close()  # as a kill: nothing else is saved


def test_a_run_that_is_stopped_anywhere_ends_with_the_same_files(few: Path, tmp_path: Path) -> None:
    whole = prepare(task(few, tmp_path / "whole", save_every=2))
    list(whole.run.go(Cancel()))
    for events in (1, 2, 4, 3):
        stop_after(prepare(task(few, tmp_path / "stopped", save_every=2)), events)
    last = prepare(task(few, tmp_path / "stopped", save_every=2))
    assert last.resumed > 0
    list(last.run.go(Cancel()))
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


def test_a_cancelled_run_saves_and_goes_on(few: Path, tmp_path: Path) -> None:
    made, cancel = prepare(task(few, tmp_path / "out")), Cancel()
    events = []
    for event in made.run.go(cancel):
        events.append(event)
        if isinstance(event, StepDone):
            cancel.set()
    assert events[-1] == Interrupted(step=1, saved=1)
    again = prepare(task(few, tmp_path / "out"))
    assert again.resumed == 1


def test_what_is_stored_of_pictures_does_not_change_a_bit(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(name: str, **changes: Any) -> dict[str, bytes]:
        made = prepare(task(few, tmp_path / name, **changes))
        list(made.run.go(Cancel()))
        found = files(tmp_path / name)
        return {each: data for each, data in found.items() if "/cache/" not in each}

    shared = tmp_path / "cache"
    without = train("without", cache_bytes=0)
    assert not (tmp_path / "without" / "training" / "cache").exists()
    assert train("with", cache=shared) == without
    stored = sorted(shared.iterdir())
    assert len(stored) == 8  # features; there is RAM for the prefixes
    stored[0].write_bytes(stored[0].read_bytes()[:-1])
    stored[1].unlink()
    assert train("default", cache=shared) == without
    assert sorted(shared.iterdir()) == stored
    # Without RAM for it, the prefixes are read from the disk, too.
    monkeypatch.setattr(KnownPictures, "resize", lambda self, limit_bytes: None)
    assert train("disk", cache=tmp_path / "all") == without
    assert len(list((tmp_path / "all").glob("prefix-*"))) == 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kill_9_at_random_moments_leaves_the_same_files(few: Path) -> None:
    """`benchmarks/finetune_kills.py` does it 25 times."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.finetune_kills", str(few), "--kills", "2"],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["kills"] == 2


def test_a_folder_of_other_settings_is_refused_by_the_first_difference(
    few: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    prepare(task(few, out, s={"rank": 8}))
    begun = prepare(task(few, out))  # nothing is saved, so nothing can be lost
    list(begun.run.go(Cancel()))
    with pytest.raises(UsageError, match="a run with rank = 4, not 8"):
        prepare(task(few, out, s={"rank": 8}))
    with pytest.raises(UsageError, match="a run with data = "):
        prepare(task(few, out, held_out="3"))
    assert prepare(task(few, out, s={"rank": 8}, restart=True)).resumed == 0


def run(*argv: str) -> tuple[int, str, str]:
    out, err = StringIO(), StringIO()
    code = main(list(argv), console=Console(out, err))
    return code, out.getvalue(), err.getvalue()


def test_the_command_trains_and_shows_before_and_after(few: Path, tmp_path: Path) -> None:
    out = tmp_path / "my adapter"
    code, told, _ = run(
        "demo", str(few), str(out), "--rank", "2", "--epochs", "1", "--answers", "1"
    )
    assert code == 0
    assert "8 rows about 8 pictures (JSON, conversations)." in told
    assert "7 pictures to learn from, 1 picture held out. Longest " in told
    assert "Answers begin with a space" in told
    assert "before:" in told
    assert {ADAPTER, "adapter_config.json", "report.html", "training", "last"} <= {
        each.name for each in out.iterdir()
    }
    page = (out / "report.html").read_text("utf-8")
    assert "Held-out answers" in page
    assert "<script" not in page
    assert "held-out loss in peft" in page
    assert load_file(out / ADAPTER).keys() == load_file(out / "last" / ADAPTER).keys()
    code, told, _ = run(
        "demo", str(few), str(out), "--rank", "2", "--epochs", "1", "--answers", "0", "--json"
    )
    events = [json.loads(line)["event"] for line in told.splitlines()]
    assert events == ["planned", "finished"]  # everything was done before


@pytest.mark.parametrize("lines", [["resume\n", "stop\n"], []])
def test_a_program_that_asks_for_a_stop_gets_a_saved_state(
    lines: list[str], few: Path, tmp_path: Path
) -> None:
    """The end of the lines means stop, too: the window has ended."""
    output = StringIO()
    argv = ["demo", str(few), str(tmp_path / "out"), "--rank", "2", "--step", "1", "--control"]
    code = main(
        [*argv, "--answer-space", "yes", "--epochs", "9", "--json"],
        console=Console(output, StringIO()),
        control_lines=lines,
    )
    events = [json.loads(line)["event"] for line in output.getvalue().splitlines()]
    assert (code, events[-2:]) == (130, ["saved", "interrupted"])
    assert len(events) < 20  # of 63 steps
    assert (tmp_path / "out" / "training" / "state.json").is_file()


def test_plan_trains_nothing(few: Path, tmp_path: Path) -> None:
    code, told, _ = run("demo", str(few), str(tmp_path / "out"), "--plan")
    assert code == 0
    assert " steps in " in told
    assert not (tmp_path / "out").exists()


def test_files_of_others_are_never_replaced(few: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"mine")
    with pytest.raises(UsageError, match="files that finetune did not write"):
        run("demo", str(few), str(tmp_path))
    assert (tmp_path / "adapter_model.safetensors").read_bytes() == b"mine"


def test_too_many_bad_rows_stop_before_training(few: Path, tmp_path: Path) -> None:
    file = few.with_name("bad.jsonl")
    file.write_text(few.read_text("utf-8") + '{"image": "none.png", "text": "x"}\n' * 2, "utf-8")
    with pytest.raises(UsageError, match=r"2 of 10 rows can't be used: .*picture missing"):
        run("demo", str(file), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    code, told, _ = run("demo", str(file), str(tmp_path / "out"), "--plan", "--allow-skipped")
    assert code == 0
    assert "2 skipped (2 picture missing: " in told
    assert not (tmp_path / "out").exists()
    prepare(task(file, tmp_path / "out", allow_skipped=True))
    skipped = (tmp_path / "out" / "training" / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in skipped] == [9, 10]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--rank", "0"], "--rank must be 1 or more, not 0"),
        (["--lr", "-1"], "--lr must be above 0"),
        (["--held-out", "many"], "--held-out must be a share"),
        (["--held-out", "99"], "All 8 answers are held out"),
        (["--replay", "x.jsonl:2"], "share of --replay must be above 0"),
        (["--max-tokens", "0"], "--max-tokens must be 1 or more"),
        (["--rank", "99999"], "--rank must be 1024 or less"),
        (["--lr", "nan"], "--lr must be above 0"),
        (["--seed", "-1"], "--seed must be 0 or more"),
        (["--patience", "0"], "--patience must be 1 or more"),
        (["--weight-decay", "-1"], "--weight-decay must be at least 0 and below 1"),
        (["--clip", "0"], "--clip must be above 0"),
        (["--cache", ""], "--cache needs a folder"),
        (["--cache", "x:9XB"], "'9XB' is not a size"),
        (["--cache", __file__ + "/x:1GiB"], "--cache needs a folder"),
    ],
)
def test_wrong_options_are_told(argv: list[str], message: str, few: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as found:
        run("demo", str(few), str(tmp_path / "out"), *argv)
    assert message in str(found.value)


def test_a_split_that_leaves_nothing_costs_no_loading(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_module, "LearningNetwork", None)  # would fail
    with pytest.raises(UsageError, match="All 8 answers are held out"):
        prepare(task(few, tmp_path / "out", held_out="99", answer_space="auto"))


# --- the pieces -----------------------------------------------------------------------------------


def example(picture: int, number: int) -> Example:
    from cogvlm2_lite.finetune.samples import TrainingPicture, TrainingSample
    from cogvlm2_lite.rows.read import Row, Turn

    tokens = torch.zeros((1, 3), dtype=torch.int64)
    shown = TrainingPicture(key=f"p{picture}", pixels=lambda: torch.zeros(1))
    sample = TrainingSample(input_ids=tokens, token_type_ids=tokens, labels=tokens, picture=shown)
    row = Row(source="x", line=number, turns=(Turn("q", "a"),))
    return Example(row=row, turn=1, sample=sample)


def test_a_picture_is_on_one_side_and_steps_have_whole_pictures() -> None:
    examples = [example(n // 3, n) for n in range(30)]
    learnt, held_out = split(examples, "10%", seed=0)
    assert {e.group for e in learnt}.isdisjoint({e.group for e in held_out})
    assert len(held_out) == 3
    assert split(examples, "10%", seed=0)[1][0].group != split(examples, "10%", seed=3)[1][0].group
    assert split(examples, "0", seed=0)[1] == []
    steps = steps_of_epoch(talks(learnt), 7, seed=0, epoch=0)
    assert [len(step) for step in steps] == [9, 9, 9]
    assert steps != steps_of_epoch(talks(learnt), 7, seed=0, epoch=1)
    assert steps == steps_of_epoch(talks(learnt), 7, seed=0, epoch=0)


def test_presets_have_the_parameters_of_the_specification() -> None:
    from cogvlm2_lite.architectures.cogvlm2 import COGVLM2

    config = COGVLM2.parse(COGVLM2, COGVLM2.released.raw, "config.json")
    per_rank = {
        name: sum(sum(s) for s in TrainingSettings(preset=name).matrices(config).values())
        for name in PRESETS
    }
    assert per_rank == {
        "words": 2_359_296, "both": 4_718_592, "demo": 327_680, "tower": 7_618_304
    }  # fmt: skip
    assert TrainingSettings().learning_rate(config) == pytest.approx(2e-4)
    tower = TrainingSettings(preset="tower")
    assert tower.learning_rate(config) == pytest.approx(1e-4)
    seen = {name: factor * 1e-4 for name, factor in tower.rate_factors(config).items()}
    assert {round(rate, 8) for name, rate in seen.items() if name.startswith("model.vision.")} == {
        2e-5
    }
    assert {round(rate, 8) for name, rate in seen.items() if name.startswith("model.layers.")} == {
        1e-4
    }


def test_small_data_get_more_passes() -> None:
    given = TrainingSettings()
    assert [given.epochs_for(steps) for steps in (5, 48, 99, 500)] == [10, 5, 3, 3]
    assert TrainingSettings(epochs=1).epochs_for(5) == 1


def test_rows_of_replay_are_named_and_counted_too(few: Path, tmp_path: Path) -> None:
    file = few.with_name("old.jsonl")
    good = few.read_text("utf-8")
    file.write_text(good + '{"image": "none.png", "text": "x"}\n', "utf-8")
    with pytest.raises(UsageError, match=r"1 of 9 rows can't be used: 1 picture missing"):
        prepare(task(few, tmp_path / "out", replay=file))
    made = prepare(task(few, tmp_path / "out", replay=file, allow_skipped=True))
    assert [each.source for each in made.skipped] == ["old.jsonl"]
