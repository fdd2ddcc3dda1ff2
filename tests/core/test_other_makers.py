"""GPUs of AMD, Intel and Apple: what the back ends make of what torch reports about them.

No such GPU was available, so torch's modules are fakes with the names and values of its sources.
"""

from __future__ import annotations

import sys
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cogvlm2_lite.backends import cuda as cuda_module
from cogvlm2_lite.backends.base import Backend
from cogvlm2_lite.backends.cuda import CudaBackend
from cogvlm2_lite.backends.device import Gpu
from cogvlm2_lite.backends.measured import MeasuredCard, evidence, remark_on
from cogvlm2_lite.backends.mps import MpsBackend
from cogvlm2_lite.backends.registry import replaced
from cogvlm2_lite.backends.xpu import XpuBackend
from cogvlm2_lite.devices import choose_compute, choose_gpus, parse_device
from cogvlm2_lite.doctor.report import gpus as doctor_rows
from cogvlm2_lite.doctor.report import problems
from cogvlm2_lite.engine.replan import out_of_memory
from cogvlm2_lite.errors import DeviceError
from cogvlm2_lite.memory.budget import Allowance, gpu_budgets
from cogvlm2_lite.memory.plan import RESERVE_BYTES
from cogvlm2_lite.units import GIB

UNTESTED = "untested on real hardware: this GPU path has not been measured on your kind of card"


# --- AMD ------------------------------------------------------------------------------------------


class Rocm:
    """torch.cuda of a ROCm build. GPUs as (name, gcnArchName)."""

    def __init__(self, *gpus: tuple[str, str], built: tuple[str, ...] = ("gfx90a", "gfx1100")):
        self.gpus, self.built = gpus, built

    def is_available(self) -> bool:
        return bool(self.gpus)

    def device_count(self) -> int:
        return len(self.gpus)

    def get_arch_list(self) -> list[str]:
        return list(self.built)

    def get_device_properties(self, index: int) -> Any:
        name, arch = self.gpus[index]
        return SimpleNamespace(name=name, gcnArchName=arch, major=11, minor=0)

    def mem_get_info(self, index: int) -> tuple[int, int]:
        return 15 * GIB, 16 * GIB

    def memory_reserved(self, index: int) -> int:
        return 0

    memory_allocated = memory_reserved


def rocm(*gpus: tuple[str, str], hip: str | None = "7.2", **options: Any) -> CudaBackend:
    version = SimpleNamespace(cuda=None, hip=hip)
    return CudaBackend(SimpleNamespace(cuda=Rocm(*gpus, **options), version=version))


@pytest.fixture
def amd_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_module, "has_amd_driver", lambda: True)
    monkeypatch.setattr(cuda_module, "has_nvidia_driver", lambda: False)


@pytest.mark.usefixtures("amd_driver")
def test_a_gpu_of_amd_is_named_by_its_architecture() -> None:
    backend = rocm(("AMD Radeon RX 7900 XTX", "gfx1100"), ("MI210", "gfx90a:sramecc+:xnack-"))
    found, trouble = backend.find()
    assert trouble == ""
    assert [(g.device, g.maker, g.architecture) for g in found] == [
        ("cuda:0", "AMD", "gfx1100"),
        ("cuda:1", "AMD", "gfx90a"),
    ]
    rows = doctor_rows([backend])
    assert rows["cuda:0"] == (
        "AMD Radeon RX 7900 XTX, 15.0 GiB free of 16.0 GiB, gfx1100, ROCm 7.2"
    )
    assert rows["cuda:0: evidence"] == UNTESTED
    (caution,) = backend.cautions(found[0])
    assert caution.startswith("cuda:0 (AMD Radeon RX 7900 XTX): AMD GPUs are untested")


