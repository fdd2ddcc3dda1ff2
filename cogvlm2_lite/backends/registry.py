"""Which back ends there are, and which one a device belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cogvlm2_lite.backends.base import Backend
from cogvlm2_lite.backends.cpu import CpuBackend
from cogvlm2_lite.backends.cuda import CudaBackend

if TYPE_CHECKING:
    import torch

CPU = CpuBackend()

_BACKENDS: dict[str, Backend] = {backend.kind: backend for backend in (CPU, CudaBackend())}


def backends() -> tuple[Backend, ...]:
    """Return all back ends, the CPU first."""
    return tuple(_BACKENDS.values())


def accelerators() -> tuple[Backend, ...]:
    """Return the back ends other than the CPU, the one that "auto" tries first first."""
    return tuple(backend for backend in backends() if backend.kind != CPU.kind)


def backend_of(device: torch.device | str) -> Backend:
    """Return the back end of a device or of a device's name ("cuda:0"). KeyError for others."""
    kind = device.partition(":")[0] if isinstance(device, str) else device.type
    return _BACKENDS[kind]


@contextmanager
def replaced(backend: Backend) -> Iterator[None]:
    """Use a back end in place of the one of its kind: an emulated device, or a fake in a test."""
    before = dict(_BACKENDS)
    _BACKENDS[backend.kind] = backend
    try:
        yield
    finally:
        _BACKENDS.clear()
        _BACKENDS.update(before)
