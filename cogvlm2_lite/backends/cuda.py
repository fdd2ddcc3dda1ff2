"""NVIDIA's GPUs, and AMD's if torch is built for ROCm, which has the same API.

Nothing here has run on a GPU of AMD. bitsandbytes has kernels for them; graphs and kernels are used
only where their self-tests pass, as on any GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogvlm2_lite.backends.base import Graph, KeepPace, NewCapture, untested
from cogvlm2_lite.backends.device import Gpu
from cogvlm2_lite.backends.exit_message import explain_sudden_end
from cogvlm2_lite.backends.torch_gpu import TorchGpu
from cogvlm2_lite.text import Text

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_NO_MEMORY = re.compile(
    r"\b(?:CU|HIP|ROC)[A-Z]*_(?:STATUS_)?"
    r"(?:ALLOC_FAILED|NOT_INITIALIZED|INSUFFICIENT_RESOURCES"
    r"|(?:INTERNAL_ERROR_)?(?:HOST|DEVICE)_ALLOCATION_FAILED)\b"
    r"|\bmiopenStatus(?:AllocFailed|NotInitialized)\b"
    r"|\brocblas_status_memory_error\b"
    r"|\b(?:CUDA|HIP)(?: driver)? error: (?:CUDA_ERROR_OUT_OF_MEMORY|out of memory)"
)
"""What NVIDIA's and AMD's libraries (cuBLAS, cuDNN, cuSOLVER, cuSPARSE, cuFFT, hipBLAS, MIOpen)
report when their handle or their workspace finds no memory. torch raises a plain RuntimeError with
this text and no number, so the text is all there is to recognise it by. A handle that is "not
initialized" is one whose creation failed: torch creates it right before its use."""


