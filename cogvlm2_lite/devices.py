"""Chooses the device and the number type, with the reasons."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cogvlm2_lite.backends.base import Backend
from cogvlm2_lite.backends.device import Gpu
from cogvlm2_lite.backends.registry import CPU, accelerators, backend_of, backends
from cogvlm2_lite.errors import DeviceError, UsageError
from cogvlm2_lite.text import Text, joined

if TYPE_CHECKING:
    import torch

AUTO = "auto"
_NVIDIA_ON_LINUX = Path("/proc/driver/nvidia/version")
_ALLOCATOR_OPTIONS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
"""Names of the variable; torch reads the first that is set."""
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class DeviceWord:
    """The meaning of a --device.

    backend  None: "auto", the best one of this computer
    index    of one GPU; None: all of them
    """

    backend: Backend | None
    index: int | None = None


@dataclass(frozen=True, kw_only=True)
class Compute:
    """The device and number type to compute with.

    reason   for the number type, for `doctor`
    gpus     the GPUs to use, the one with the most free memory first; () on the CPU
    trouble  why a GPU that a user may expect is not used; "" if there is none
    """

    device: torch.device
    dtype: torch.dtype
    reason: str
    gpus: tuple[Gpu, ...] = ()
    trouble: Text = Text()  # noqa: RUF009 - immutable

    @property
    def backend(self) -> Backend:
        return backend_of(self.device)


def parse_device(word: str) -> DeviceWord:
    """Return the meaning of "auto", the name of a back end, or that name and a GPU's number.

    Raises UsageError for anything else.
    """
    kind, _, number = word.partition(":")
    known = {backend.kind: backend for backend in backends()}
    numbered = {backend.kind for backend in accelerators()}
    if kind not in (AUTO, *known) or (number and (kind not in numbered or not number.isdecimal())):
        raise UsageError(
            "Unknown device {name!r}.",
            hint="Use one of {names}, or cuda:1.",
            name=word,
            names=", ".join((AUTO, *known)),
        )
    return DeviceWord(backend=known.get(kind), index=int(number) if number else None)


def prepare_threads() -> None:
    """Make idle threads of torch sleep instead of spin, and leave one core to the desktop.

    On a busy desktop, spinning threads reduced tokens/s by a factor of four (measured with 2
    threads). This works only before torch is imported. Values set by the user are kept.

    It also lets torch's allocator for GPUs grow its segments: see _prepare_allocator.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        os.environ.setdefault("OMP_NUM_THREADS", str(thread_count()))
        _prepare_allocator()


def _prepare_allocator() -> None:
    """Let torch's allocator use expandable segments, unless the user has set its options.

    With segments of fixed sizes, the activations of long texts leave up to half a GiB reserved and
    unused (tests/emulated_cuda has a model of the allocator). On Windows and ROCm torch has no
    expandable segments, and NVIDIA's driver for WSL fails with them on some cards (pytorch issue
    192330). Neither of them has this file.
    """
    if _NVIDIA_ON_LINUX.exists() and not any(name in os.environ for name in _ALLOCATOR_OPTIONS):
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"


def thread_count() -> int:
    """Return the number of threads: the physical cores, minus one if there are four or more."""
    import psutil

    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    return cores - 1 if cores >= 4 else cores


def choose_compute(device: str, dtype: str) -> Compute:
    """Return the device and number type; "auto" means the best ones of this computer.

    device  "auto", "cpu", or "cuda", "xpu", "mps", or one of these with a number: "cuda:1"
    dtype   "auto", "float32", "bfloat16" or "float16"
    Raises UsageError for other words, and for a number type that a GPU only emulates; DeviceError
    for a GPU that is missing.
    """
    if dtype not in DTYPES:
        raise UsageError(
            "Unknown number type {name!r}.",
            hint="Use one of {names}.",
            name=dtype,
            names=", ".join(DTYPES),
        )
    prepare_threads()
    import torch

    gpus, trouble = choose_gpus(device)
    names = [gpu.device for gpu in gpus] or [CPU.kind]
    backend = backend_of(names[0])
    chosen = [backend.torch_device(name) for name in names]
    if dtype == AUTO:
        # All GPUs compute in one type: float16 if one of them has no bfloat16.
        found = [backend.choose_dtype(each) for each in chosen]
        kind, reason = next((one for one in found if one[0] == "float16"), found[0])
    else:
        for gpu, each in zip(gpus, chosen, strict=False):
            if backend.emulates(each, dtype):
                raise UsageError(
                    "The GPU {device} ({name}) does not compute {dtype}: it would emulate it, "
                    "several times slower.",
                    hint="Use --dtype float16 or --dtype auto.",
                    device=gpu.device,
                    name=gpu.name,
                    dtype=dtype,
                )
        kind, reason = dtype, Text("{name} was requested", name=dtype)
    return Compute(
        device=chosen[0], dtype=getattr(torch, kind), reason=reason, gpus=gpus, trouble=trouble
    )


def choose_gpus(device: str) -> tuple[tuple[Gpu, ...], Text]:
    """Return the GPUs of a --device, and why others that a user may expect are not used.

    device  "auto" (all of the first kind that there is), "cpu" (none), "cuda", "xpu" or "mps" (all
            of that kind), or one of these with a number: "cuda:1"
    Raises UsageError for other words, DeviceError if a requested GPU can't be used.
    Imports torch only if a driver is installed.
    """
    word = parse_device(device)
    if word.backend is None:
        return _best_gpus()
    if word.backend.kind == CPU.kind:
        return (), Text()
    gpus, trouble = _gpus_of(word.backend)
    if not gpus:
        raise word.backend.no_gpu_error(trouble or Text("no driver is installed"))
    if word.index is None:
        return gpus, trouble
    requested = tuple(gpu for gpu in gpus if gpu.index == word.index)
    if not requested:
        available = ", ".join(sorted(gpu.device for gpu in gpus))
        raise DeviceError(
            "The GPU {device} can't be used ({why})." if trouble else "There is no GPU {device}.",
            hint="Available GPUs: {names}.",
            device=device,
            why=trouble,
            names=available,
        )
    return requested, Text()


def _best_gpus() -> tuple[tuple[Gpu, ...], Text]:
    """Return the GPUs of the first back end that has any."""
    troubles = []
    for backend in accelerators():
        gpus, trouble = _gpus_of(backend)
        # Without a driver, nobody expects a GPU to be used.
        trouble = trouble if backend.has_driver() else Text()
        if gpus:
            return gpus, trouble
        troubles.append(trouble)
    return (), joined(filter(None, troubles))


def _gpus_of(backend: Backend) -> tuple[tuple[Gpu, ...], Text]:
    if not ("torch" in sys.modules or backend.has_driver()):
        return (), Text()
    prepare_threads()
    return backend.find()
