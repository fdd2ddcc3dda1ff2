"""What NVIDIA's, AMD's and Intel's GPUs have in common: torch has the same functions for them."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from cogvlm2_lite.backends.base import Backend, Upload
from cogvlm2_lite.backends.device import Gpu
from cogvlm2_lite.errors import DeviceError
from cogvlm2_lite.text import Text, joined

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class TorchGpu(Backend):
    """GPUs with a module of their own in torch (`torch.cuda`, `torch.xpu`), named as their kind.

    torch  the module used to query devices; None: torch itself, imported when it is needed
    """

    uses_ram = False
    measures_attention = True

    def __init__(self, torch: Any = None) -> None:
        self._given = torch

    @property
    def _torch(self) -> Any:
        if self._given is not None:
            return self._given
        import torch

        return torch

    @property
    def _real(self) -> Any:
        """The functions that act on real devices, also where queries go to a given module."""
        import torch

        return getattr(torch, self.kind)

    # --- which devices there are ------------------------------------------------------------------

    def _find_each(self) -> tuple[tuple[Gpu, ...], Text]:
        """Look at every device: return those that can be used, most free memory first."""
        usable, troubles = [], []
        for index in range(getattr(self._torch, self.kind).device_count()):
            try:
                found = self._look_at(index)
            except RuntimeError as error:  # the driver lost it, or another program owns it alone
                first_line = str(error).strip().partition("\n")[0].rstrip(".")
                place = f"{self.kind}:{index}"
                found = Text("{gpu} does not respond: {why}", gpu=place, why=first_line)
            if isinstance(found, Gpu):
                usable.append(found)
            else:
                troubles.append(found)
        usable.sort(key=lambda gpu: (-gpu.free_bytes, gpu.index))
        return tuple(usable), joined(troubles)

    @abstractmethod
    def _look_at(self, index: int) -> Gpu | Text:
        """Return a GPU, or why this torch can't use it. Raises RuntimeError if it is lost."""

    @property
    @abstractmethod
    def _maker(self) -> str:
        """The maker of the GPUs."""

    @property
    @abstractmethod
    def _wanted_build(self) -> str:
        """The build of torch that this computer needs."""

    def no_gpu_error(self, reason: str) -> DeviceError:
        """Return the error for a user who asked for such a GPU, if none can be used."""
        return DeviceError(
            "No {maker} GPU can be used: {why}.",
            hint="Use --device cpu, or install the {build} wheel of torch (see README) and a "
            "driver.",
            maker=self._maker,
            why=reason,
            build=self._wanted_build,
        )

    # --- computing --------------------------------------------------------------------------------

    def choose_dtype(self, device: torch.device) -> tuple[str, Text]:
        """Return bfloat16, or float16 where bfloat16 would be emulated."""
        if not self.emulates(device, "bfloat16"):
            return "bfloat16", Text("the GPU computes bfloat16")
        return "float16", Text("the GPU has no bfloat16, so float16")

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
        self._real.synchronize(device)

    # --- memory -----------------------------------------------------------------------------------

    def held_bytes(self, device: torch.device) -> int:
        """Return the bytes of this process's tensors."""
        return int(self._real.memory_allocated(device))

    def reset_peak(self, device: torch.device) -> None:
        """Reset the peak that torch's allocator records."""
        self._real.reset_peak_memory_stats(device)

    def peak_bytes(self, device: torch.device) -> int:
        """Return the peak that torch's allocator recorded."""
        return int(self._real.max_memory_allocated(device))

    def release_unused(self) -> None:
        """Empty the cache of torch's allocator."""
        if self._real.is_available():
            self._real.empty_cache()
