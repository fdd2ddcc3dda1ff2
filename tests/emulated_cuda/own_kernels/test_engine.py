"""The engine with our CUDA kernels on an emulated GPU: no setting changes an answer.

The model has random weights in NF4, two blocks, and the heads of the 19B model.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from cogvlm2_lite.engine.answer import Request
from cogvlm2_lite.engine.model import Model
from cogvlm2_lite.events import Cancel, Finished
from cogvlm2_lite.inputs.image import open_image
from cogvlm2_lite.kv_kind import KVKind
from cogvlm2_lite.memory import work
from cogvlm2_lite.model import decoder
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.weights.kernels.choice import GPU_KERNELS
from tests.emulated_cuda.install import emulated_cuda
from tests.emulated_cuda.machine import Order
from tests.emulated_cuda.own_kernels.cpu import COMPILER, compiled, on_cpu
from tests.emulated_cuda.test_engine import opened, text
from tests.helpers.answers import picture
from tests.helpers.conversion import quantize
from tests.helpers.folders import random_folder

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")

OWN = ("stored_product", "gated_product", "attend_token", "add_norm")
TOKENS = 5  # the fourth step is the first that a graph repeats
SIZES = {
    "hidden_size": 512,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_multi_query_heads": 1,
}


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "KERNEL_SCRATCH_BYTES", 1 << 14)
    monkeypatch.setenv(GPU_KERNELS, "own")


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, ctypes.CDLL]:
    return compiled(tmp_path_factory.mktemp("kernels"), torch.bfloat16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    source = random_folder(place / "random", layers=2, changes=SIZES)
    quantize(source, place / "nf4")
    return place / "nf4"


@pytest.fixture
def _runs(libraries: Mapping[str, ctypes.CDLL]) -> Iterator[None]:
    with on_cpu(libraries):
        yield


@pytest.fixture(scope="module", params=[KVKind.FULL, KVKind.INT8], ids=str)
def known(
    request: pytest.FixtureRequest, folder: Path, libraries: Mapping[str, ctypes.CDLL]
) -> tuple[KVKind, str, int]:
    """Return how keys are stored, the answer of a GPU with plenty of memory, and its bytes."""
    settings = (
        patch.object(work, "KERNEL_SCRATCH_BYTES", 1 << 14),
        patch.dict("os.environ", {GPU_KERNELS: "own"}),
    )
    with settings[0], settings[1], emulated_cuda() as machine, on_cpu(libraries):
        model = opened(folder, kv=request.param)
        found = text(model, max_new_tokens=TOKENS)
        assert all(machine.launches[f"cogvlm2_lite.{name}.default"] for name in OWN)
        assert model.runtime.graphs is not None
        assert model.runtime.graphs.replays
        return request.param, found, model.plan.peak_bytes


@pytest.mark.usefixtures("_runs")
def test_streaming_changes_no_answer(folder: Path, known: tuple[KVKind, str, int]) -> None:
    kv, expected, peak = known
    with emulated_cuda(order=Order.RANDOM, seed=1):
        model = opened(folder, int(peak * 0.9), kv=kv)
        assert text(model, max_new_tokens=TOKENS) == expected
        assert model.runtime.residency.streamed_bytes


@pytest.mark.usefixtures("_runs")
def test_a_cache_of_four_bits_goes_the_ordinary_way(folder: Path) -> None:
    with emulated_cuda() as machine:
        own = text(opened(folder, kv=KVKind.INT4), max_new_tokens=3)
        assert machine.launches["cogvlm2_lite.attend_token.default"] == 1  # the self-test
        assert machine.launches["cogvlm2_lite.stored_product.default"]
    assert own


@pytest.mark.usefixtures("_runs")
def test_several_answers_at_once_are_those_of_each_alone(folder: Path) -> None:
    sampling = Sampling(max_new_tokens=3, repetition_guard=False)
    with emulated_cuda(order=Order.RANDOM, seed=2):
        model = opened(folder, parallel=2)
        found = together(model, sampling)
    with emulated_cuda():
        model = opened(folder)
        for number in range(2):
            *_, last = model.answer(f"What {number}?", picture(number), sampling=sampling)
            assert last.text == found[number]


def together(model: Model, sampling: Sampling) -> dict[int, str]:
    for number in range(2):
        image = open_image(picture(number))
        request = Request(question=f"What {number}?", image=image, sampling=sampling)
        model.engine.begin(number, request, Cancel())
    found: dict[int, str] = {}
    while model.engine.busy:
        for number, event in model.engine.turn():
            assert not isinstance(event, Exception)
            if isinstance(event, Finished):
                found[number] = event.text
    return found


@pytest.mark.usefixtures("_runs")
def test_the_block_computes_what_torch_computes(folder: Path) -> None:
    """The same kernels for products, but everything between them by torch."""
    with emulated_cuda():
        ours = opened(folder)
        first = logits(ours)
        with patch.object(decoder.DecoderBlock, "_is_for_own_kernels", lambda self, steps: False):
            theirs = logits(opened(folder))
    assert not torch.equal(first, theirs)
    error = (first - theirs).norm() / theirs.norm()
    assert error < 0.02


def logits(model: Model) -> torch.Tensor:
    sampling = Sampling(max_new_tokens=3, repetition_guard=False)
    found = []
    original = model.runtime.decode_steps

    def noting(*arguments: object, **named: object):  # type: ignore[no-untyped-def]
        result = yield from original(*arguments, **named)  # type: ignore[arg-type]
        found.append(result[0][0].float().cpu())
        return result

    with patch.object(model.runtime, "decode_steps", noting):
        list(model.answer("What?", picture(1), sampling=sampling))
    return found[0]
