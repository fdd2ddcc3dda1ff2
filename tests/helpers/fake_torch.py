"""A torch module with described GPUs, in place of the real one."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any


class Cuda:
    """What torch.cuda would say: GPUs as (name, capability, free, total, reserved, allocated)."""

    def __init__(self, *gpus: tuple[str, tuple[int, int], int, int, int, int] | str) -> None:
        self.gpus = gpus

    def is_available(self) -> bool:
        return bool(self.gpus)

    def device_count(self) -> int:
        return len(self.gpus)

    def get_arch_list(self) -> list[str]:
        return ["sm_75", "sm_80", "sm_90a", "compute_120"]

    def _one(self, index: int) -> tuple[str, tuple[int, int], int, int, int, int]:
        gpu = self.gpus[index]
        if isinstance(gpu, str):
            raise RuntimeError(f"{gpu}\nCompile with TORCH_USE_CUDA_DSA.")
        return gpu

    def get_device_properties(self, index: int) -> Any:
        name, (major, minor), *_ = self._one(index)
        return SimpleNamespace(name=name, major=major, minor=minor)

    def mem_get_info(self, index: int) -> tuple[int, int]:
        return self._one(index)[2:4]

    def memory_reserved(self, index: int) -> int:
        return self._one(index)[4]

    def memory_allocated(self, index: int) -> int:
        return self._one(index)[5]


class OldDriver(Cuda):
    """What torch says when the driver is older than itself."""

    def is_available(self) -> bool:
        warnings.warn(
            "CUDA initialization: The NVIDIA driver on your system is too old (found version "
            "11040). Please update your GPU driver by downloading ...",
            stacklevel=1,
        )
        return False


def fake_torch(cuda: Any, *, built: str | None = "13.0") -> Any:
    return SimpleNamespace(cuda=cuda, version=SimpleNamespace(cuda=built, hip=None))