@pytest.mark.parametrize(
    ("arch", "built", "usable"),
    [
        ("gfx1032", ("gfx90a", "gfx1100"), False),
        ("gfx1100", ("gfx90a", "gfx1100"), True),
        ("gfx1103", ("gfx11-generic",), True),
        ("gfx803", (), True),  # a build of unknown kernels: the self-tests decide
    ],
)
def test_a_gpu_that_this_rocm_has_no_kernels_for(
    arch: str, built: tuple[str, ...], usable: bool
) -> None:
    found, trouble = rocm(("RX", arch), built=built).find()
    assert bool(found) == usable
    if not usable:
        assert trouble == (
            "cuda:0 (RX) has the architecture gfx1032, but this torch is built for gfx90a, gfx1100"
        )


@pytest.mark.usefixtures("amd_driver")
def test_words_about_a_missing_gpu_of_amd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cogvlm2_lite.doctor.report.free_ram_bytes", lambda: 64 * GIB)
    nothing = SimpleNamespace(is_available=lambda: False)
    built: dict[str, tuple[str | None, str | None]] = {
        "torch is a CPU build": (None, None),
        "torch is built for CUDA 13.0, and this GPU needs a build for ROCm": ("13.0", None),
        "torch is built for ROCm 7.2 and finds no GPU": (None, "7.2"),
    }
    for why, (cuda, hip) in built.items():
        version = SimpleNamespace(cuda=cuda, hip=hip)
        backend = CudaBackend(SimpleNamespace(cuda=nothing, version=version))
        with replaced(backend):
            with pytest.raises(DeviceError) as caught:
                choose_gpus("cuda")
            assert caught.value.message == f"No AMD GPU can be used: {why}."
            assert "ROCm wheel of torch" in caught.value.hint
            remedy = "" if hip else " Install torch's ROCm wheel (see README)."
            assert list(problems([backend])) == [
                f"A GPU driver is installed, but no GPU is used: {why}.{remedy}"
            ]


# --- Intel ----------------------------------------------------------------------------------------


class Xpu:
    """torch.xpu. GPUs as (name, free, total); free None: the driver does not tell."""

    def __init__(self, *gpus: tuple[str, int | None, int], bf16: bool = True) -> None:
        self.gpus, self.bf16 = gpus, bf16

    def is_available(self) -> bool:
        return bool(self.gpus)

    def device_count(self) -> int:
        return len(self.gpus)

    def get_device_properties(self, device: Any) -> Any:
        index = device if isinstance(device, int) else device.index
        name, _, total = self.gpus[index]
        if name == "lost":
            raise RuntimeError("level_zero backend failed with error: 20\nmore")
        return SimpleNamespace(name=name, total_memory=total, has_bfloat16_conversions=self.bf16)

    def mem_get_info(self, index: int) -> tuple[int, int]:
        _, free, total = self.gpus[index]
        if free is None:
            raise RuntimeError("The device doesn't support querying the available free memory.")
        return free, total

    def memory_reserved(self, index: int) -> int:
        return 2 * GIB

    def memory_allocated(self, index: int) -> int:
        return GIB


def intel(*gpus: tuple[str, int | None, int], built: str | None = "20260000", **k: Any) -> Any:
    version = SimpleNamespace(xpu=built, cuda=None, hip=None)
    return XpuBackend(SimpleNamespace(xpu=Xpu(*gpus, **k), version=version))


def test_gpus_of_intel_are_found_with_their_free_memory() -> None:
    backend = intel(("Arc A770", 10 * GIB, 16 * GIB), ("lost", 1, 1), ("Arc B580", None, 12 * GIB))
    found, trouble = backend.find()
    assert trouble == "xpu:1 does not respond: level_zero backend failed with error: 20"
    # Without the driver's count, all but this process's memory counts as free.
    assert [(g.device, g.free_bytes) for g in found] == [
        ("xpu:0", 11 * GIB),
        ("xpu:2", 11 * GIB),
    ]
    rows = doctor_rows([backend])
    assert rows["xpu:0"] == "Arc A770, 11.0 GiB free of 16.0 GiB, XPU 20260000"
    assert rows["xpu:2: evidence"] == UNTESTED
    with replaced(backend):
        assert choose_gpus("xpu:2")[0][0].name == "Arc B580"
        assert choose_gpus("auto")[0] == found
        compute = choose_compute("xpu", "auto")
    assert (compute.device, compute.dtype) == (torch.device("xpu:0"), torch.bfloat16)


