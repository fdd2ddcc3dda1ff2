"""Apple's GPUs, with torch's MPS. Nothing here has run on one.

Their memory is the computer's RAM, but torch's tensors for them are buffers of their own: weights
are copied there, and stay in the system's file cache, too, as long as there is room.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cogvlm2_lite.backends.base import (
    Backend,
    HostCopy,
    Outgoing,
    Upload,
    fallback_cautions,
    fallback_of,
    untested,
)
from cogvlm2_lite.backends.device import Gpu
from cogvlm2_lite.errors import DeviceError
from cogvlm2_lite.text import Text

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_FALLBACK = "PYTORCH_ENABLE_MPS_FALLBACK"
_OUT_OF_MEMORY = "MPS backend out of memory"
"""How torch reports it: as a plain RuntimeError (pytorch/aten/src/ATen/mps/MPSAllocator.mm)."""
_LEAST_MACOS = (14, 0)
"""The first system whose Metal has bfloat16."""


class MpsBackend(Backend):
    """The GPU of an Apple chip.

    bitsandbytes' kernels for it are downloaded from the internet when they are first used, so
    torch's own operations dequantize here.

    torch  the module used to query the device; None: torch itself, imported when it is needed
    """

    kind = "mps"
    uses_ram = False
    four_bit_kernels = ("torch",)
    measures_attention = True
    # Tensor operations of two threads at once end the process (pytorch/pytorch#197805).
    loads_ahead = False

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
        """Return whether this is a Mac with an Apple chip: its system has the driver."""
        return sys.platform == "darwin" and platform.machine() == "arm64"

    def find(self) -> tuple[tuple[Gpu, ...], Text]:
        """Return the GPU, or why it can't be used."""
        torch = self._torch
        if not torch.backends.mps.is_built():
            return (), Text("torch is not built for MPS")
        if not torch.backends.mps.is_available():
            return (), Text("torch is built for MPS and finds no GPU of Apple")
        total = torch.mps.recommended_max_memory()
        gpu = Gpu(
            kind=self.kind,
            index=0,
            name=torch.backends.mps.get_name(),
            # What this process caches can be used again.
            free_bytes=max(0, total - torch.mps.current_allocated_memory()),
            total_bytes=total,
            maker="Apple",
            shares_ram=True,
        )
        return (gpu,), Text()

    def no_gpu_error(self, reason: str) -> DeviceError:
        """Return the error for a user who asked for this GPU, if it can't be used."""
        return DeviceError(
            "No {maker} GPU can be used: {why}.",
            hint="Use --device cpu; Apple's GPUs need macOS and an Apple chip.",
            maker="Apple",
            why=reason,
        )

    def describe(self, gpu: Gpu) -> str:
        """Return how many cores the GPU has, and whether torch may compute on the CPU instead."""
        return f"{self._torch.backends.mps.get_core_count()} cores{fallback_of(_FALLBACK)}"

    def cautions(self, gpu: Gpu) -> tuple[Text, ...]:
        """Return that Apple's GPUs are untested, and that torch may compute on the CPU instead."""
        return untested(gpu), *fallback_cautions(_FALLBACK)

    # --- computing --------------------------------------------------------------------------------

    def choose_dtype(self, device: torch.device) -> tuple[str, Text]:
        """Return bfloat16, or float16 on a macOS whose Metal has no bfloat16."""
        if self._torch.backends.mps.is_macos_or_newer(*_LEAST_MACOS):
            return "bfloat16", Text("the GPU computes bfloat16")
        return "float16", Text("the GPU has no bfloat16, so float16")

    def upload(self, device: torch.device) -> Upload:
        """Return an object that copies one weight after the other."""
        return _Copies(device)

    def staged(self, tensor: Tensor) -> Tensor:
        """Return a copy on the GPU: there is no pinned memory, and a copy must end before its
        source is released."""
        import torch

        return tensor.to(torch.device(self.kind))

    def synchronize(self, device: torch.device) -> None:
        """Wait for the GPU."""
        import torch

        torch.mps.synchronize()

    # --- memory -----------------------------------------------------------------------------------

    def held_bytes(self, device: torch.device) -> int:
        """Return the bytes of this process's tensors."""
        import torch

        return torch.mps.current_allocated_memory()

    def reset_peak(self, device: torch.device) -> None:
        """Do nothing: torch records no peak for this GPU."""
        return

    def peak_bytes(self, device: torch.device) -> int:
        """Return 0: torch records no peak for this GPU."""
        return 0

    def release_unused(self) -> None:
        """Empty the cache of torch's allocator."""
        import torch

        if torch.backends.mps.is_available():
            torch.mps.empty_cache()

    # --- failures ---------------------------------------------------------------------------------

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether memory ran out, which torch reports only in the text of an error."""
        refused = isinstance(error, RuntimeError) and str(error).startswith(_OUT_OF_MEMORY)
        return refused or super().is_out_of_memory(error)


class _Copies(Upload):
    """Copies that have ended when `send` returns; the GPU has one queue, which keeps the order."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def send(
        self,
        pieces: Sequence[Outgoing],
        room: Tensor | None = None,
        kept: HostCopy | None = None,
    ) -> list[Tensor]:
        return [piece.tensor.to(piece.dtype).to(self._device) for piece in pieces]

    def wait_for_computing(self) -> None:
        return
