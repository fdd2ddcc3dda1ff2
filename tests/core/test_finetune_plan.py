"""`finetune` fits a run into the memory it may use, and says beforehand what a run needs."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

from cogvlm2_lite.architectures.architecture import Phase
from cogvlm2_lite.config import read_config
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.devices import Compute
from cogvlm2_lite.errors import DoesNotFitError, UsageError
from cogvlm2_lite.finetune import prepare as preparing
from cogvlm2_lite.finetune.prepare import TrainingTask, prepare
from cogvlm2_lite.finetune.settings import TrainingSettings
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import MIB
from tests.helpers.finetune import FINETUNE

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
    monkeypatch.setattr(preparing, "choose_compute", lambda device, dtype: half)
    with pytest.raises(UsageError, match="no bfloat16") as caught:
        prepare(task(few, tmp_path / "out"))
    assert caught.value.hint == "Use --dtype float32."