def test_an_intel_gpu_without_bfloat16_computes_in_float16() -> None:
    with replaced(intel(("UHD", GIB, GIB), bf16=False)):
        assert choose_compute("xpu", "auto").dtype == torch.float16


@pytest.mark.parametrize(
    ("backend", "why"),
    [
        (intel(built=None), "torch is not built for XPU"),
        (intel(), "torch is built for XPU and finds no GPU"),
    ],
)
def test_a_missing_gpu_of_intel_is_an_error_and_not_the_cpu(backend: XpuBackend, why: str) -> None:
    with replaced(backend), pytest.raises(DeviceError) as caught:
        choose_gpus("xpu")
    assert caught.value.message == f"No Intel GPU can be used: {why}."
    assert caught.value.hint.startswith("Use --device cpu, or install the XPU wheel of torch")


def test_the_xpu_build_is_what_makes_a_user_expect_an_intel_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for version, expected in (("2.13.0+xpu", True), ("2.13.0+cpu", False)):
        monkeypatch.setattr(metadata, "version", lambda name, version=version: version)
        assert XpuBackend().has_driver() == expected


# --- Apple ----------------------------------------------------------------------------------------


def apple(
    *, built: bool = True, there: bool = True, macos: int = 15, held: int = GIB
) -> MpsBackend:
    facts = SimpleNamespace(
        is_built=lambda: built,
        is_available=lambda: built and there,
        is_macos_or_newer=lambda major, minor: (macos, 0) >= (major, minor),
        get_name=lambda: "Apple M2 Pro",
        get_core_count=lambda: 19,
    )
    memory = SimpleNamespace(
        recommended_max_memory=lambda: 20 * GIB, current_allocated_memory=lambda: held
    )
    return MpsBackend(SimpleNamespace(backends=SimpleNamespace(mps=facts), mps=memory))


def test_the_gpu_of_apple_shares_the_ram(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)
    backend = apple()
    found, trouble = backend.find()
    assert trouble == ""
    (gpu,) = found
    assert (gpu.device, gpu.maker, gpu.free_bytes) == ("mps:0", "Apple", 19 * GIB)
    rows = doctor_rows([backend])
    assert rows == {
        "mps:0": "Apple M2 Pro, 19.0 GiB free of 20.0 GiB, 19 cores",
        "mps:0: evidence": UNTESTED,
    }
    # What other programs hold of the RAM is not free, and what the GPU uses is not free for files.
    (budget,) = gpu_budgets(found, Allowance(), 12 * GIB)
    assert budget.device_bytes == 12 * GIB - RESERVE_BYTES
    assert budget.host_bytes == 0
    (budget,) = gpu_budgets(found, Allowance(vram=(5 * GIB,)), 12 * GIB)
    assert budget.device_bytes == 5 * GIB - RESERVE_BYTES
    assert budget.host_bytes == 7 * GIB


@pytest.mark.parametrize(
    ("macos", "dtype"), [(14, torch.bfloat16), (26, torch.bfloat16), (13, torch.float16)]
)
def test_the_number_type_on_apple(macos: int, dtype: torch.dtype) -> None:
    with replaced(apple(macos=macos)):
        compute = choose_compute("mps", "auto")
    assert (compute.device, compute.dtype) == (torch.device("mps:0"), dtype)
    assert not compute.backend.loads_ahead


def test_what_torch_may_do_on_the_cpu_instead_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    backend = apple()
    (gpu,) = backend.find()[0]
    assert doctor_rows([backend])["mps:0"].endswith("19 cores, PYTORCH_ENABLE_MPS_FALLBACK=1")
    cautions = backend.cautions(gpu)
    assert cautions[1].startswith("PYTORCH_ENABLE_MPS_FALLBACK is set, so torch computes on the")
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "0")
    assert len(backend.cautions(gpu)) == 1


