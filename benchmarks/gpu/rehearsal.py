"""The emulated GPU of a rehearsal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

TOTAL_BYTES = 16 << 30


@contextmanager
def emulated_gpu() -> Iterator[Any]:
    """Emulate a GPU in the body; its buffers are small enough for tiny weights to fill them."""
    from cogvlm2_lite.backends import pinned
    from cogvlm2_lite.bench import synthetic
    from cogvlm2_lite.memory import work
    from tests.emulated_cuda.install import emulated_cuda

    with (
        patch.object(pinned, "RING_BYTES", 1 << 14),
        patch.object(synthetic, "_NOISE_BYTES", 1 << 18),
        patch.object(work, "KERNEL_SCRATCH_BYTES", 1 << 14),
        emulated_cuda(total_bytes=TOTAL_BYTES) as machine,
    ):
        yield machine


@contextmanager
def not_emulated() -> Iterator[None]:
    """Run the body on the CPU, as if nothing was emulated."""
    import torch
    from torch.utils._python_dispatch import _disable_current_modes

    with _disable_current_modes(), torch._C.DisableTorchFunction():
        yield
