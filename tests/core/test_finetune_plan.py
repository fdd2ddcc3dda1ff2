"""`finetune` fits a run into the memory it may use, and says beforehand what a run needs."""

from __future__ import annotations

import json
import re
import tarfile
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch

from cogvlm2_lite.architectures.architecture import Phase
from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.finetune import main
from cogvlm2_lite.config import read_config
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.devices import Compute
from cogvlm2_lite.errors import DoesNotFitError, UsageError
from cogvlm2_lite.finetune import survey as surveying
from cogvlm2_lite.finetune.expect import (
    EstimatedTokens,
    Expected,
    RunSize,
    TalkSize,
    expect,
    plan_training,
    training_of,
)
from cogvlm2_lite.finetune.prepare import prepare
from cogvlm2_lite.finetune.settings import TrainingSettings
from cogvlm2_lite.finetune.task import TrainingTask
from cogvlm2_lite.forecast.rates import named_card
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.memory.inventory import sizes_of_quantized
from cogvlm2_lite.memory.plan import DeviceBudget
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import GIB, MIB
from cogvlm2_lite.weights.catalog import StoredTensor
from cogvlm2_lite.weights.reader import Reader
from tests.helpers.finetune import FINETUNE
from tests.helpers.shapes import REAL
from tools.write_finetune_costs import PAGE, write_page

