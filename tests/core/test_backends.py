"""The core asks the back end of a device: one object in its place changes what the core does."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from cogvlm2_lite.backends.base import Graph, HostCopy, NewCapture, Outgoing, Upload
from cogvlm2_lite.backends.cpu import CpuBackend
from cogvlm2_lite.backends.cpu_level import CPU_LEVEL
from cogvlm2_lite.backends.cuda import CudaBackend
from cogvlm2_lite.backends.registry import accelerators, backend_of, backends, replaced
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.model import open_model
from cogvlm2_lite.engine.replan import out_of_memory
from cogvlm2_lite.events import Finished
from cogvlm2_lite.forecast.machine import this_cpu
from cogvlm2_lite.memory.plan import DeviceBudget
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.weights.kernels.choice import KERNELS, choose_kernels
from tests.helpers.folders import random_folder


class Watched(CpuBackend):
    """The CPU as a device with an upload and with recorded decode steps; counts what is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = self.waits = self.recorded = self.staged_copies = 0
        self.threads = set[str]()

    def upload(self, device: torch.device) -> Upload:
        return WatchedUpload(self)

    def staged(self, tensor: Tensor) -> Tensor:
        self.staged_copies += 1
        return tensor.clone()

    def graph_capture(self, device: torch.device) -> NewCapture | None:
        return lambda: self._record

    def _record(self, work: object) -> Graph:
        self.recorded += 1
        raise RuntimeError("nothing can be recorded here")


class WatchedUpload(Upload):
    """Copies every piece."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    def __enter__(self) -> WatchedUpload:
        return self

    def __exit__(self, *error: object) -> None:
        return

    def send(
        self,
        pieces: Sequence[Outgoing],
        room: Tensor | None = None,
        kept: HostCopy | None = None,
    ) -> list[Tensor]:
        self._watched.sent += len(pieces)
        self._watched.threads.add(threading.current_thread().name)
        return [piece.tensor.clone().to(piece.dtype) for piece in pieces]

    def wait_for_computing(self) -> None:
        self._watched.waits += 1


def answer(folder: Path) -> str:
    model = open_model(
        folder,
        compute=choose_compute("cpu", "float32"),
        budgets=[DeviceBudget(device="cpu", in_ram=True, device_bytes=1 << 30)],
    )
    *_, last = model.answer("What?", sampling=Sampling(max_new_tokens=6))
    model.runtime.residency.release()
    assert isinstance(last, Finished)
    return last.text


def test_upload_inputs_and_recording_come_from_the_back_end(tmp_path: Path) -> None:
    folder = random_folder(tmp_path / "model")
    expected = answer(folder)
    with replaced(watched := Watched()):
        assert answer(folder) == expected
    assert min(watched.sent, watched.waits, watched.recorded, watched.staged_copies) > 0


def test_weights_are_loaded_by_the_thread_that_computes_where_two_threads_are_too_many(
    tmp_path: Path,
) -> None:
    class Alone(Watched):
        loads_ahead = False

    folder = random_folder(tmp_path / "model")
    with replaced(usual := Watched()):
        expected = answer(folder)
    with replaced(alone := Alone()):
        assert answer(folder) == expected
    here = threading.current_thread().name
    assert usual.threads > {here}
    assert alone.threads == {here}


def test_a_back_end_names_kernels_that_exist() -> None:
    for backend in backends():
        assert set(backend.four_bit_kernels) <= set(KERNELS)
        assert backend_of(backend.kind) is backend
    assert [backend.kind for backend in accelerators()] == ["cuda", "xpu", "mps"]


def test_the_kernels_are_tried_in_the_order_of_the_back_end() -> None:
    class Plain(CpuBackend):
        four_bit_kernels: ClassVar[tuple[str, ...]] = ("torch",)

    with replaced(Plain()):
        assert choose_kernels(torch.device("cpu"), torch.float32).name == "torch"


def test_memory_that_ran_out_is_recognised_by_the_back_end() -> None:
    class Fragile(CudaBackend):
        def is_out_of_memory(self, error: Exception) -> bool:
            return isinstance(error, ZeroDivisionError) or super().is_out_of_memory(error)

    assert out_of_memory(torch.OutOfMemoryError())
    assert not out_of_memory(ZeroDivisionError())
    with replaced(Fragile()):
        assert out_of_memory(ZeroDivisionError())
        assert out_of_memory(torch.OutOfMemoryError())


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasLtCreate(&handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
        "cusparse error: CUSPARSE_STATUS_INSUFFICIENT_RESOURCES",
        "cuFFT error: CUFFT_ALLOC_FAILED",
        "CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`",
        "miopenStatusAllocFailed",
        "CUDA driver error: out of memory",
    ],
)
def test_a_library_of_the_driver_without_memory_is_recognised(text: str) -> None:
    assert out_of_memory(RuntimeError(text))
    assert not out_of_memory(ValueError(text))


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`",
        "cuDNN error: CUDNN_STATUS_BAD_PARAM",
        "CUDA error: an illegal memory access was encountered",
        "mat1 and mat2 shapes cannot be multiplied",
    ],
)
def test_other_failures_are_not_taken_for_a_lack_of_memory(text: str) -> None:
    assert not out_of_memory(RuntimeError(text))


def test_an_unknown_device_has_no_back_end() -> None:
    with pytest.raises(KeyError):
        backend_of("tpu:0")


def test_a_lower_level_of_instructions_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for level in ("avx2", "avx-vnni"):
        monkeypatch.setenv(CPU_LEVEL, level)
        assert not CpuBackend().has_bf16
        assert not CpuBackend().has_amx
        assert CpuBackend().choose_dtype(cpu)[0] == "float32"
        assert not this_cpu().has_bf16
        assert not this_cpu().has_amx
    monkeypatch.setenv(CPU_LEVEL, "avx512")
    assert not CpuBackend().has_amx
    assert not this_cpu().has_amx
