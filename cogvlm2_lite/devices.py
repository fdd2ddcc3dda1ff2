"""Which device and which number type to compute with, and why."""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogvlm2_lite.errors import DeviceError, UsageError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16", "float16")

_NO_GPU_HINT = "Use --device cpu, or install the CUDA wheel of torch (see README) and a driver."


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU that can be used.

    free_bytes  what is free now: memory of other programs and of loaded models is not counted, what
                this process holds back for later allocations is
    """

    index: int
    name: str
    free_bytes: int
    total_bytes: int

    @property
    def device(self) -> str:
        return f"cuda:{self.index}"


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Where and in which type the model runs; `reason` is for `doctor`.

    gpus     the GPUs it may spread over, the one with the most free memory first; () on the CPU
    trouble  why a GPU that one might expect is not used; "" when there is nothing to say
    """

    device: torch.device
    dtype: torch.dtype
    reason: str
    gpus: tuple[Gpu, ...] = ()
    trouble: str = ""


def prepare_threads() -> None:
    """Make idle worker threads sleep instead of spin, and leave the desktop a core.

    On a busy desktop spinning threads cost a factor of four in tokens/s (measured with 2 threads).
    Works only before torch is imported. Values the user has set stay.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        os.environ.setdefault("OMP_NUM_THREADS", str(thread_count()))


def thread_count() -> int:
    """Give the threads to compute with: one per physical core, less one where there are four."""
    import psutil

    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    return cores - 1 if cores >= 4 else cores


def choose_compute(device: str, dtype: str) -> Compute:
    """Resolve "auto" to what this machine does well.

    device  "auto", "cpu", "cuda" or "cuda:N"
    dtype   "auto", "float32", "bfloat16" or "float16"
    Raises UsageError for other words, DeviceError for a GPU that is not there.
    """
    if dtype not in DTYPES:
        raise UsageError(
            "{dtype!r} is not a number type.",
            hint="Use one of {dtypes}.",
            dtype=dtype,
            dtypes=", ".join(DTYPES),
        )
    prepare_threads()
    import torch

    gpus, trouble = choose_gpus(device)
    chosen = torch.device(gpus[0].device if gpus else "cpu")
    kind, reason = _choose_dtype(chosen) if dtype == "auto" else (dtype, f"{dtype} was asked for")
    return Compute(
        device=chosen, dtype=getattr(torch, kind), reason=reason, gpus=gpus, trouble=trouble
    )


def _choose_dtype(device: torch.device) -> tuple[str, str]:
    """Name a number type, and say why."""
    import torch

    if device.type == "cuda":
        with torch.cuda.device(device):
            has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        if has_bf16:
            return "bfloat16", "the GPU computes bfloat16"
        return "float16", "the GPU has no bfloat16, so float16"
    if has_avx512_bf16():
        return "bfloat16", "the CPU has AVX512-BF16"
    return "float32", "the CPU has no bfloat16 instructions"


def choose_gpus(device: str) -> tuple[tuple[Gpu, ...], str]:
    """Pick the GPUs that a --device means, and say why others that one might expect are not used.

    device  "auto" (all, and none when there are none), "cpu" (none), "cuda" (all), "cuda:N" (one)
    Raises UsageError for other words, DeviceError when a GPU was asked for and can't be used.
    Imports torch only if a driver is installed.
    """
    kind, _, number = device.partition(":")
    if kind not in DEVICES or (number and (kind != "cuda" or not number.isdecimal())):
        raise UsageError(
            "{device!r} is not a device.",
            hint="Use one of {devices}, or cuda:1.",
            device=device,
            devices=", ".join(DEVICES),
        )
    if kind == "cpu":
        return (), ""
    has_driver = has_gpu_driver()
    gpus, trouble = find_gpus() if has_driver or "torch" in sys.modules else ((), "")
    if kind == "auto":
        # Without a driver nobody expects a GPU to be used.
        return gpus, trouble if has_driver else ""
    if not gpus:
        reason = trouble or "no driver is installed"
        raise DeviceError("No NVIDIA GPU can be used: {reason}.", hint=_NO_GPU_HINT, reason=reason)
    if not number:
        return gpus, trouble
    asked = tuple(gpu for gpu in gpus if gpu.index == int(number))
    if not asked:
        there = ", ".join(sorted(gpu.device for gpu in gpus))
        raise DeviceError(
            "The GPU {device} can't be used ({why})." if trouble else "There is no GPU {device}.",
            hint="Available: {names}.",
            device=device,
            why=trouble,
            names=there,
        )
    return asked, ""


def has_gpu_driver() -> bool:
    """Say whether a GPU's driver is installed, without importing torch."""
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()  # AMD's
    return True


def find_gpus(torch: Any = None) -> tuple[tuple[Gpu, ...], str]:
    """List the GPUs that can be used, the one with the most free memory first.

    torch  the imported module; None imports it
    Gives also what stands in the way of using others, or "".
    """
    if torch is None:
        prepare_threads()
        import torch
    with warnings.catch_warnings(record=True) as heard:
        # torch tells of an old driver in a warning of its own, several lines long.
        warnings.simplefilter("always")
        there = torch.cuda.is_available()
    if not there:
        return (), _why_none(torch, [str(warning.message) for warning in heard])
    usable, troubles = [], []
    for index in range(torch.cuda.device_count()):
        try:
            found = _look_at(torch, index)
        except RuntimeError as error:  # the driver lost it, or another program owns it alone
            first_line = str(error).strip().partition("\n")[0].rstrip(".")
            found = f"cuda:{index} does not answer: {first_line}"
        if isinstance(found, Gpu):
            usable.append(found)
        else:
            troubles.append(found)
    usable.sort(key=lambda gpu: (-gpu.free_bytes, gpu.index))
    return tuple(usable), "; ".join(troubles)


def _why_none(torch: Any, heard: list[str]) -> str:
    built = torch.version.cuda or torch.version.hip
    if not built:
        return "torch is a CPU build"
    if heard:
        return heard[0].removeprefix("CUDA initialization: ").partition(". ")[0].rstrip(".")
    return f"torch is built for {built}, and finds none"


def _look_at(torch: Any, index: int) -> Gpu | str:
    """Describe a GPU, or say why this torch can't use it."""
    properties = torch.cuda.get_device_properties(index)
    lowest = min((_digits(arch) for arch in torch.cuda.get_arch_list() if "sm_" in arch), default=0)
    if properties.major * 10 + properties.minor < lowest:
        return (
            f"cuda:{index} ({properties.name}) has compute capability "
            f"{properties.major}.{properties.minor}, and this torch needs "
            f"{lowest // 10}.{lowest % 10} or more"
        )
    free, total = torch.cuda.mem_get_info(index)
    kept_back = torch.cuda.memory_reserved(index) - torch.cuda.memory_allocated(index)
    return Gpu(index=index, name=properties.name, free_bytes=free + kept_back, total_bytes=total)


def _digits(text: str) -> int:
    return int("".join(letter for letter in text if letter.isdecimal()))


def has_avx512_bf16() -> bool:
    """Say whether the CPU multiplies bfloat16 natively."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported())


def has_amx() -> bool:
    """Say whether the CPU multiplies tiles of bfloat16 (Intel's AMX)."""
    import torch

    return bool(torch.cpu._is_amx_tile_supported())


def cpu_info() -> Mapping[str, str]:
    """Read the first processor's entry of /proc/cpuinfo; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = text.split("\n\n", 1)[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_flags() -> frozenset[str]:
    """List the CPU's features, without torch; empty where the system does not tell them."""
    info = cpu_info()
    return frozenset((info.get("flags") or info.get("Features") or "").split())
