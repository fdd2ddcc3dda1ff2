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
    from cogvlm2_lite.memory import work
    from tests.emulated_cuda.install import emulated_cuda

    with (
        patch.object(pinned, "RING_BYTES", 1 << 14),
        patch.object(work, "KERNEL_SCRATCH_BYTES", 1 << 14),
        emulated_cuda(total_bytes=TOTAL_BYTES) as machine,
    ):
        yield machine