class CudaBackend(TorchGpu):
    """GPUs that torch reaches through CUDA."""

    kind = "cuda"
    four_bit_kernels = ("cuda", "torch")
    asked_kernels = ("own",)  # no GPU has measured them yet
    launches_kernels = True
    # cuDNN would be loaded for two convolutions of a picture, with modules and a workspace that no
    # plan has. Their patches don't overlap, so each is one matrix product.
    has_convolutions = False
    uses_slab = True

    # --- which devices there are ------------------------------------------------------------------

    def has_driver(self) -> bool:
        """Return whether NVIDIA's or AMD's driver is installed."""
        return has_nvidia_driver() or has_amd_driver()

    def find(self) -> tuple[tuple[Gpu, ...], Text]:
        """Return the GPUs that can be used, and why others can't."""
        torch = self._torch
        with warnings.catch_warnings(record=True) as caught:
            # torch reports an old driver in a warning of several lines.
            warnings.simplefilter("always")
            there = torch.cuda.is_available()
        if not there:
            return (), self._why_none([str(warning.message) for warning in caught])
        return self._find_each()

    def _look_at(self, index: int) -> Gpu | Text:
        """Return a GPU, or why this torch can't use it."""
        cuda = self._torch.cuda
        properties = cuda.get_device_properties(index)
        architecture = self._architecture(properties)
        trouble = self._too_old(index, properties, architecture)
        if trouble is not None:
            return trouble
        self._load_libraries(index)
        free, total = cuda.mem_get_info(index)
        cached = cuda.memory_reserved(index) - cuda.memory_allocated(index)
        return Gpu(
            kind=self.kind,
            index=index,
            name=properties.name,
            free_bytes=free + cached,
            total_bytes=total,
            maker=self._maker,
            architecture=architecture,
        )

    def _load_libraries(self, index: int) -> None:
        """Make torch load what the first product and attention need, so that it counts as in use.

        That is cuBLAS' handle and workspace, and modules of kernels: 100 MB and more that would be
        counted as free, and an error without a number if that is when memory is full.
        """
        if self._given is not None:
            return
        import torch

        # With too little memory for it, the plan finds out and reports it.
        with contextlib.suppress(RuntimeError):
            self.prepare()
            x = torch.zeros(16, 16, dtype=torch.float16, device=torch.device(self.kind, index))
            torch.mm(x, x)
            heads = x.view(1, 1, 16, 16)
            torch.nn.functional.scaled_dot_product_attention(heads, heads, heads)

    def _architecture(self, properties: Any) -> str:
        """Return the compute capability of NVIDIA's GPUs, the name that AMD's compiler uses."""
        if self._torch.version.hip:
            # Its features follow the name: "gfx90a:sramecc+:xnack-".
            return str(properties.gcnArchName).partition(":")[0]
        return f"{properties.major}.{properties.minor}"

    def _too_old(self, index: int, properties: Any, architecture: str) -> Text | None:
        """Return that this torch has no kernels for a GPU; None if it has them."""
        built = self._torch.cuda.get_arch_list()
        if self._torch.version.hip:
            names = [arch for arch in built if arch.startswith("gfx")]
            # A generic name such as "gfx11-generic" stands for several GPUs.
            if not names or architecture in names or any("generic" in name for name in names):
                return None
            return Text(
                "cuda:{index} ({name}) has the architecture {architecture}, but this torch is "
                "built for {names}",
                index=index,
                name=properties.name,
                architecture=architecture,
                names=", ".join(names),
            )
        lowest = min((_digits(arch) for arch in built if "sm_" in arch), default=0)
        if properties.major * 10 + properties.minor >= lowest:
            return None
        return Text(
            "cuda:{index} ({name}) has compute capability {version}, but this torch needs "
            "{least} or more",
            index=index,
            name=properties.name,
            version=architecture,
            least=f"{lowest // 10}.{lowest % 10}",
        )

    @property
    def _maker(self) -> str:
        """The maker of the GPUs that this torch, or else this computer's driver, is for."""
        if has_amd_driver() and not has_nvidia_driver():
            return "AMD"
        # An error about a missing driver comes before torch is imported.
        known = self._given is not None or "torch" in sys.modules
        return "AMD" if known and self._torch.version.hip else "NVIDIA"

    @property
    def _wanted_build(self) -> str:
        """The build of torch that this computer needs."""
        return "ROCm" if self._maker == "AMD" else "CUDA"

    @property
    def _build(self) -> str:
        """What torch is built for, with its version; "" for a CPU build."""
        version = self._torch.version
        if version.hip:
            return f"ROCm {version.hip}"
        return f"CUDA {version.cuda}" if version.cuda else ""

    def _why_none(self, caught: list[str]) -> Text:
        if not self._build:
            return Text("torch is a CPU build")
        if caught:
            first = caught[0].removeprefix("CUDA initialization: ").partition(". ")[0]
            return Text(first.rstrip("."))
        if self._wanted_build not in self._build:
            return Text(
                "torch is built for {version}, and this GPU needs a build for {build}",
                version=self._build,
                build=self._wanted_build,
            )
        return Text("torch is built for {version} and finds no GPU", version=self._build)

    def describe(self, gpu: Gpu) -> str:
        """Return the architecture, and what torch is built for."""
        named = "compute capability " if gpu.maker == "NVIDIA" else ""
        return f"{named}{gpu.architecture}, {self._build}"

    def remedy(self, trouble: str) -> str:
        """Return which of torch and the driver to replace."""
        if self._wanted_build not in self._build:
            return f"Install torch's {self._wanted_build} wheel (see README)."
        return "Install a newer driver." if "driver" in trouble else ""

    def cautions(self, gpu: Gpu) -> tuple[Text, ...]:
        """Return that AMD's GPUs are untested; NVIDIA's path runs on an emulated GPU in CI."""
        return (untested(gpu),) if gpu.maker == "AMD" else ()

    # --- computing --------------------------------------------------------------------------------

    def emulates(self, device: torch.device, dtype: str) -> bool:
        """Return True for bfloat16 on GPUs without it (compute capability below 8.0).

        There bitsandbytes needs six times as many instructions for it.
        """
        if dtype != "bfloat16":
            return False
        cuda = self._torch.cuda
        with cuda.device(device):
            return not cuda.is_bf16_supported(including_emulation=False)

    def prepare(self) -> None:
        """Make torch use its own attention kernels, and explain an end that bitsandbytes causes.

        Newer versions of torch prefer cuDNN's attention on data-centre GPUs (compute capability 9.0
        and 10.x). It makes a plan for each new shape, and every length of a prompt is a new one. A
        public report has 0.44 s per plan (modelscope/FunASR#3704); not measured here.
        """
        import torch

        explain_sudden_end()
        torch.backends.cuda.enable_cudnn_sdp(False)

    def fetch(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return copies in pinned memory: to other memory each copy would be a wait."""
        import torch

        copies = [self._host_buffer(tensor) for tensor in tensors]
        for copy, tensor in zip(copies, tensors, strict=True):
            copy.copy_(tensor, non_blocking=True)
        for device in {tensor.device for tensor in tensors}:
            torch.cuda.current_stream(device).synchronize()
        return copies

    def _host_buffer(self, tensor: Tensor) -> Tensor:
        """Return empty host memory for a copy of a tensor; pinned, unless the system has none."""
        import torch

        try:
            return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        except RuntimeError as error:
            if not self.is_out_of_memory(error):
                raise
            return torch.empty(tensor.shape, dtype=tensor.dtype)

    def cache_bytes(self, device: torch.device) -> int:
        """Return the size of the GPU's L2 cache; 0 if this torch doesn't report it."""
        properties = self._torch.cuda.get_device_properties(device)
        return int(getattr(properties, "L2_cache_size", 0))

    def graph_capture(self, device: torch.device) -> NewCapture | None:
        """Return what makes captures of CUDA graphs."""
        return partial(_Capture, device)

    def keep_pace(self) -> KeepPace:
        """Return what waits for the block before the last two."""
        return _Pace()

    # --- memory -----------------------------------------------------------------------------------

    def limit_memory(self, device: torch.device, nbytes: int) -> None:
        """Set a limit for torch's allocator on Windows and WSL.

        There the driver moves memory to RAM instead of failing, and everything becomes many times
        slower. With a limit torch itself fails, and a smaller plan is made. Elsewhere the driver
        fails, and a limit would also count what else this process does on the GPU.
        """
        if not _moves_memory_to_ram():
            return
        import torch

        _, total = torch.cuda.mem_get_info(device)
        fraction = (torch.cuda.memory_allocated(device) + nbytes) / total
        torch.cuda.set_per_process_memory_fraction(min(1.0, fraction), device)

    # --- failures ---------------------------------------------------------------------------------

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether memory ran out: in torch's allocator, the driver, or one of its libraries.

        The driver's error number, which torch keeps in `error_code`, distinguishes it from other
        failures of the driver. A library's failure has no number.
        """
        import torch

        from cogvlm2_lite.backends.pinned import is_refused

        if isinstance(error, torch.AcceleratorError):
            return is_refused(error)
        library = isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None
        return library or super().is_out_of_memory(error)


def has_nvidia_driver() -> bool:
    """Return whether NVIDIA's driver is installed."""
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    return True


def has_amd_driver() -> bool:
    """Return whether AMD's driver for computing is installed (Linux)."""
    return Path("/dev/kfd").exists()


def _moves_memory_to_ram() -> bool:
    """Return whether the driver uses RAM when a GPU's memory is full: on Windows and WSL."""
    return os.name == "nt" or Path("/dev/dxg").exists()


def _digits(text: str) -> int:
    return int("".join(letter for letter in text if letter.isdecimal()))


class _Pace:
    """Records an event after each block, and waits for that of two blocks before."""

    def __init__(self) -> None:
        self._events: deque[torch.cuda.Event] = deque()

    def __call__(self, device: torch.device) -> None:
        import torch

        # blocking: the thread sleeps while it waits.
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
        self._events.append(event)
        if len(self._events) > 2:
            self._events.popleft().synchronize()


class _Capture:
    """Captures CUDA graphs on one stream, into one pool of memory."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graphs: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()

    def __call__(self, work: Callable[[], Tensor]) -> Graph:
        """Capture work. Raises RuntimeError if it can't be captured."""
        import torch

        device, graph = self._device, torch.cuda.CUDAGraph()
        # A pool exists as long as a graph uses it.
        pool = next((other.pool() for other in self._graphs), None)
        # thread_local: other threads may allocate memory during the capture.
        with (
            torch.cuda.device(device),
            # torch does not restore the stream if the capture can't be ended.
            torch.cuda.stream(torch.cuda.current_stream(device)),
            torch.cuda.graph(
                graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"
            ),
        ):
            output = work()
        self._graphs.add(graph)

        def replay() -> None:
            with torch.cuda.device(device):
                graph.replay()

        return Graph(replay=replay, output=output)
