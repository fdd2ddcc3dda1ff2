"""The CPU: weights are used in place in RAM, and every call returns when its work is done."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cogvlm2_lite.backends.base import Backend, HostCopy, Outgoing, Upload
from cogvlm2_lite.backends.cpu_level import AMX, AVX512, highest_level
from cogvlm2_lite.backends.device import Gpu
from cogvlm2_lite.text import Text

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class CpuBackend(Backend):
    """The CPU.

    has_bf16  whether it multiplies bfloat16 natively; None: detect it with torch
    has_amx   whether it has Intel's AMX (tiles of bfloat16); None: detect it with torch
    """

    kind = "cpu"
    uses_ram = True
    four_bit_kernels: ClassVar[tuple[str, ...]] = ("gemv", "packed", "bitsandbytes", "torch")

    def __init__(self, *, has_bf16: bool | None = None, has_amx: bool | None = None) -> None:
        self._has_bf16 = has_bf16
        self._has_amx = has_amx

    @property
    def has_bf16(self) -> bool:
        """Whether the CPU multiplies bfloat16 natively."""
        return has_avx512_bf16() if self._has_bf16 is None else self._has_bf16

    @property
    def has_amx(self) -> bool:
        """Whether the CPU multiplies tiles of bfloat16."""
        return has_amx() if self._has_amx is None else self._has_amx

    def has_driver(self) -> bool:
        """Return True: a CPU needs no driver."""
        return True

    def find(self) -> tuple[tuple[Gpu, ...], Text]:
        """Return no GPU."""
        return (), Text()

    def torch_device(self, name: str) -> torch.device:
        """Return the CPU for every name: tests use "cpu:0" and "cpu:1" as two devices."""
        import torch

        return torch.device("cpu")

    def choose_dtype(self, device: torch.device) -> tuple[str, Text]:
        """Return bfloat16 if the CPU multiplies it natively, else float32, with the reason."""
        if self.has_bf16:
            return "bfloat16", Text("the CPU has AVX512-BF16")
        return "float32", Text("the CPU has no bfloat16 instructions")

    def full_attention(self, dtype: torch.dtype) -> tuple[str, str]:
        """Return the fastest attention for the CPU's instructions, and the reason.

        It is not measured: implementations differ in the last bit, and the same computer must
        always compute the same answer.
        """
        import torch

        if dtype != torch.bfloat16 or not self.has_bf16:
            return super().full_attention(dtype)
        if self.has_amx:
            return "AMX kernel", "our C kernel was built, and the CPU has AMX"
        return "AVX512 kernel", "our C kernel was built, and the CPU has AVX512-BF16"

    def upload(self, device: torch.device) -> Upload:
        """Return an object that leaves weights where they are."""
        return _InPlace()

    def held_bytes(self, device: torch.device) -> int:
        """Return the resident pages of this process."""
        import psutil

        return int(psutil.Process().memory_info().rss)

    def reset_peak(self, device: torch.device) -> None:
        """Reset the peak that Linux records; other systems record none."""
        if _RESET.exists():
            _RESET.write_text("5")

    def peak_bytes(self, device: torch.device) -> int:
        """Return the peak that Linux recorded; 0 on other systems."""
        found = re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text()) if _STATUS.exists() else None
        return 1024 * int(found[1]) if found else 0


class _InPlace(Upload):
    """Weights stay where they were read, often in pages of a mapped file."""

    def send(
        self,
        pieces: Sequence[Outgoing],
        room: Tensor | None = None,
        kept: HostCopy | None = None,
    ) -> list[Tensor]:
        return [piece.tensor.to(piece.dtype) for piece in pieces]

    def wait_for_computing(self) -> None:
        return


def has_avx512_bf16() -> bool:
    """Return whether the CPU multiplies bfloat16 natively, and CPU_LEVEL permits that."""
    import torch

    return highest_level() >= AVX512 and bool(torch.cpu._is_avx512_bf16_supported())


def has_amx() -> bool:
    """Return whether the CPU multiplies tiles of bfloat16 (Intel's AMX); CPU_LEVEL permits it."""
    import torch

    return highest_level() >= AMX and bool(torch.cpu._is_amx_tile_supported())


def cpu_info() -> Mapping[str, str]:
    """Return the first processor's entry of /proc/cpuinfo; empty if there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = text.split("\n\n", 1)[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_flags() -> frozenset[str]:
    """Return the CPU's features, without torch; empty if the system does not list them."""
    info = cpu_info()
    return frozenset((info.get("flags") or info.get("Features") or "").split())
