"""`load` decides budgets: what is free, or what the user allows, and says what it changed."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

import cogvlm2_lite
from cogvlm2_lite.architectures.architecture import Phase
from cogvlm2_lite.errors import DoesNotFitError, PromptTooLongError, UsageError
from cogvlm2_lite.events import Finished, Streaming
from cogvlm2_lite.memory.plan import RESERVE_BYTES
from cogvlm2_lite.units import MIB
from tests.helpers.answers import picture
from tests.helpers.folders import random_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_folder(tmp_path_factory.mktemp("load") / "model")


def load(folder: Path, **options: object) -> cogvlm2_lite.Model:
    return cogvlm2_lite.load(folder, "cpu", "float32", **options)  # type: ignore[arg-type]


def test_what_is_free_is_the_budget(folder: Path) -> None:
    model = load(folder)
    (device,) = model.plan.devices
    assert device.budget.device_bytes < psutil.virtual_memory().total
    assert "free now" in device.budget.origin
    assert model.plan.context == model.config.max_position_embeddings
    assert model.remarks == ()


def test_ram_context_and_offload_are_planned_as_given(folder: Path) -> None:
    everything = load(folder)
    (device,) = everything.plan.devices
    ram = RESERVE_BYTES + device.peak_bytes - MIB // 2
    model = load(folder, ram=ram, context=200)
    assert model.plan.devices[0].budget.device_bytes == ram - RESERVE_BYTES
    assert model.plan.context == 200
    with pytest.raises(DoesNotFitError, match="--offload is never"):
        load(folder, ram=ram, offload="never")
    assert load(folder, offload="never").remarks == ()


def test_a_smaller_plan_answers_the_same_and_tells_that_it_streams(folder: Path) -> None:
    (device,) = load(folder).plan.devices
    ram = RESERVE_BYTES + device.phase(Phase.ENCODE).peak_bytes - MIB // 16
    answers = []
    for options in ({}, {"ram": ram}):
        events = list(load(folder, **options).answer("What?", picture(1)))
        last = events[-1]
        assert isinstance(last, Finished)
        answers.append(last.text)
        assert any(isinstance(e, Streaming) for e in events) == bool(options)
    assert answers[0] == answers[1]


def test_a_conversation_keeps_to_the_planned_context(folder: Path) -> None:
    model = load(folder, context=60)
    (*_, last) = model.answer("word " * 3)
    assert isinstance(last, Finished)
    assert last.prompt_tokens + last.completion_tokens <= 60
    with pytest.raises(PromptTooLongError, match="the context has room for 60"):
        list(model.answer("word " * 100))


def test_more_than_there_is_and_video_memory_without_a_gpu_are_remarked_on(folder: Path) -> None:
    video, ram = load(folder, vram="8GiB", ram="900TiB").remarks
    assert video == "--vram has no effect: the model runs on the CPU, in RAM."
    assert ram.startswith("921600 GiB is allowed, but only ")
    assert ram.endswith("the plan uses what is free.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ram": "much"}, "'much' is not a size for --ram"),
        ({"vram": "8"}, "8 B for --vram is too small"),
        ({"offload": "often"}, "Unknown value 'often' for offload"),
        ({"context": 10**6}, "A context of 1000000 tokens is not possible"),
    ],
)
def test_senseless_budgets_are_refused_at_once(
    folder: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        load(folder, **options)
