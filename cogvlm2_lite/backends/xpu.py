"""Intel's GPUs, with torch's XPU build. Nothing here has run on one."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

from cogvlm2_lite.backends.base import (
    fallback_cautions,
    fallback_of,
    untested,
)
from cogvlm2_lite.backends.device import Gpu
from cogvlm2_lite.backends.torch_gpu import TorchGpu
from cogvlm2_lite.text import Text

if TYPE_CHECKING:
    import torch

_FALLBACK = "PYTORCH_ENABLE_XPU_FALLBACK"
_OUT_OF_MEMORY = "OUT_OF_DEVICE_MEMORY"
"""The driver's word (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY) in errors that have no type of their
own."""


class XpuBackend(TorchGpu):
    """GPUs that torch reaches through SYCL."""

    kind = "xpu"
    four_bit_kernels = ("xpu", "torch")

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
        return self._find_each()

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

    @property
    def _maker(self) -> str:
        return "Intel"

    @property
    def _wanted_build(self) -> str:
        return "XPU"

    def describe(self, gpu: Gpu) -> str:
        """Return what torch is built for, and whether it may compute on the CPU instead."""
        return f"XPU {self._torch.version.xpu}{fallback_of(_FALLBACK)}"

    def cautions(self, gpu: Gpu) -> tuple[Text, ...]:
        """Return that Intel's GPUs are untested, and that torch may compute on the CPU instead."""
        return untested(gpu), *fallback_cautions(_FALLBACK)

    # --- computing --------------------------------------------------------------------------------

    def emulates(self, device: torch.device, dtype: str) -> bool:
        """Return True for bfloat16 on GPUs without it."""
        properties = self._torch.xpu.get_device_properties(device)
        return dtype == "bfloat16" and not properties.has_bfloat16_conversions

    # --- failures ---------------------------------------------------------------------------------

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether memory ran out: in torch's allocator, or inside a kernel."""
        refused = isinstance(error, RuntimeError) and _OUT_OF_MEMORY in str(error)
        return refused or super().is_out_of_memory(error)
