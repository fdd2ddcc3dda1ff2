"""How keys and values are stored in the cache, and how many bytes they take. No torch."""

from __future__ import annotations

from enum import Enum


class KVKind(Enum):
    """How keys and values are stored."""

    FULL = "full"  # in the compute dtype
    INT8 = "int8"  # 8-bit codes, one float32 scale per token and head: about half the bytes
    INT4 = "int4"  # rotated, 4-bit codes, one float16 scale per group: little more than a quarter

    def groups(self, head_dim: int) -> tuple[int, int]:
        """Return the number of groups of a head that share a scale, and their size.

        The last group of 4-bit codes is filled up if the size does not divide head_dim.
        """
        if self is not KVKind.INT4:
            return 1, head_dim
        size = 32 if head_dim % 32 == 0 else 16
        return -(-head_dim // size), size

    def row_bytes(self, head_dim: int, itemsize: int) -> int:
        """Return the bytes of the key, or the value, of one token and head.

        itemsize  bytes of the compute dtype
        """
        count, size = self.groups(head_dim)
        return {
            KVKind.FULL: head_dim * itemsize,
            KVKind.INT8: head_dim + 4,
            KVKind.INT4: count * (size // 2 + 2),
        }[self]

    def reading_bytes(self, itemsize: int, *, in_ram: bool) -> int:
        """Return the bytes per number of a layer's keys that its attention needs besides the cache.

        The keys and the values in the compute dtype. On a CPU one of them is in float32, too,
        during the conversion. Half of 4-bit codes are in 8 bits then, and on a CPU in float32
        before and after the product. So are the scales of both.
        """
        if self is KVKind.FULL:
            return 0
        if self is KVKind.INT8:
            return 2 * itemsize + (4 if in_ram else 0)
        return 2 * itemsize + (6 if in_ram else 2)
