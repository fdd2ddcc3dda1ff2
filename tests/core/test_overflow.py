"""What float16 can't hold is computed in float32, and the user is told once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.answer import Request
from cogvlm2_lite.engine.model import Model, open_model
from cogvlm2_lite.errors import DoesNotFitError, EngineError
from cogvlm2_lite.events import TOO_LARGE_FOR_FLOAT16 as NOTICE
from cogvlm2_lite.events import Cancel, Event, Finished, Notice, PictureOpened
from cogvlm2_lite.inputs.image import open_image
from cogvlm2_lite.memory import work
from cogvlm2_lite.memory.plan import DeviceBudget
from cogvlm2_lite.sampling import Sampling
from tests.emulated_cuda.install import emulated_cuda
from tests.emulated_cuda.machine import Order
from tests.helpers.answers import picture
from tests.helpers.folders import random_folder

PLENTY = 1 << 30
TOWER = "model.vision.transformer.layers.1.mlp.fc2.weight"
DECODER = "model.layers.1.mlp.language_mlp.down_proj.weight"


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "KERNEL_SCRATCH_BYTES", 1 << 14)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_folder(tmp_path_factory.mktemp("models") / "plain", layers=3)


def scaled(source: Path, target: Path, matrix: str) -> Path:
    """Copy a model, one matrix of which gives numbers beyond float16."""
    target.mkdir(parents=True)
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            (target / file.name).write_bytes(file.read_bytes())
    tensors = load_file(source / "model.safetensors")
    tensors[matrix] = tensors[matrix] * 3e5
    save_file(tensors, target / "model.safetensors")
    return target


@pytest.fixture(scope="module", params=[TOWER, DECODER], ids=["tower", "decoder"])
def folder(
    request: pytest.FixtureRequest, plain: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return scaled(plain, tmp_path_factory.mktemp("models") / "scaled", request.param)


def opened(
    folder: Path, dtype: str, nbytes: int = PLENTY, device: str = "cpu", **options: Any
) -> Model:
    name = "cpu" if device == "cpu" else f"{device}:0"
    in_ram = device == "cpu"
    budget = DeviceBudget(
        device=name, device_bytes=nbytes, host_bytes=0 if in_ram else PLENTY, in_ram=in_ram
    )
    compute = choose_compute(device, dtype)
    return open_model(folder, compute=compute, budgets=[budget], **options)


SHORT = Sampling(max_new_tokens=5, repetition_guard=False)


def events(model: Model, number: int = 1) -> list[Event]:
    return list(model.answer("What?", picture(number), sampling=SHORT))


def text(found: list[Event]) -> str:
    assert isinstance(found[-1], Finished)
    return found[-1].text


def notices(found: list[Event]) -> list[str]:
    return [event.text for event in found if isinstance(event, Notice)]


def test_the_answer_is_that_of_float32_and_the_user_is_told_once(folder: Path) -> None:
    expected = [text(events(opened(folder, "float32"), number)) for number in (1, 2)]
    model = opened(folder, "float16")
    small = model.plan.peak_bytes
    first, second = events(model, 1), events(model, 2)
    assert [text(first), text(second)] == expected
    assert notices(first) == [NOTICE]
    assert notices(second) == []
    assert model.compute.dtype is model.runtime.dtype is torch.float32
    assert "too large for float16" in model.compute.reason
    # The plan has room for what float32 needs.
    assert model.plan.peak_bytes == opened(folder, "float32").plan.peak_bytes > small


@pytest.mark.parametrize("share", [1.0, 0.7])
def test_on_a_gpu_resident_and_streamed(folder: Path, share: float) -> None:
    with emulated_cuda():
        exact = opened(folder, "float32", device="cuda")
        expected, most = text(events(exact)), exact.plan.peak_bytes
    with emulated_cuda(order=Order.LATE) as machine:
        model = opened(folder, "float16", int(share * most), device="cuda")
        found = events(model)
        assert text(found) == expected
        assert notices(found) == [NOTICE]
        assert model.plan.streams == (share < 1)
        # Nothing of the float16 model is left.
        assert machine.held[0] <= model.plan.peak_bytes + (64 << 10)


def test_answers_at_once_begin_again_when_the_others_have_ended(
    plain: Path, tmp_path: Path
) -> None:
    """Only a picture overflows: the answer without one keeps float16, and ends first."""
    model = opened(scaled(plain, tmp_path / "m", TOWER), "float16", parallel=3)
    engine = model.engine
    image = open_image(picture(1))
    requests = [
        Request(question="What?", image=each, sampling=SHORT) for each in (None, image, image)
    ]
    for number, request in enumerate(requests):
        engine.begin(number, request, Cancel())
    found: dict[int, list[Event]] = {0: [], 1: [], 2: []}
    while engine.busy:
        for number, event in engine.turn():
            assert not isinstance(event, Exception)
            found[number].append(event)
    exact = opened(tmp_path / "m", "float32")
    assert text(found[1]) == text(found[2]) == text(events(exact))
    assert [notices(found[n]) for n in range(3)] == [[], [NOTICE], [NOTICE]]
    again = opened(tmp_path / "m", "float16")
    assert text(found[0]) == text(list(again.answer("What?", sampling=SHORT)))
    assert again.runtime.dtype == torch.float16


def test_an_answer_that_begins_again_tells_of_its_picture_once(plain: Path, tmp_path: Path) -> None:
    model = opened(scaled(plain, tmp_path / "m", TOWER), "float16")
    image = picture(1).convert("CMYK")
    found = list(model.answer("What?", image, sampling=SHORT))
    assert sum(isinstance(event, PictureOpened) for event in found) <= 1
    assert notices(found) == [NOTICE]


def test_without_room_for_float32_the_model_stays_and_the_error_tells_why(
    plain: Path, tmp_path: Path
) -> None:
    folder = scaled(plain, tmp_path / "m", TOWER)
    least, most = 0, opened(folder, "float16").plan.peak_bytes
    while most - least > 4096:
        middle = (least + most) // 2
        try:
            opened(folder, "float16", middle)
            most = middle
        except DoesNotFitError:
            least = middle
    model = opened(folder, "float16", most)
    for _ in range(2):
        with pytest.raises(DoesNotFitError, match="more is needed"):
            events(model)
    assert text(list(model.answer("What?", sampling=SHORT)))
    assert model.runtime.dtype == torch.float16


def test_the_functions_of_the_library_refuse_numbers_that_are_not_finite(folder: Path) -> None:
    model = opened(folder, "float16")
    pixels = torch.zeros(1, 3, model.config.vision.image_size, model.config.vision.image_size)
    refused = []
    for compute in (
        lambda: model.encode_image(pixels),
        lambda: model.forward(torch.arange(20)[None]),
    ):
        try:
            assert compute().isfinite().all()
        except EngineError as error:
            refused.append((error.message, error.hint))
    assert refused == [
        ("The numbers of this model are too large for float16.", "Load the model in float32.")
    ]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_model_whose_numbers_fit_is_not_changed(plain: Path, dtype: str) -> None:
    model = opened(plain, dtype)
    assert notices(events(model)) == []
    assert model.runtime.dtype == getattr(torch, dtype)
