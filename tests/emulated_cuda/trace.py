"""What a program did on an emulated GPU: its allocations in order, and its work by phase."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum

WORKSPACE_BYTES = (2 * 4096 + 8 * 16) << 10
"""cuBLAS' workspace for each stream on GPUs before Hopper (torch's CUDABlas.cpp)."""


class Kind(Enum):
    """What happened."""

    ALLOCATE = "allocate"
    FREE = "free"
    DROP_POOL = "drop pool"  # a graph is gone: nothing allocates in its private pool any more
    EMPTY_CACHE = "empty cache"
    PHASE = "phase"  # another phase begins
    PLAN = "plan"  # another phase of the plan begins, and what it does not keep is released
    STEP = "step"  # the weights of a piece of the model are there, and its computation begins


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a trace.

    number  of the allocation, of the private pool, or of the piece
    nbytes  requested, without rounding
    stream  number of the stream that was current
    pool    private pool of the graph that is being captured; 0: the common pools
    library a workspace of a library, not a tensor
    phase   name of the phase that begins
    """

    kind: Kind
    number: int = 0
    nbytes: int = 0
    stream: int = 0
    pool: int = 0
    phase: str = ""
    library: bool = False
    label: str = ""


@dataclass
class Work:
    """What a phase started.

    kernels  launched kernels, by operation (kernels.py)
    copies   copies over the bus, by direction
    syncs    waits of the host, by what waited
    """

    kernels: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    syncs: Counter[str] = field(default_factory=Counter)


class Trace:
    """Events of all threads in order, and the work of each phase.

    Work of streams other than the default ones, which upload weights, is in `uploads`.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.phases: dict[str, Work] = {"": Work()}
        self.uploads: dict[str, Work] = {"": Work()}
        self._phase = ""
        self._label = self._planned = ""
        self._pool = threading.local()
        self._count = 0
        self._workspaces: set[tuple[int, int]] = set()
        self._of_pools: dict[int, int] = {}
        self._lock = threading.RLock()

    def begin(self, phase: str) -> None:
        """Begin a phase; work and allocations belong to it from now on."""
        self._phase = phase
        self.phases.setdefault(phase, Work())
        self.uploads.setdefault(phase, Work())
        self.events.append(Event(Kind.PHASE, phase=phase))

    @property
    def work(self) -> Work:
        """The work of the current phase."""
        return self.phases[self._phase]

    def work_on(self, stream: int, streams: int) -> Work:
        """Return where the work of a stream is counted; `streams` are default streams."""
        return (self.phases if stream < streams else self.uploads)[self._phase]

    def sync(self, what: str) -> None:
        """Count a wait of the host."""
        self.work.syncs[what] += 1

    def allocate(self, nbytes: int, stream: int, *, library: bool = False) -> int:
        """Record an allocation; return its number."""
        with self._lock:
            self._count += 1
            number, pool = self._count, self._current_pool
            self.events.append(
                Event(
                    Kind.ALLOCATE,
                    number,
                    nbytes=nbytes,
                    stream=stream,
                    pool=pool,
                    library=library,
                    label="" if library else self._label,
                )
            )
            return number

    @contextmanager
    def labelled(self, label: str) -> Iterator[None]:
        """Give a label to what is allocated in the body; the innermost one counts."""
        before, self._label = self._label, label
        try:
            yield
        finally:
            self._label = before

    def plan(self, phase: str) -> None:
        """Record that a phase of the plan begins, unless it is the current one."""
        if phase != self._planned:
            self._planned = phase
            self.events.append(Event(Kind.PLAN, phase=phase))

    def step(self, phase: str, piece: int) -> None:
        """Record that the weights of a piece are there."""
        self.events.append(Event(Kind.STEP, piece, phase=phase))

    def repeat(self, event: Event) -> None:
        """Repeat an event of another trace that is no weight's."""
        if event.kind in (Kind.ALLOCATE, Kind.FREE):
            event = replace(event, number=-event.number)
        self.events.append(event)

    def free(self, number: int, nbytes: int) -> None:
        """Record that an allocation was freed."""
        self.events.append(Event(Kind.FREE, number, nbytes=nbytes))

    def multiply(self, stream: int) -> None:
        """Record that cuBLAS is used on a stream: the first time it gets a workspace there.

        A captured graph has one of its own, which lives as long as the graph.
        """
        place = (stream, self._current_pool)
        if place not in self._workspaces:
            self._workspaces.add(place)
            number = self.allocate(WORKSPACE_BYTES, stream, library=True)
            if self._current_pool:
                self._of_pools[self._current_pool] = number

    @property
    def _current_pool(self) -> int:
        return int(getattr(self._pool, "number", 0))

    def empty_cache(self) -> None:
        """Record that unused memory was returned to the driver."""
        self.events.append(Event(Kind.EMPTY_CACHE))

    def drop_pool(self, number: int) -> None:
        """Record that a graph was destroyed."""
        workspace = self._of_pools.pop(number, None)
        if workspace is not None:
            self.events.append(Event(Kind.FREE, workspace, nbytes=WORKSPACE_BYTES))
        self.events.append(Event(Kind.DROP_POOL, number))

    @contextmanager
    def capturing(self, pool: int) -> Iterator[None]:
        """Allocate in a graph's private pool in the body, on this thread."""
        self._pool.number = pool
        try:
            yield
        finally:
            self._pool.number = 0
