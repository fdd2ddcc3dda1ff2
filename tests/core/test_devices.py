"""Threads are set up before torch is imported, never against the user; number types are chosen."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from cogvlm2_lite import devices
from cogvlm2_lite.backends.cpu import CpuBackend
from cogvlm2_lite.backends.registry import backend_of, replaced
from cogvlm2_lite.devices import choose_compute, parse_device, prepare_threads, thread_count
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.units import GIB
from tests.helpers.fake_backends import FakeCuda, gpu

VARIABLES = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")
ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process that has not imported torch and whose user has set nothing."""
    for name in (*VARIABLES, *ALLOCATOR):
        monkeypatch.setenv(name, "")  # so that it is put back whatever happens
        monkeypatch.delenv(name)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "torch")
    return monkeypatch


def test_idle_threads_sleep_and_their_number_is_set(fresh: pytest.MonkeyPatch) -> None:
    prepare_threads()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert os.environ["OMP_NUM_THREADS"] == str(thread_count())


def test_what_the_user_has_set_stays(fresh: pytest.MonkeyPatch) -> None:
    fresh.setenv("OMP_WAIT_POLICY", "ACTIVE")
    fresh.setenv("OMP_NUM_THREADS", "3")
    prepare_threads()
    assert [os.environ[name] for name in VARIABLES] == ["ACTIVE", "3"]


def test_after_torch_is_imported_nothing_is_pretended(fresh: pytest.MonkeyPatch) -> None:
    fresh.setitem(sys.modules, "torch", sys)
    prepare_threads()
    assert not set(VARIABLES) & set(os.environ)


def allocator_options() -> dict[str, str]:
    return {name: os.environ[name] for name in ALLOCATOR if name in os.environ}


def test_the_allocator_of_gpus_grows_its_segments(
    fresh: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fresh.setattr(devices, "_NVIDIA_ON_LINUX", tmp_path / "version")
    prepare_threads()
    assert allocator_options() == {}, "on Windows, WSL, ROCm, and without a GPU"
    (tmp_path / "version").touch()
    prepare_threads()
    assert allocator_options() == {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}


@pytest.mark.parametrize("name", ALLOCATOR)
def test_options_of_the_allocator_that_the_user_has_set_stay(
    fresh: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    fresh.setattr(devices, "_NVIDIA_ON_LINUX", tmp_path)
    fresh.setenv(name, "backend:cudaMallocAsync")
    prepare_threads()
    assert allocator_options() == {name: "backend:cudaMallocAsync"}


@pytest.mark.parametrize(
    ("native", "dtype", "reason"),
    [
        (True, torch.bfloat16, "the GPU computes bfloat16"),
        (False, torch.float16, "the GPU has no bfloat16, so float16"),
    ],
)
def test_a_gpu_without_bfloat16_computes_in_float16(
    native: bool, dtype: torch.dtype, reason: str
) -> None:
    def is_supported(*, including_emulation: bool) -> bool:
        return native or including_emulation

    cuda = SimpleNamespace(is_bf16_supported=is_supported, device=lambda device: nullcontext())
    card = gpu("RTX 2060", free_bytes=5 * GIB, total_bytes=6 * GIB)
    with replaced(FakeCuda(card, torch=SimpleNamespace(cuda=cuda))):
        found = choose_compute("auto", "auto")
        assert (found.device, found.dtype, found.reason) == (torch.device("cuda:0"), dtype, reason)
        assert choose_compute("auto", "float32").dtype == torch.float32
        assert choose_compute("auto", "float16").dtype == torch.float16
        if native:
            assert choose_compute("auto", "bfloat16").dtype == torch.bfloat16
            return
        with pytest.raises(UsageError) as caught:
            choose_compute("auto", "bfloat16")
        assert caught.value.message == (
            "The GPU cuda:0 (RTX 2060) does not compute bfloat16: it would emulate it, several "
            "times slower."
        )
        assert caught.value.hint == "Use --dtype float16 or --dtype auto."


class Turing(FakeCuda):
    """A back end whose second GPU has no bfloat16."""

    def emulates(self, device: torch.device, dtype: str) -> bool:
        return device.index == 1 and dtype == "bfloat16"


def test_all_gpus_compute_in_a_type_that_each_of_them_has() -> None:
    new = gpu("RTX 3090", free_bytes=20 * GIB, total_bytes=24 * GIB)
    old = gpu("RTX 2060", index=1, free_bytes=5 * GIB, total_bytes=6 * GIB)
    with replaced(Turing(new, old)):
        assert choose_compute("cuda", "auto").dtype == torch.float16
        assert choose_compute("cuda:0", "auto").dtype == torch.bfloat16
        assert choose_compute("cuda:0", "bfloat16").dtype == torch.bfloat16
        with pytest.raises(UsageError, match=r"cuda:1 \(RTX 2060\) does not compute bfloat16"):
            choose_compute("cuda", "bfloat16")


def test_a_cpu_computes_in_bfloat16_where_it_multiplies_it_natively() -> None:
    with replaced(CpuBackend(has_bf16=True)):
        assert choose_compute("cpu", "auto").dtype == torch.bfloat16
    with replaced(CpuBackend(has_bf16=False)):
        assert choose_compute("cpu", "auto").dtype == torch.float32


def test_a_device_word_names_a_back_end_and_perhaps_a_number() -> None:
    assert parse_device("auto").backend is None
    assert parse_device("cpu").backend is backend_of("cpu")
    assert (parse_device("cuda").backend, parse_device("cuda").index) == (backend_of("cuda"), None)
    assert parse_device("cuda:1").index == 1


def test_a_replaced_back_end_serves_every_device_of_its_kind_and_leaves() -> None:
    real, fake = backend_of("cuda:1"), FakeCuda()
    with replaced(fake):
        assert backend_of(torch.device("cuda:1")) is backend_of("cuda") is fake
        assert backend_of("cpu") is not fake
    assert backend_of("cuda") is real


@pytest.mark.parametrize(
    ("cores", "threads"), [(1, 1), (2, 2), (3, 3), (4, 3), (16, 15), (None, 1)]
)
def test_one_core_of_four_or_more_is_left_alone(
    cores: int | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: cores)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(64), raising=False)
    assert thread_count() == threads
