"""Back ends for tests: GPUs that are only described, in place of those of this computer."""

from __future__ import annotations

from typing import Any

from cogvlm2_lite.backends.cuda import CudaBackend
from cogvlm2_lite.backends.device import Gpu
from cogvlm2_lite.text import Text


def gpu(name: str, *, index: int = 0, free_bytes: int, total_bytes: int) -> Gpu:
    """Describe a GPU that CUDA reaches."""
    return Gpu(kind="cuda", index=index, name=name, free_bytes=free_bytes, total_bytes=total_bytes)


class FakeCuda(CudaBackend):
    """CUDA with given GPUs.

    gpus     best first
    trouble  why others can't be used
    driver   whether one is installed
    torch    as for CudaBackend
    """

    def __init__(
        self, *gpus: Gpu, trouble: str = "", driver: bool = True, torch: Any = None
    ) -> None:
        super().__init__(torch)
        self._gpus, self._trouble, self._driver = gpus, trouble, driver

    def has_driver(self) -> bool:
        return self._driver

    def find(self) -> tuple[tuple[Gpu, ...], Text]:
        return self._gpus, Text(self._trouble)


class DrivenCuda(CudaBackend):
    """CUDA with a driver, and with GPUs that a fake torch module describes."""

    def has_driver(self) -> bool:
        return True
