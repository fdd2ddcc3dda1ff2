"""The engine on emulated GPUs that are called xpu (Intel) and mps (Apple).

They show that the core names no kind of device, and which back end it asks. What such a GPU
computes, and how torch's kernels for it round, they can't show.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.cli.main import main
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.model import Model, load, open_model
from cogvlm2_lite.errors import DeviceError
from cogvlm2_lite.events import Finished, Replanned
from cogvlm2_lite.memory import work
from cogvlm2_lite.memory.plan import DeviceBudget
from cogvlm2_lite.memory.residency import Residency
from cogvlm2_lite.sampling import Sampling
from tests.emulated_cuda.install import emulated_cuda
from tests.emulated_cuda.machine import Order
from tests.helpers.answers import picture
from tests.helpers.folders import random_folder

PLENTY = 1 << 30
KINDS = ["xpu", "mps"]


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make budgets mean something for small weights."""
    monkeypatch.setattr(work, "KERNEL_SCRATCH_BYTES", 1 << 14)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_folder(tmp_path_factory.mktemp("models") / "random")


def opened(folder: Path, kind: str, nbytes: int = PLENTY, **options: Any) -> Model:
    return open_model(
        folder,
        compute=choose_compute(kind, "bfloat16"),
        budgets=[DeviceBudget(device=f"{kind}:0", device_bytes=nbytes, host_bytes=PLENTY)],
        **options,
    )


def text(model: Model) -> str:
    sampling = Sampling(max_new_tokens=4, repetition_guard=False)
    *_, last = model.answer("What?", picture(1), sampling=sampling)
    assert isinstance(last, Finished)
    return last.text


@pytest.mark.parametrize("kind", KINDS)
def test_streamed_answers_are_those_of_resident_weights(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set[str]()
    fill = Residency._fill

    def watched(self: Residency, key: Any) -> int:
        threads.add(threading.current_thread().name)
        return fill(self, key)

    monkeypatch.setattr(Residency, "_fill", watched)
    with emulated_cuda(kind=kind):
        model = opened(folder, kind)
        expected, peak = text(model), model.plan.peak_bytes
        assert model.runtime.last_device.type == kind
        assert model.runtime.graphs is None
        kernels = model.runtime.residency._loaders[0].kernels.name  # type: ignore[attr-defined]
        assert kernels == {"xpu": "xpu", "mps": "torch"}[kind]
    with emulated_cuda(kind=kind, order=Order.LATE) as machine:
        model = opened(folder, kind, int(0.6 * peak))
        assert model.plan.streams
        assert text(model) == expected
        assert machine.peak[0] > 0
    assert any(name.startswith("prefetch") for name in threads) == backend_of(kind).loads_ahead


@pytest.mark.parametrize("kind", KINDS)
def test_an_operation_that_the_gpu_lacks_is_an_error_and_not_the_cpu(
    folder: Path, kind: str
) -> None:
    with emulated_cuda(kind=kind) as machine:
        model = opened(folder, kind)
        machine.missing.add("aten::silu_")
        with pytest.raises(DeviceError) as caught:
            text(model)
        assert caught.value.message == (
            "The GPU can't compute this model: The operator 'aten::silu_' is not currently "
            f"implemented for the {kind.upper()} device."
        )
        assert caught.value.hint.startswith("Use --device cpu")
        machine.missing.clear()
        assert text(model)  # the model can still be used


@pytest.mark.parametrize(("kind", "maker"), [("xpu", "Intel"), ("mps", "Apple")])
def test_a_user_is_warned_of_a_gpu_that_nobody_has_tried(
    folder: Path, kind: str, maker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"PYTORCH_ENABLE_{kind.upper()}_FALLBACK", "1")
    with emulated_cuda(kind=kind):
        model = load(folder, device=kind)
        caution, slow = model.warnings
        assert set(model.warnings) <= set(model.remarks)
    assert caution.startswith(f"{kind}:0 (Emulated GPU): {maker} GPUs are untested on real hard")
    assert slow.startswith(f"PYTORCH_ENABLE_{kind.upper()}_FALLBACK is set, so torch computes on")
    with emulated_cuda():
        assert load(folder, device="cuda").warnings == ()


@pytest.mark.parametrize("kind", KINDS)
def test_memory_that_ran_out_is_a_new_plan(folder: Path, kind: str) -> None:
    """Also on Apple's GPU, where it is an error without a type of its own."""
    with emulated_cuda(kind=kind) as machine:
        model = opened(folder, kind)
        expected, before = text(model), machine.allocations
        model = opened(folder, kind)
        machine.fail_at = machine.allocations + (before // 2)
        sampling = Sampling(max_new_tokens=4, repetition_guard=False)
        events = list(model.answer("What?", picture(1), sampling=sampling))
        assert machine.allocations > machine.fail_at
    assert any(isinstance(event, Replanned) for event in events)
    assert isinstance(events[-1], Finished)
    assert events[-1].text == expected


@pytest.mark.parametrize("kind", KINDS)
def test_every_command_names_an_operation_that_the_gpu_lacks(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lacks(argv: object) -> int:
        raise NotImplementedError(
            f"The operator 'aten::x' is not currently implemented for the {kind.upper()} device. "
            "If you want this op to be considered, ..."
        )

    monkeypatch.setattr("cogvlm2_lite.cli.main.load_command", lambda name, commands: lacks)
    assert main(["compare"]) == 1
    err = " ".join(capsys.readouterr().err.split())
    assert err == (
        "Error: The GPU can't compute this model: The operator 'aten::x' is not currently "
        f"implemented for the {kind.upper()} device. Use --device cpu, or another version of torch."
    )
