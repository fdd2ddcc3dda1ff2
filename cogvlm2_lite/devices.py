"""Which device and which number type to compute with, and why."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from cogvlm2_lite.errors import DeviceError, UsageError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Where and in which type the model runs; `reason` is for `doctor`."""

    device: torch.device
    dtype: torch.dtype
    reason: str


def prepare_threads() -> None:
    """Make idle worker threads sleep instead of spin. Works only before torch is imported.

    On a busy desktop spinning threads cost a factor of four in tokens/s (measured with 2 threads).
    A value the user has set stays.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def choose_compute(device: str, dtype: str) -> Compute:
    """Resolve "auto" to what this machine does well.

    device  "auto", "cpu", "cuda" or "cuda:N"
    dtype   "auto", "float32", "bfloat16" or "float16"
    Raises UsageError for other words, DeviceError for a GPU that is not there.
    """
    prepare_threads()
    import torch

    chosen = _choose_device(device)
    if dtype not in DTYPES:
        raise UsageError(
            f"{dtype!r} is not a number type.", hint=f"Use one of {', '.join(DTYPES)}."
        )
    if dtype != "auto":
        return Compute(device=chosen, dtype=getattr(torch, dtype), reason=f"{dtype} was asked for")
    if chosen.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Compute(device=chosen, dtype=torch.bfloat16, reason="the GPU computes bfloat16")
        return Compute(
            device=chosen, dtype=torch.float16, reason="the GPU has no bfloat16, so float16"
        )
    if has_avx512_bf16():
        return Compute(device=chosen, dtype=torch.bfloat16, reason="the CPU has AVX512-BF16")
    return Compute(
        device=chosen, dtype=torch.float32, reason="the CPU has no bfloat16 instructions"
    )


def _choose_device(name: str) -> torch.device:
    import torch

    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name != "auto" and name.partition(":")[0] != "cuda":
        raise UsageError(f"{name!r} is not a device.", hint=f"Use one of {', '.join(DEVICES)}.")
    if not torch.cuda.is_available():
        raise DeviceError(
            "No NVIDIA GPU can be used: torch finds none.",
            hint="Use --device cpu, or install the CUDA wheel of torch (see README) and a driver.",
        )
    index = name.partition(":")[2]
    if index and (not index.isdigit() or int(index) >= torch.cuda.device_count()):
        raise DeviceError(f"There is no GPU number {index}; {torch.cuda.device_count()} found.")
    return torch.device("cuda", int(index) if index else torch.cuda.current_device())


def has_avx512_bf16() -> bool:
    """Say whether the CPU multiplies bfloat16 natively."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported())


def available_ram_bytes() -> int:
    """RAM that can be taken now: what the system calls available, within a cgroup's limit."""
    available = psutil.virtual_memory().available
    limit, used = _cgroup_number("memory.max"), _cgroup_number("memory.current")
    if limit is None or used is None:
        return available
    return min(available, max(0, limit - used))


def _cgroup_number(name: str) -> int | None:
    """Read one number of the cgroup v2 this process is in; None where there is none."""
    try:
        text = Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
