"""Which device and which number type to compute with, and why."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cogvlm2_lite.backends.base import Backend
from cogvlm2_lite.backends.device import Gpu
from cogvlm2_lite.backends.registry import CPU, accelerators, backend_of, backends
from cogvlm2_lite.errors import DeviceError, UsageError
from cogvlm2_lite.text import Text, joined

if TYPE_CHECKING:
    import torch

AUTO = "auto"
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class DeviceWord:
    """What a --device means.

    backend  None: "auto", the best that this computer has
    index    of one GPU; None: all of them
    """

    backend: Backend | None
    index: int | None = None


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
    trouble: Text = Text()  # noqa: RUF009 - immutable

    @property
    def backend(self) -> Backend:
        return backend_of(self.device)


def parse_device(word: str) -> DeviceWord:
    """Read what a user writes: "auto", the name of a back end, or that name and a GPU's number.

    Raises UsageError for other words.
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
            "Unknown number type {name!r}.",
            hint="Use one of {names}.",
            name=dtype,
            names=", ".join(DTYPES),
        )
    prepare_threads()
    import torch

    gpus, trouble = choose_gpus(device)
    name = gpus[0].device if gpus else CPU.kind
    chosen = backend_of(name).torch_device(name)
    if dtype == AUTO:
        kind, reason = backend_of(chosen).choose_dtype(chosen)
    else:
        kind, reason = dtype, Text("{name} was requested", name=dtype)
    return Compute(
        device=chosen, dtype=getattr(torch, kind), reason=reason, gpus=gpus, trouble=trouble
    )


def choose_gpus(device: str) -> tuple[tuple[Gpu, ...], Text]:
    """Pick the GPUs that a --device means, and say why others that one might expect are not used.

    device  "auto" (all, and none when there are none), "cpu" (none), "cuda" (all), "cuda:N" (one)
    Raises UsageError for other words, DeviceError when a GPU was asked for and can't be used.
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
    asked = tuple(gpu for gpu in gpus if gpu.index == word.index)
    if not asked:
        there = ", ".join(sorted(gpu.device for gpu in gpus))
        raise DeviceError(
            "The GPU {device} can't be used ({why})." if trouble else "There is no GPU {device}.",
            hint="Available GPUs: {names}.",
            device=device,
            why=trouble,
            names=there,
        )
    return asked, Text()


def _best_gpus() -> tuple[tuple[Gpu, ...], Text]:
    """Return the GPUs of the first back end that has any."""
    troubles = []
    for backend in accelerators():
        gpus, trouble = _gpus_of(backend)
        # Without a driver nobody expects a GPU to be used.
        trouble = trouble if backend.has_driver() else Text()
        if gpus:
            return gpus, trouble
        troubles.append(trouble)
    return (), joined(filter(None, troubles))


def _gpus_of(backend: Backend) -> tuple[tuple[Gpu, ...], Text]:
    if not (backend.has_driver() or "torch" in sys.modules):
        return (), Text()
    prepare_threads()
    return backend.find()
