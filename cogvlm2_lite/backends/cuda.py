"""NVIDIA's GPUs, and AMD's if torch is built for ROCm, which has the same API."""

from __future__ import annotations

import ctypes
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogvlm2_lite.backends.base import Backend, CaptureGraph, Graph, Upload
from cogvlm2_lite.backends.device import Gpu
from cogvlm2_lite.errors import DeviceError
from cogvlm2_lite.text import Text, joined

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_NO_GPU_HINT = "Use --device cpu, or install the CUDA wheel of torch (see README) and a driver."
_CUDA_ERROR_MEMORY_ALLOCATION = 2


class CudaBackend(Backend):
    """GPUs that torch reaches through CUDA.

    torch  the module used to query devices; None: torch itself, imported when it is needed
    """

    kind = "cuda"
    uses_ram = False
    four_bit_kernels = ("cuda", "torch")
    measures_attention = True

    def __init__(self, torch: Any = None) -> None:
        self._given = torch

    @property
    def _torch(self) -> Any:
        if self._given is not None:
            return self._given
        import torch

        return torch

    # --- which devices there are ------------------------------------------------------------------

    def has_driver(self) -> bool:
        """Return whether NVIDIA's or AMD's driver is installed."""
        try:
            ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        except OSError:
            return Path("/dev/kfd").exists()  # AMD's
        return True

    def find(self) -> tuple[tuple[Gpu, ...], Text]:
        """Return the GPUs that can be used, and why others can't."""
        torch = self._torch
        with warnings.catch_warnings(record=True) as caught:
            # torch reports an old driver in a warning of several lines.
            warnings.simplefilter("always")
            there = torch.cuda.is_available()
        if not there:
            return (), _why_none(torch, [str(warning.message) for warning in caught])
        usable, troubles = [], []
        for index in range(torch.cuda.device_count()):
            try:
                found = self._look_at(index)
            except RuntimeError as error:  # the driver lost it, or another program owns it alone
                first_line = str(error).strip().partition("\n")[0].rstrip(".")
                found = Text("cuda:{index} does not respond: {why}", index=index, why=first_line)
            if isinstance(found, Gpu):
                usable.append(found)
            else:
                troubles.append(found)
        usable.sort(key=lambda gpu: (-gpu.free_bytes, gpu.index))
        return tuple(usable), joined(troubles)

    def _look_at(self, index: int) -> Gpu | Text:
        """Return a GPU, or why this torch can't use it."""
        cuda = self._torch.cuda
        properties = cuda.get_device_properties(index)
        lowest = min((_digits(arch) for arch in cuda.get_arch_list() if "sm_" in arch), default=0)
        if properties.major * 10 + properties.minor < lowest:
            return Text(
                "cuda:{index} ({name}) has compute capability {version}, but this torch needs "
                "{least} or more",
                index=index,
                name=properties.name,
                version=f"{properties.major}.{properties.minor}",
                least=f"{lowest // 10}.{lowest % 10}",
            )
        free, total = cuda.mem_get_info(index)
        cached = cuda.memory_reserved(index) - cuda.memory_allocated(index)
        return Gpu(
            kind=self.kind,
            index=index,
            name=properties.name,
            free_bytes=free + cached,
            total_bytes=total,
        )

    def no_gpu_error(self, reason: str) -> DeviceError:
        """Return the error for a user who asked for a GPU where there is none."""
        return DeviceError("No NVIDIA GPU can be used: {why}.", hint=_NO_GPU_HINT, why=reason)

    def describe(self, gpu: Gpu) -> str:
        """Return the compute capability, and the CUDA version that torch is built for."""
        properties = self._torch.cuda.get_device_properties(gpu.index)
        capability = f"{properties.major}.{properties.minor}"
        return f"compute capability {capability}, CUDA {self._torch.version.cuda}"

    def remedy(self, trouble: str) -> str:
        """Return which of torch and the driver to replace."""
        if not (self._torch.version.cuda or self._torch.version.hip):
            return "Install torch's CUDA wheel (see README)."
        return "Install a newer driver." if "driver" in trouble else ""

    # --- computing --------------------------------------------------------------------------------

    def choose_dtype(self, device: torch.device) -> tuple[str, Text]:
        """Return bfloat16, or float16 where bfloat16 would be emulated."""
        cuda = self._torch.cuda
        with cuda.device(device):
            has_bf16 = cuda.is_bf16_supported(including_emulation=False)
        if has_bf16:
            return "bfloat16", Text("the GPU computes bfloat16")
        return "float16", Text("the GPU has no bfloat16, so float16")

    def upload(self, device: torch.device) -> Upload:
        """Return an object that uploads through pinned memory, on its own stream."""
        from cogvlm2_lite.backends.pinned import PinnedUpload

        return PinnedUpload(device)

    def staged(self, tensor: Tensor) -> Tensor:
        """Return a pinned copy: a copy from other memory blocks the host."""
        return tensor.pin_memory()

    def graph_capture(self, device: torch.device) -> CaptureGraph | None:
        """Return a function that captures a CUDA graph."""
        return partial(_capture, device)

    def synchronize(self, device: torch.device) -> None:
        """Wait for all streams of a GPU."""
        import torch

        torch.cuda.synchronize(device)

    # --- memory -----------------------------------------------------------------------------------

    def held_bytes(self, device: torch.device) -> int:
        """Return the bytes of this process's tensors."""
        import torch

        held: int = torch.cuda.memory_allocated(device)
        return held

    def reset_peak(self, device: torch.device) -> None:
        """Reset the peak that torch's allocator records."""
        import torch

        torch.cuda.reset_peak_memory_stats(device)

    def peak_bytes(self, device: torch.device) -> int:
        """Return the peak that torch's allocator recorded."""
        import torch

        highest: int = torch.cuda.max_memory_allocated(device)
        return highest

    def release_unused(self) -> None:
        """Empty the cache of torch's allocator."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    # --- failures ---------------------------------------------------------------------------------

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether memory ran out: in torch's allocator, or in one of the driver's own calls.

        The driver's error number, which torch keeps in `error_code`, distinguishes it from other
        failures.
        """
        import torch

        code = getattr(error, "error_code", None)
        refused = (
            isinstance(error, torch.AcceleratorError) and code == _CUDA_ERROR_MEMORY_ALLOCATION
        )
        return refused or super().is_out_of_memory(error)


def _why_none(torch: Any, caught: list[str]) -> Text:
    built = torch.version.cuda or torch.version.hip
    if not built:
        return Text("torch is a CPU build")
    if caught:
        return Text(caught[0].removeprefix("CUDA initialization: ").partition(". ")[0].rstrip("."))
    return Text("torch is built for {version} and finds none", version=built)


def _digits(text: str) -> int:
    return int("".join(letter for letter in text if letter.isdecimal()))


def _capture(device: torch.device, work: Callable[[], Tensor]) -> Graph:
    """Capture work as a CUDA graph. Raises RuntimeError if it can't be captured."""
    import torch

    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    # thread_local: other threads may allocate memory during the capture.
    with (
        torch.cuda.device(device),
        torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
    ):
        output = work()

    def replay() -> None:
        with torch.cuda.device(device):
            graph.replay()

    return Graph(replay=replay, output=output)
