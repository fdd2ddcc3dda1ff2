"""A model of torch's caching allocator for CUDA, driven by traced allocations.

It follows what c10/cuda/CUDACachingAllocator.cpp does by default (torch 2.13):

- Sizes are rounded up to 512 bytes. Up to 1 MiB they come from small segments of 2 MiB, up to
  10 MiB from segments of 20 MiB, and larger ones from segments of their own size, rounded up to
  2 MiB.
- A free block is used again on its own stream only: the smallest one that is large enough. What is
  left over is split off, in large segments only if it is larger than 1 MiB.
- A freed block is joined with free neighbours in its segment.
- Segments stay reserved. If the driver has no memory left, all segments that are completely free
  are returned to it, and it is asked again.
- A graph's capture allocates from pools of its own, whose segments stay until the graph is gone.
- With expandable segments each stream has one segment of each kind, which grows and shrinks by
  pages of 2 MiB (small blocks) or 20 MiB (large ones), and every rest is split off.

Time plays no part: a free is complete when it is called. Deferred frees (record_stream) are not
modelled; the product has none.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.emulated_cuda.trace import Event, Kind

_MIB = 1 << 20
_GRANULE = 512
_SMALL_SIZE, _SMALL_SEGMENT = _MIB, 2 * _MIB
_MEDIUM_SIZE, _MEDIUM_SEGMENT = 10 * _MIB, 20 * _MIB
_LARGE_STEP = 2 * _MIB

PoolKey = tuple[int, bool, int]
"""Stream, whether its blocks are small, and the number of the graph's pool or 0."""


class OutOfDeviceMemoryError(Exception):
    """The driver has no memory left, also after everything unused was returned to it."""


class Block:
    """A range of a segment; it does not change its place."""

    __slots__ = ("address", "following", "is_free", "preceding", "segment", "size")

    def __init__(self, segment: _Segment, address: int, size: int) -> None:
        self.segment, self.address, self.size = segment, address, size
        self.is_free = True
        self.preceding: Block | None = None
        self.following: Block | None = None


class _Segment:
    """Memory that the driver gave in one call, or that grows by pages (expandable)."""

    __slots__ = ("key", "last", "size")

    def __init__(self, key: PoolKey, size: int) -> None:
        self.key, self.size = key, size
        self.last: Block | None = None


@dataclass
class Usage:
    """What a phase needed.

    requested      peak bytes of tensors, each rounded up to 512
    by_label       the same by what they are for; their peaks need not be at the same time
    allocated      the same with the workspaces of libraries
    reserved       peak bytes that the driver has given
    driver_calls   how often memory was requested from the driver and returned to it
    flushes        how often everything unused was returned because nothing was left
    """

    requested: int = 0
    allocated: int = 0
    reserved: int = 0
    driver_calls: int = 0
    flushes: int = 0
    by_label: dict[str, int] = field(default_factory=dict)