DEMO = model_folder("demo")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 drawn pictures with a question each."""
    folder = tmp_path_factory.mktemp("rows")
    with tarfile.open(FINETUNE / "rows.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    file = folder / "rows" / "few.jsonl"
    lines = (folder / "rows" / "train.jsonl").read_text("utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:8]), "utf-8")
    return file


def task(data: Path, out: Path, **changes: Any) -> TrainingTask:
    settings = TrainingSettings(**{"rank": 4, "epochs": 2, "step": 3, **changes.pop("s", {})})
    return TrainingTask(
        model=DEMO, data=data, out=out, settings=settings, **{"answer_space": "yes", **changes}
    )


def test_a_run_gets_the_ram_that_it_may_use(few: Path, tmp_path: Path) -> None:
    plan = prepare(task(few, tmp_path / "out", ram="1GiB")).plan
    (device,) = plan.devices
    assert [phase.phase for phase in device.phases] == [
        Phase.ENCODE,
        Phase.PREFILL_IMAGE,
        Phase.LEARN,
    ]
    assert device.budget.device_bytes == 640 * MIB
    assert device.peak_bytes <= 640 * MIB
    assert not device.streams
    shapes = TrainingSettings().matrices(read_config(DEMO)).values()
    assert plan.trained_bytes == 16 * sum(4 * sum(shape) for shape in shapes)


def test_too_little_memory_is_refused_before_anything_is_written(few: Path, tmp_path: Path) -> None:
    with pytest.raises(DoesNotFitError, match="of RAM") as caught:
        prepare(task(few, tmp_path / "out", ram="400MiB"))
    assert "--rank" in caught.value.hint
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="not a size for --ram"):
        prepare(task(few, tmp_path / "out", ram="much"))


def test_a_card_without_bfloat16_is_refused_with_the_way_out(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = Compute(device=torch.device("cpu"), dtype=torch.float16, reason=Text("a test"))
    monkeypatch.setattr(surveying, "choose_compute", lambda device, dtype: half)
    with pytest.raises(UsageError, match="no bfloat16") as caught:
        prepare(task(few, tmp_path / "out"))
    assert caught.value.hint == "Use --dtype float32."


# --- --plan ---------------------------------------------------------------------------------------


def plan_of(*argv: str) -> str:
    output = StringIO()
    assert main([*argv, "--plan"], console=Console(output, StringIO())) == 0
    return output.getvalue()


def test_the_plan_names_memory_time_and_disk_and_touches_nothing(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(self: Reader, stored: StoredTensor) -> None:
        raise AssertionError(f"{stored.spec.name} is read")

    monkeypatch.setattr(Reader, "read", read)
    told = plan_of("demo", str(few), str(tmp_path / "out"), "--device", "cpu", "--ram", "2GiB")
    assert " of 1.62 GiB on the CPU, " in told
    assert "of disk." in told
    assert "About " in told
    assert re.search(r"learn +\d+(\.\d+)? MiB", told)
    assert not (tmp_path / "out").exists()


def test_the_released_model_is_planned_for_a_card_that_is_not_here(
    few: Path, tmp_path: Path
) -> None:
    words = ("19b", str(few), str(tmp_path / "out"), "--ram", "32GiB", "--json")
    events = {
        card: json.loads(plan_of(*words, "--card", card).splitlines()[0])["expected"]
        for card in ("RTX 4060 Ti", "RTX 4090")
    }
    slow, fast = events.values()
    assert slow["peak_bytes"] == fast["peak_bytes"] < 7.1 * GIB
    assert fast["seconds"] < slow["seconds"] / 2
    assert slow["budget_bytes"] == 16 * GIB - 384 * MIB
    assert [phase["phase"] for phase in slow["phases"]] == [
        "encode",
        "prefill with picture",
        "learn",
    ]
    assert slow["disk_bytes"] == 44 * 2_359_296 * 16
    small = json.loads(plan_of(*words, "--vram", "4GiB").splitlines()[0])["expected"]
    assert small["phases"][-1]["streamed_bytes"] > 0
    assert small["peak_bytes"] <= 4 * GIB


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--plan", "--card", "Tesla T4"], "Tesla T4 has no bfloat16"),
        (["--plan", "--card", "RTX 9999"], "not known"),
        (["--plan", "--vram", "1GiB"], "on GPU"),
        (["--plan", "--vram", "8GiB", "--device", "cpu"], "--device cpu uses none"),
        (["--card", "RTX 4090"], "--card works only with --plan"),
    ],
)
def test_a_plan_that_is_not_possible_says_why(
    few: Path, tmp_path: Path, argv: list[str], message: str
) -> None:
    with pytest.raises((UsageError, DoesNotFitError), match=message):
        main(
            ["19b", str(few), str(tmp_path / "out"), *argv], console=Console(StringIO(), StringIO())
        )


def test_estimated_tokens_are_seldom_fewer_than_those_of_a_tokenizer() -> None:
    tokenizer, estimate = Tokenizer.from_folder(DEMO), EstimatedTokens()
    for text in ("Question: What is the invoice number? Answer:", "请详细描述这张图片。"):
        assert len(estimate.encode(text)) >= len(text.split())
        assert len(estimate.encode(text)) <= max(len(text), len(tokenizer.encode(text)))
    assert len(estimate.encode("abcdefg")) == 2
    assert estimate.encode("") == []


# --- operations and seconds -----------------------------------------------------------------------


def costs(
    preset: str, talk: TalkSize, *, count: int = 16, epochs: int = 1, gib: float = 23, **cache: int
) -> Expected:
    chosen = TrainingSettings(preset=preset)
    talks = (talk,) * count
    training = training_of(REAL, chosen, talks, pictures=count)
    budget = DeviceBudget(
        device="cuda:0", device_bytes=int(gib * GIB), host_bytes=cache.pop("host", 31) * GIB
    )
    sizes = sizes_of_quantized(REAL)
    plan = plan_training(REAL, sizes, budget, training, itemsize=2)
    run = RunSize(learnt=talks, held_out=(), epochs=epochs, steps=epochs * max(1, count // 16))
    rates = named_card("RTX 3090").rates
    return expect(REAL, plan, training, run, rates, itemsize=2, stored=sizes, **cache)


@pytest.mark.parametrize(
    ("preset", "tokens", "labels", "tera"),
    [
        ("words", 100, 40, 4.8),
        ("words", 300, 200, 14.7),
        ("both", 93, 40, 105),
        ("demo", 93, 40, 105),
        ("both", 4096 - 2307, 40, 189),
        ("tower", 93, 40, 105 + 409 - 118),  # the tower's forward pass is a phase of its own
    ],
)
def test_operations_are_those_of_the_arithmetic_by_hand(
    preset: str, tokens: int, labels: int, tera: float
) -> None:
    found = costs(preset, TalkSize(ends=(tokens,), labels=labels))
    assert found.phases[Phase.LEARN].flops / 16 == pytest.approx(tera * 1e12, rel=0.03)
    assert found.phases[Phase.ENCODE].flops / 16 == pytest.approx(118e12, rel=0.01)


def test_another_packed_question_costs_little() -> None:
    one, two = (
        costs("both", TalkSize(ends=(100,) * answers, labels=10)).phases[Phase.LEARN].flops
        for answers in (1, 2)
    )
    assert (two - one) / 16 == pytest.approx(4.5e12, rel=0.1)


def test_what_is_kept_of_pictures_is_not_computed_again() -> None:
    talk = TalkSize(ends=(100,), labels=40)
    plenty, little = (costs("words", talk, count=64, epochs=3, host=host) for host in (64, 6))
    assert plenty.phases[Phase.ENCODE].times == plenty.phases[Phase.PREFILL_IMAGE].times == 64
    assert little.phases[Phase.PREFILL_IMAGE].times > 128
    assert little.kept.features < 64
    cached = costs("words", talk, count=64, epochs=3, host=6, cache_bytes=GIB * 2)
    assert cached.kept.features == 64
    assert cached.kept.disk_bytes > GIB
    assert cached.phases[Phase.ENCODE].times == 64
    # A trained tower makes other features in every step.
    assert costs("tower", talk, count=64, epochs=3).phases[Phase.ENCODE].times == 192


def test_streaming_costs_time_and_more_memory_never_does() -> None:
    talk = TalkSize(ends=(100,), labels=40)
    for host in (2, 31):  # streamed weights come from disk, or from RAM
        seconds = [costs("words", talk, gib=gib, host=host).seconds for gib in (2, 4, 8, 20)]
        assert seconds == sorted(seconds, reverse=True)
        assert host == 31 or seconds[0] > 1.1 * seconds[-1]


def test_the_page_shows_these_costs() -> None:
    page = PAGE.read_text("utf-8")
    assert write_page(page) == page, "run python tools/write_finetune_costs.py"