@pytest.mark.parametrize(
    ("backend", "why"),
    [
        (apple(built=False), "torch is not built for MPS"),
        (apple(there=False), "torch is built for MPS and finds no GPU of Apple"),
    ],
)
def test_a_missing_gpu_of_apple_is_an_error_and_not_the_cpu(backend: MpsBackend, why: str) -> None:
    with replaced(backend), pytest.raises(DeviceError) as caught:
        choose_gpus("mps")
    assert caught.value.message == f"No Apple GPU can be used: {why}."
    assert caught.value.hint.startswith("Use --device cpu")


def test_a_mac_with_an_apple_chip_has_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    for system, machine, expected in (
        ("darwin", "arm64", True),
        ("darwin", "x86_64", False),
        ("linux", "arm64", False),
    ):
        monkeypatch.setattr(sys, "platform", system)
        monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
        assert MpsBackend().has_driver() == expected


# --- all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MPS backend out of memory (MPS allocated: 5.56 GB, other allocations: 1.10 GB)", True),
        ("level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)", True),
        ("MPS: something else", False),
    ],
)
def test_memory_that_ran_out_without_an_error_type_of_its_own(text: str, expected: bool) -> None:
    assert out_of_memory(RuntimeError(text)) == expected
    assert not out_of_memory(ValueError(text))


@pytest.mark.parametrize("word", ["cuda", "xpu", "mps", "xpu:1", "mps:0"])
def test_every_kind_of_gpu_is_a_device_word(word: str) -> None:
    backend = parse_device(word).backend
    assert backend is not None
    assert backend.kind == word.partition(":")[0]


def test_a_computer_without_gpus_has_one_reason_in_the_report() -> None:
    nothing = SimpleNamespace(is_available=lambda: False)
    version = SimpleNamespace(cuda=None, hip=None)
    backends: list[Backend] = [
        CudaBackend(SimpleNamespace(cuda=nothing, version=version)),
        intel(built=None),
        apple(built=False),
    ]
    assert doctor_rows(backends) == {"none": "torch is a CPU build"}


# --- the table of measured cards ------------------------------------------------------------------

CARD = MeasuredCard(
    name="NVIDIA GeForce RTX 4060( Ti)?",
    maker="NVIDIA",
    architecture="8.9",
    date="2027-01-02",
    torch="2.13.0+cu130",
    total_bytes=8 * GIB,
    encode_s=6.4,
    prefill_s=1.6,
    decode_tokens_per_s=41.04,
)


def _gpu(name: str, maker: str, architecture: str) -> Gpu:
    return Gpu(
        kind="cuda", index=0, name=name, maker=maker, architecture=architecture,
        free_bytes=GIB, total_bytes=GIB,
    )  # fmt: skip


NOT_YOURS = "this GPU path has not been measured on your kind of card"


@pytest.mark.parametrize(
    ("gpu", "expected"),
    [
        (
            _gpu("nvidia geforce rtx 4060", "NVIDIA", "8.9"),
            "measured on 2027-01-02 with torch 2.13.0+cu130: 41 tokens/s, a new picture in 8.00 s",
        ),
        (_gpu("NVIDIA GeForce RTX 4060 Laptop GPU", "NVIDIA", "8.9"), NOT_YOURS),
        (_gpu("NVIDIA GeForce RTX 4060", "NVIDIA", "9.0"), NOT_YOURS),
        (_gpu("AMD Radeon RX 7900 XTX", "AMD", "gfx1100"), UNTESTED),
    ],
)
def test_only_a_card_of_the_table_counts_as_measured(gpu: Gpu, expected: str) -> None:
    assert evidence(gpu, [CARD]) == expected
    assert evidence(gpu) == UNTESTED  # no card was measured so far
    assert remark_on(gpu, [CARD]) == (
        "" if "measured on 2" in expected else f"cuda:0 ({gpu.name}): {expected}."
    )