@dataclass
class CachingAllocator:
    """The allocator of one GPU.

    limit_bytes  that the driver can give; None: any number
    expandable   whether segments are expandable
    coalesces    whether freed blocks are joined; without, it is a control for tests
    """

    limit_bytes: int | None = None
    expandable: bool = False
    coalesces: bool = True
    reserved: int = 0
    allocated: int = 0
    driver_calls: int = 0
    flushes: int = 0
    _free: dict[PoolKey, list[tuple[int, int, Block]]] = field(default_factory=dict)
    _grown: dict[PoolKey, _Segment] = field(default_factory=dict)
    _dropped: set[int] = field(default_factory=set)
    _next_address: int = 0

    def allocate(self, nbytes: int, stream: int = 0, pool: int = 0) -> Block:
        """Return a block. Raises OutOfDeviceMemoryError."""
        size = rounded(nbytes)
        key = (stream, size <= _SMALL_SIZE, pool)
        block = self._take_free(key, size) or self._request(key, size)
        self._split(block, size)
        block.is_free = False
        self.allocated += block.size
        return block

    def free(self, block: Block) -> None:
        """Return a block to its pool."""
        self.allocated -= block.size
        block.is_free = True
        if self.coalesces:
            for other in (block.preceding, block.following):
                if other is not None and other.is_free:
                    self._remove(other)
                    block = self._join(block, other)
        self._insert(block)

    def empty_cache(self) -> None:
        """Return everything unused to the driver."""
        for key, blocks in self._free.items():
            if key[2] and key[2] not in self._dropped:
                continue  # the pool of a graph that may still be replayed
            for _, _, block in list(blocks):
                self._release(block)

    def drop_pool(self, pool: int) -> None:
        """Let the segments of a graph's pool be returned to the driver."""
        self._dropped.add(pool)

    # --- finding memory ---------------------------------------------------------------------------

    def _take_free(self, key: PoolKey, size: int) -> Block | None:
        """Return the smallest free block that is large enough."""
        blocks = self._free.get(key, [])
        place = bisect.bisect_left(blocks, (size, -1))
        return blocks.pop(place)[2] if place < len(blocks) else None

    def _request(self, key: PoolKey, size: int) -> Block:
        """Return memory from the driver."""
        if self.expandable and not key[2]:
            return self._expand(key, size)
        if key[1]:
            wanted = _SMALL_SEGMENT
        elif size < _MEDIUM_SIZE:
            wanted = _MEDIUM_SEGMENT
        else:
            wanted = -(-size // _LARGE_STEP) * _LARGE_STEP
        self._reserve(wanted)
        segment = _Segment(key, wanted)
        block = Block(segment, self._address(wanted), wanted)
        segment.last = block
        return block

    def _expand(self, key: PoolKey, size: int) -> Block:
        """Map pages behind the segment's end; a free block there becomes part of the result."""
        page = _SMALL_SEGMENT if key[1] else _MEDIUM_SEGMENT
        segment = self._grown.setdefault(key, _Segment(key, 0))
        last = segment.last
        there = last.size if last is not None and last.is_free else 0
        wanted = -(-(size - there) // page) * page
        self._reserve(wanted)
        last = segment.last  # a flush may have shortened the segment
        added = Block(segment, self._address(wanted), wanted)
        added.preceding = last
        if last is not None:
            last.following = added
        segment.last, segment.size = added, segment.size + wanted
        if last is not None and last.is_free:
            self._remove(last)
            return self._join(added, last)
        return added if added.size >= size else self._expand(key, size)

    def _reserve(self, wanted: int) -> None:
        if self.limit_bytes is not None and self.reserved + wanted > self.limit_bytes:
            self.flushes += 1
            self.empty_cache()
            if self.reserved + wanted > self.limit_bytes:
                raise OutOfDeviceMemoryError(
                    f"{wanted} bytes wanted, {self.reserved} reserved, {self.allocated} allocated, "
                    f"limit {self.limit_bytes}"
                )
        self.reserved += wanted
        self.driver_calls += 1

    def _address(self, size: int) -> int:
        self._next_address += size
        return self._next_address - size

    # --- blocks -----------------------------------------------------------------------------------

    def _split(self, block: Block, size: int) -> None:
        """Split off what is not needed, if that is worth it."""
        rest = block.size - size
        if rest <= 0:
            return
        small = block.segment.key[1]
        if not (rest >= _GRANULE if small or self.expandable else rest > _SMALL_SIZE):
            return
        other = Block(block.segment, block.address + size, rest)
        other.preceding, other.following = block, block.following
        if block.following is not None:
            block.following.preceding = other
        else:
            block.segment.last = other
        block.following, block.size = other, size
        self._insert(other)

    def _join(self, block: Block, other: Block) -> Block:
        """Return one block for two neighbours."""
        first, second = (other, block) if other is block.preceding else (block, other)
        first.size += second.size
        first.following = second.following
        if second.following is not None:
            second.following.preceding = first
        else:
            first.segment.last = first
        first.is_free = True
        return first

    def _insert(self, block: Block) -> None:
        entry = (block.size, block.address, block)
        bisect.insort(self._free.setdefault(block.segment.key, []), entry, key=lambda e: e[:2])

    def _remove(self, block: Block) -> None:
        blocks = self._free[block.segment.key]
        place = bisect.bisect_left(blocks, (block.size, block.address))
        assert blocks[place][2] is block
        blocks.pop(place)

    def _release(self, block: Block) -> None:
        """Return a free block to the driver if nothing else is in its segment."""
        if self.expandable and not block.segment.key[2]:
            self._shrink(block)
        elif block.preceding is None and block.following is None:
            self._remove(block)
            self.reserved -= block.size
            self.driver_calls += 1

    def _shrink(self, block: Block) -> None:
        """Unmap the whole pages at the end of an expandable segment."""
        page = _SMALL_SEGMENT if block.segment.key[1] else _MEDIUM_SEGMENT
        whole = block.size // page * page
        if block.segment.last is not block or not whole:
            return
        self._remove(block)
        self.reserved -= whole
        self.driver_calls += 1
        block.segment.size -= whole
        block.size -= whole
        if block.size:
            self._insert(block)
        else:
            block.segment.last = block.preceding
            if block.preceding is not None:
                block.preceding.following = None


def replay(events: Iterable[Event], allocator: CachingAllocator) -> dict[str, Usage]:
    """Make the allocations of a trace; return what each phase needed, in order.

    A phase is one that the trace began, and in it those of the plan, as "name: phase of the plan".

    Raises OutOfDeviceMemoryError.
    """
    phases: dict[str, Usage] = {}
    usage = phases.setdefault("", Usage())
    blocks: dict[int, tuple[Block, Event]] = {}
    held: dict[str, int] = {}
    requested, name = 0, ""
    for event in events:
        calls, flushes = allocator.driver_calls, allocator.flushes
        if event.kind is Kind.PHASE:
            name = event.phase
            usage = _begin(phases, name, held)
        elif event.kind is Kind.PLAN:
            usage = _begin(phases, f"{name}: {event.phase}", held)
        elif event.kind is Kind.ALLOCATE:
            block = allocator.allocate(event.nbytes, event.stream, event.pool)
            blocks[event.number] = (block, event)
            if not event.library:
                requested += rounded(event.nbytes)
                now = held.get(event.label, 0) + rounded(event.nbytes)
                held[event.label] = now
                usage.by_label[event.label] = max(usage.by_label.get(event.label, 0), now)
        elif event.kind is Kind.FREE:
            block, begun = blocks.pop(event.number)
            if not begun.library:
                requested -= rounded(begun.nbytes)
                held[begun.label] -= rounded(begun.nbytes)
            allocator.free(block)
        elif event.kind is Kind.DROP_POOL:
            allocator.drop_pool(event.number)
        elif event.kind is Kind.EMPTY_CACHE:
            allocator.empty_cache()
        usage.requested = max(usage.requested, requested)
        usage.allocated = max(usage.allocated, allocator.allocated)
        usage.reserved = max(usage.reserved, allocator.reserved)
        usage.driver_calls += allocator.driver_calls - calls
        usage.flushes += allocator.flushes - flushes
    return phases


def _begin(phases: dict[str, Usage], name: str, held: dict[str, int]) -> Usage:
    if name not in phases:
        phases[name] = Usage(by_label=dict(held))
    return phases[name]


def rounded(nbytes: int) -> int:
    """Return the bytes of an allocation, rounded up as the allocator does."""
    return max(_GRANULE, -(-nbytes // _GRANULE) * _GRANULE)
