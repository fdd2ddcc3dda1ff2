"""The facts about a device that planning needs: plain values, no torch."""

from __future__ import annotations

from dataclasses import dataclass


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
