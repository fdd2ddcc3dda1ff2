"""Intel's GPUs, with torch's XPU build. Nothing here has run on one."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

from cogvlm2_lite.backends.base import (
    Backend,
    Upload,
    fallback_cautions,
    fallback_of,
    untested,
)
from cogvlm2_lite.backends.device import Gpu
from cogvlm2_lite.errors import DeviceError
from cogvlm2_lite.text import Text, joined

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_FALLBACK = "PYTORCH_ENABLE_XPU_FALLBACK"
_OUT_OF_MEMORY = "OUT_OF_DEVICE_MEMORY"
"""The driver's word (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY) in errors that have no type of their
own."""


class XpuBackend(Backend):
    """GPUs that torch reaches through SYCL.

    torch  the module used to query devices; None: torch itself, imported when it is needed
    """

    kind = "xpu"
    uses_ram = False
    four_bit_kernels = ("xpu", "torch")
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
        """Return whether torch is its XPU build, which a user installs on purpose.

        The driver itself says little: most Windows computers have Intel's.
        """
        try:
            return "xpu" in metadata.version("torch")
        except metadata.PackageNotFoundError:
            return False

    def find(self) -> tuple[tuple[Gpu, ...], Text]:
        """Return the GPUs that can be used, and why others can't."""
        torch = self._torch
        if not getattr(torch.version, "xpu", None):
            return (), Text("torch is not built for XPU")
        if not torch.xpu.is_available():
            return (), Text("torch is built for XPU and finds no GPU")
        usable, troubles = [], []
        for index in range(torch.xpu.device_count()):
            try:
                usable.append(self._look_at(index))
            except RuntimeError as error:
                first_line = str(error).strip().partition("\n")[0].rstrip(".")
                troubles.append(
                    Text("xpu:{index} does not respond: {why}", index=index, why=first_line)
                )
        usable.sort(key=lambda gpu: (-gpu.free_bytes, gpu.index))
        return tuple(usable), joined(troubles)

    def _look_at(self, index: int) -> Gpu:
        xpu = self._torch.xpu
        properties = xpu.get_device_properties(index)
        held = xpu.memory_reserved(index)
        try:
            free, total = xpu.mem_get_info(index)
        except RuntimeError:  # not every driver counts the memory of other programs
            free, total = properties.total_memory - held, properties.total_memory
        return Gpu(
            kind=self.kind,
            index=index,
            name=properties.name,
            free_bytes=free + held - xpu.memory_allocated(index),
            total_bytes=total,
            maker="Intel",
        )

    def no_gpu_error(self, reason: str) -> DeviceError:
        """Return the error for a user who asked for such a GPU, if none can be used."""
        return DeviceError(
            "No {maker} GPU can be used: {why}.",
            hint="Use --device cpu, or install the {build} wheel of torch (see README) and a "
            "driver.",
            maker="Intel",
            why=reason,
            build="XPU",
        )

    def describe(self, gpu: Gpu) -> str:
        """Return what torch is built for, and whether it may compute on the CPU instead."""
        return f"XPU {self._torch.version.xpu}{fallback_of(_FALLBACK)}"

    def cautions(self, gpu: Gpu) -> tuple[Text, ...]:
        """Return that Intel's GPUs are untested, and that torch may compute on the CPU instead."""
        return untested(gpu), *fallback_cautions(_FALLBACK)

    # --- computing --------------------------------------------------------------------------------

    def choose_dtype(self, device: torch.device) -> tuple[str, Text]:
        """Return bfloat16, or float16 where bfloat16 would be emulated."""
        if not self.emulates(device, "bfloat16"):
            return "bfloat16", Text("the GPU computes bfloat16")
        return "float16", Text("the GPU has no bfloat16, so float16")

    def emulates(self, device: torch.device, dtype: str) -> bool:
        """Return True for bfloat16 on GPUs without it."""
        properties = self._torch.xpu.get_device_properties(device)
        return dtype == "bfloat16" and not properties.has_bfloat16_conversions

    def upload(self, device: torch.device) -> Upload:
        """Return an object that uploads through pinned memory, on its own stream."""
        from cogvlm2_lite.backends.pinned import PinnedUpload

        return PinnedUpload(device)

    def staged(self, tensor: Tensor) -> Tensor:
        """Return a pinned copy: a copy from other memory blocks the host."""
        from cogvlm2_lite.backends.pinned import pinned_or_same

        return pinned_or_same(tensor)

    def synchronize(self, device: torch.device) -> None:
        """Wait for all streams of a GPU."""
        import torch

        torch.xpu.synchronize(device)

    # --- memory -----------------------------------------------------------------------------------

    def held_bytes(self, device: torch.device) -> int:
        """Return the bytes of this process's tensors."""
        import torch

        held: int = torch.xpu.memory_allocated(device)
        return held

    def reset_peak(self, device: torch.device) -> None:
        """Reset the peak that torch's allocator records."""
        import torch

        torch.xpu.reset_peak_memory_stats(device)

    def peak_bytes(self, device: torch.device) -> int:
        """Return the peak that torch's allocator recorded."""
        import torch

        highest: int = torch.xpu.max_memory_allocated(device)
        return highest

    def release_unused(self) -> None:
        """Empty the cache of torch's allocator."""
        import torch

        if torch.xpu.is_available():
            torch.xpu.empty_cache()

    # --- failures ---------------------------------------------------------------------------------

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether memory ran out: in torch's allocator, or inside a kernel."""
        refused = isinstance(error, RuntimeError) and _OUT_OF_MEMORY in str(error)
        return refused or super().is_out_of_memory(error)
