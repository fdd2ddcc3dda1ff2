"""The list of backends, and the backend of a device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cogvlm2_lite.backends.base import Backend
from cogvlm2_lite.backends.cpu import CpuBackend
from cogvlm2_lite.backends.cuda import CudaBackend
from cogvlm2_lite.backends.mps import MpsBackend
from cogvlm2_lite.backends.xpu import XpuBackend

if TYPE_CHECKING:
    import torch

CPU = CpuBackend()

_ALL = (CPU, CudaBackend(), XpuBackend(), MpsBackend())
_BACKENDS: dict[str, Backend] = {backend.kind: backend for backend in _ALL}


def backends() -> tuple[Backend, ...]:
    """Return all backends, the CPU first."""
    return tuple(_BACKENDS.values())


def accelerators() -> tuple[Backend, ...]:
    """Return the backends other than the CPU, in the order in which "auto" tries them."""
    return tuple(backend for backend in backends() if backend.kind != CPU.kind)


def backend_of(device: torch.device | str) -> Backend:
    """Return the backend of a device or of a device's name ("cuda:0"). KeyError if unknown."""
    kind = device.partition(":")[0] if isinstance(device, str) else device.type
    return _BACKENDS[kind]


@contextmanager
def replaced(backend: Backend) -> Iterator[None]:
    """Replace the backend of a kind by another one: an emulated device, or a fake in a test."""
    before = dict(_BACKENDS)
    _BACKENDS[backend.kind] = backend
    try:
        yield
    finally:
        _BACKENDS.clear()
        _BACKENDS.update(before)
