"""The facts about a device that planning needs: plain values, no torch."""

from __future__ import annotations

from dataclasses import dataclass

ALIGNMENT = 256
"""On a GPU, the tensors of a unit lie one behind the other, and each begins at a multiple of this
many bytes. Kernels read 16 bytes at a time; torch's own allocator aligns to 512."""


PINNED_CHUNK = 32 << 20
"""Bytes of pinned memory that are allocated at once, and copied to a GPU at once."""


def pinned_bytes(nbytes: int) -> int:
    """Return the pinned memory for a copy of `nbytes`: whole chunks, and a power of two.

    torch rounds a pinned allocation up to a power of two.
    """
    whole, rest = divmod(nbytes, PINNED_CHUNK)
    return whole * PINNED_CHUNK + (1 << (rest - 1).bit_length() if rest else 0)


def aligned(nbytes: int) -> int:
    """Return the bytes that a tensor takes on a GPU, with those up to the next one."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU that can be used.

    kind          its backend: "cuda", "xpu", "mps"
    index         its number among the GPUs of its kind
    free_bytes    memory that is free now. Memory of other programs and of loaded models does not
                  count as free; memory that this process caches for later allocations does.
    maker         who makes it: "NVIDIA", "AMD", "Intel", "Apple"
    architecture  what its kernels are compiled for: "8.9", "gfx1100"; "" if it has no such name
    shares_ram    whether its memory is the RAM of the computer
    """

    kind: str
    index: int
    name: str
    free_bytes: int
    total_bytes: int
    maker: str = "NVIDIA"
    architecture: str = ""
    shares_ram: bool = False

    @property
    def device(self) -> str:
        """The name that --device and torch use: "cuda:0"."""
        return f"{self.kind}:{self.index}"
