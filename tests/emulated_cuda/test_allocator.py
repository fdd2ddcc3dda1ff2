"""The model of torch's caching allocator does what CUDACachingAllocator.cpp documents."""

from __future__ import annotations

import itertools
import random

import pytest

from cogvlm2_lite.units import MIB
from tests.emulated_cuda.allocator import Block, CachingAllocator, OutOfDeviceMemoryError, replay
from tests.emulated_cuda.trace import Event, Kind


@pytest.mark.parametrize(
    ("wanted", "allocated", "reserved"),
    [
        (1, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),
    ],
)
def test_sizes_are_rounded(wanted: int, allocated: int, reserved: int) -> None:
    allocator = CachingAllocator()
    allocator.allocate(wanted)
    assert (allocator.allocated, allocator.reserved) == (allocated, reserved)


def test_a_rest_of_one_mib_or_less_stays_part_of_a_large_block() -> None:
    allocator = CachingAllocator()
    block = allocator.allocate(11 * MIB)  # of a segment of 12 MiB
    assert allocator.allocated == 12 * MIB
    allocator.free(block)
    assert allocator.allocated == 0
    allocator.allocate(10 * MIB)
    assert (allocator.allocated, allocator.reserved) == (10 * MIB, 12 * MIB)
    allocator.allocate(2 * MIB)  # the rest of 2 MiB
    assert allocator.reserved == 12 * MIB


def test_the_smallest_block_that_fits_is_used_and_neighbours_are_joined() -> None:
    allocator = CachingAllocator()
    large, small = allocator.allocate(64 * MIB), allocator.allocate(32 * MIB)
    allocator.free(large)
    allocator.free(small)
    parts = [allocator.allocate(10 * MIB) for _ in range(3)]  # of the segment of 32 MiB
    assert allocator.reserved == 96 * MIB
    whole = allocator.allocate(64 * MIB)
    assert allocator.reserved == 96 * MIB
    for part in (parts[0], parts[2], parts[1]):
        allocator.free(part)
    allocator.allocate(32 * MIB)
    assert allocator.reserved == 96 * MIB
    allocator.free(whole)


def test_streams_and_graphs_do_not_share_blocks() -> None:
    allocator = CachingAllocator()
    for stream, pool in ((0, 0), (1, 0), (0, 1)):
        allocator.free(allocator.allocate(20 * MIB, stream, pool))
    assert allocator.reserved == 60 * MIB


def test_unused_segments_are_returned_when_the_driver_has_nothing_left() -> None:
    allocator = CachingAllocator(limit_bytes=100 * MIB)
    allocator.free(allocator.allocate(60 * MIB))
    kept = allocator.allocate(20 * MIB, pool=1)
    allocator.free(kept)
    allocator.allocate(70 * MIB)
    assert (allocator.reserved, allocator.flushes) == (90 * MIB, 1)
    with pytest.raises(OutOfDeviceMemoryError):
        allocator.allocate(20 * MIB)
    allocator.drop_pool(1)  # its graph is gone
    allocator.allocate(20 * MIB)
    assert allocator.reserved == 90 * MIB


def test_a_segment_with_one_used_block_is_not_returned() -> None:
    allocator = CachingAllocator(limit_bytes=100 * MIB)
    first, second = allocator.allocate(5 * MIB), allocator.allocate(15 * MIB)
    assert allocator.reserved == 20 * MIB
    allocator.free(second)
    allocator.empty_cache()
    assert allocator.reserved == 20 * MIB
    allocator.free(first)
    allocator.empty_cache()
    assert allocator.reserved == 0


def test_an_expandable_segment_grows_and_shrinks_by_pages() -> None:
    allocator = CachingAllocator(expandable=True)
    first = allocator.allocate(30 * MIB)
    assert allocator.reserved == 40 * MIB
    second = allocator.allocate(25 * MIB)  # the rest of 10 MiB and a page more
    assert allocator.reserved == 60 * MIB
    allocator.free(second)
    allocator.empty_cache()
    assert allocator.reserved == 40 * MIB
    allocator.free(first)
    allocator.allocate(39 * MIB)
    assert allocator.reserved == 40 * MIB


@pytest.mark.parametrize("expandable", [False, True])
def test_random_use_keeps_the_books(expandable: bool) -> None:
    """Blocks never overlap, what is allocated is reserved, and at the end nothing is left."""
    chooser = random.Random(4)
    allocator = CachingAllocator(expandable=expandable)
    held: list[Block] = []
    for _ in range(3000):
        if held and chooser.random() < 0.5:
            allocator.free(held.pop(chooser.randrange(len(held))))
        else:
            nbytes = int(2 ** chooser.uniform(0, 26))
            held.append(allocator.allocate(nbytes, chooser.randrange(2)))
        assert allocator.allocated == sum(block.size for block in held) <= allocator.reserved
    ranges = sorted((id(b.segment), b.address, b.size) for b in held)
    for (segment, begin, size), (other, after, _) in itertools.pairwise(ranges):
        assert segment != other or begin + size <= after or expandable
    for block in held:
        allocator.free(block)
    allocator.empty_cache()
    assert (allocator.allocated, allocator.reserved) == (0, 0)


def test_a_trace_is_counted_by_phase() -> None:
    events = [
        Event(Kind.PHASE, phase="a"),
        Event(Kind.ALLOCATE, 1, nbytes=30 * MIB),
        Event(Kind.ALLOCATE, 2, nbytes=30 * MIB, library=True),
        Event(Kind.FREE, 1, nbytes=30 * MIB),
        Event(Kind.PHASE, phase="b"),
        Event(Kind.ALLOCATE, 3, nbytes=10 * MIB),
    ]
    found = replay(events, CachingAllocator())
    assert (found["a"].requested, found["a"].allocated) == (30 * MIB, 60 * MIB)
    assert (found["b"].requested, found["b"].reserved) == (10 * MIB, 60 * MIB)
    assert found["b"].driver_calls == 0
