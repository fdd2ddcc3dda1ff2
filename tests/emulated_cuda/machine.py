"""Streams, memory and graphs of the emulated GPUs."""

from __future__ import annotations

import itertools
import random
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import partial

import torch
from torch import Tensor

from tests.emulated_cuda.trace import Trace

Work = Callable[[], object]

_GRANULE = 512
"""torch's allocator rounds sizes up to this."""


class Order(Enum):
    """When queued work runs. All three are allowed to a GPU."""

    NOW = "now"  # immediately
    LATE = "late"  # not before something waits for it
    RANDOM = "random"  # in random portions


class RuleError(RuntimeError):
    """The program did what CUDA does not allow."""


class Stream:
    """A queue of work of one device."""

    def __init__(self, machine: Machine, device: int) -> None:
        self.machine, self.device = machine, device
        self._queue: deque[Work] = deque()
        self._done = 0
        self.queued = 0
        self.capturing: GraphRecord | None = None
        self.workspaces = 0
        """How often the memory in which cuBLAS works on this stream was freed."""

    def push(self, work: Work) -> None:
        """Queue work, or record it if the stream is being captured."""
        with self.machine.lock:
            if self.capturing is not None:
                self.capturing.works.append(work)
                return
            self._queue.append(work)
            self.queued += 1
            if self.machine.order is Order.NOW:
                self.run_to(self.queued)

    def run_to(self, mark: int) -> None:
        """Run the first `mark` works that were ever queued."""
        # What was made in inference mode may be changed only there, and work may run after its end.
        with self.machine.lock, torch.inference_mode():
            while self._done < mark and self._queue:
                work = self._queue.popleft()
                self._done += 1
                work()

    def finish(self) -> None:
        """Run everything that is queued."""
        self.run_to(self.queued)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def done(self) -> int:
        return self._done


@dataclass(eq=False)
class GraphRecord:
    """What a captured graph repeats, and the memory that was allocated for it."""

    works: list[Work] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    pool: int = 0
    """Number of its private pool in the trace."""
    stream: Stream | None = None
    workspace: int = 0
    """The workspace of the stream on which it was captured."""


class Memory:
    """One allocation on a device. All tensors that share it refer to this object.

    Queued work refers to the bytes and not to this object: CUDA does not keep memory for it.
    """

    def __init__(self, machine: Machine, raw: Tensor, stream: Stream) -> None:
        self.device = stream.device
        self.users: list[tuple[Stream, int]] = []
        """Streams that Tensor.record_stream named, with their work until the memory is freed."""
        wanted = raw.untyped_storage().nbytes()
        nbytes = -(-wanted // _GRANULE) * _GRANULE
        machine.account(stream.device, nbytes)
        self.raw = raw
        number = machine.trace.allocate(wanted, machine.streams.index(stream)) if nbytes else None
        if machine.shapes_only:
            self.address = machine.new_address(nbytes)
            weakref.finalize(self, _forget, machine, stream, nbytes, number, wanted)
            return
        self.address = raw.untyped_storage().data_ptr()
        flat = torch.empty(0, dtype=torch.uint8).set_(raw.untyped_storage())
        weakref.finalize(self, _free, machine, stream, flat, nbytes, self.users)


def _forget(machine: Machine, stream: Stream, nbytes: int, number: int | None, wanted: int) -> None:
    """Return memory that has no bytes to the allocator."""
    machine.account(stream.device, -nbytes)
    if number is not None:
        machine.trace.free(number, wanted)


def _free(
    machine: Machine,
    stream: Stream,
    flat: Tensor,
    nbytes: int,
    users: Sequence[tuple[Stream, int]],
) -> None:
    """Return memory to the allocator: whatever its stream does next may overwrite it."""
    machine.account(stream.device, -nbytes)
    marks = [(other, other.queued) for other, _ in users]

    def overwrite() -> None:
        for other, mark in marks:
            other.run_to(mark)
        with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
            flat.fill_(0xA5)

    if machine.poisons:
        # A capture's stream frees into the graph's own pool, which the graph keeps.
        target = stream if stream.capturing is None else machine.default_stream(stream.device)
        target.push(overwrite)


def _overwrite(tensors: Sequence[Tensor]) -> None:
    with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
        for tensor in tensors:
            torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).fill_(0xA5)


class Machine:
    """The emulated computer.

    kind         torch's name of the GPUs
    total_bytes  memory of each GPU
    order        when queued work runs
    poisons      whether freed memory is overwritten
    shapes_only  large tensors have no memory and no numbers (shapes.py)
    syncs        how often the host waited for a GPU, by what it did
    launches     operations that were started, by name
    trace        the same by phase, and every allocation (trace.py)
    """

    def __init__(
        self,
        *,
        kind: str = "cuda",
        devices: int = 1,
        total_bytes: int = 16 << 30,
        order: Order = Order.NOW,
        seed: int = 0,
        poisons: bool = True,
        shapes_only: bool = False,
    ) -> None:
        self.lock = threading.RLock()
        self.shapes_only = shapes_only
        self.trace = Trace()
        self._next_address = 1 << 40
        self._pools = itertools.count(1)
        self._in_pool: dict[int, weakref.WeakSet[GraphRecord]] = {}
        self._stream_pool: dict[int, list[Stream]] = {}
        self._streams_taken = 0
        self.captures = 0
        """Graphs that were captured."""
        self.kind = kind
        self.missing: set[str] = set()
        """Names of operations that this kind of GPU can't compute, such as "aten::add"."""
        self.devices, self.total_bytes = devices, total_bytes
        self.order, self.poisons = order, poisons
        self._random = random.Random(seed)
        self.streams: list[Stream] = []
        self._defaults = [self.new_stream(index) for index in range(devices)]
        self._current = threading.local()
        self.held = [0] * devices
        self.peak = [0] * devices
        self.limits: list[int | None] = [None] * devices
        """Bytes that this process may hold of each GPU, as it asked for."""
        self.foreign_bytes = [0] * devices
        """Memory that other programs hold."""
        self.syncs: Counter[str] = Counter()
        self.launches: Counter[str] = Counter()
        self.allocations = 0
        self.fail_at: int | None = None
        """The number of an allocation that fails once."""
        self.failure: Callable[[], Exception] | None = None
        """Makes the error of that allocation; None: torch.OutOfMemoryError."""
        self.refuses_pinned = False
        """Whether the driver has no more pinned memory."""
        self.sync_mode = "default"
        self.pinned: set[int] = set()
        self._capture: tuple[GraphRecord, int] | None = None

    # --- streams ----------------------------------------------------------------------------------

    def new_stream(self, device: int) -> Stream:
        """Return a new stream."""
        stream = Stream(self, device)
        self.streams.append(stream)
        return stream

    def pooled_stream(self, device: int) -> Stream:
        """Return a stream as torch.cuda.Stream() does: there are 32, which are used in turn."""
        pool = self._stream_pool.setdefault(device, [])
        if len(pool) < 32:
            pool.append(self.new_stream(device))
            return pool[-1]
        self._streams_taken += 1
        return pool[(self._streams_taken - 1) % 32]

    def default_stream(self, device: int) -> Stream:
        """Return the default stream of a GPU."""
        return self._defaults[device]

    @property
    def device(self) -> int:
        """The current GPU of this thread."""
        return int(getattr(self._current, "device", 0))

    @device.setter
    def device(self, index: int) -> None:
        self._current.device = index

    def stream(self, device: int | None = None) -> Stream:
        """Return this thread's current stream of a GPU."""
        index = self.device if device is None else device
        chosen: dict[int, Stream] = getattr(self._current, "streams", {})
        return chosen.get(index, self._defaults[index])

    @contextmanager
    def on_stream(self, stream: Stream) -> Iterator[None]:
        """Make a stream this thread's current one."""
        before: dict[int, Stream] = getattr(self._current, "streams", {})
        self._current.streams = {**before, stream.device: stream}
        try:
            yield
        finally:
            self._current.streams = before

    def check_has(self, operation: str) -> None:
        """Raise torch's error for an operation that this kind of GPU can't compute."""
        if operation in self.missing:
            raise NotImplementedError(
                f"The operator '{operation}' is not currently implemented for the "
                f"{self.kind.upper()} device. If you want this op to be considered, comment on an "
                "issue."
            )

    def progress(self) -> None:
        """Let queued work go on by a random portion."""
        if self.order is not Order.RANDOM or self.is_capturing:
            return
        with self.lock:
            for stream in self.streams:
                if stream.waiting and self._random.random() < 0.3:
                    stream.run_to(stream.done + self._random.randint(1, stream.waiting))

    def finish(self) -> None:
        """Run all work of all streams."""
        with self.lock:
            while any(stream.waiting for stream in self.streams):
                for stream in self.streams:
                    stream.finish()

    # --- waiting ----------------------------------------------------------------------------------

    @property
    def is_capturing(self) -> bool:
        """Whether this thread captures a graph."""
        return self._capture is not None and self._capture[1] == threading.get_ident()

    def sync(self, what: str, *, explicit: bool = False) -> None:
        """Count a wait of the host, and refuse it where CUDA does.

        explicit  the program asked to wait; torch's debug mode does not object to that
        """
        if self.is_capturing:
            raise RuleError(f"operation not permitted when stream is capturing: {what}")
        self.syncs[what] += 1
        self.trace.sync(what)
        if self.sync_mode == "error" and not explicit:
            raise RuleError(f"called a synchronizing CUDA operation: {what}")

    def wait_here(self, what: str, device: int) -> None:
        """Wait until this thread's stream has done everything."""
        self.sync(what)
        self.stream(device).finish()

    # --- memory -----------------------------------------------------------------------------------

    def account(self, device: int, nbytes: int) -> None:
        """Count an allocation, or a release. Raises torch.OutOfMemoryError if there is no room."""
        with self.lock:
            held = self.held[device] + nbytes
            if nbytes > 0:
                self.allocations += 1
                if self.allocations == self.fail_at and self.failure is not None:
                    raise self.failure()
                room = self.total_bytes - self.foreign_bytes[device]
                limit = self.limits[device]
                room = room if limit is None else min(room, limit)
                if held > room or self.allocations == self.fail_at:
                    if self.kind == "mps":  # its allocator has no type of error for this
                        raise RuntimeError(
                            f"MPS backend out of memory (MPS allocated: {self.held[device]} bytes)."
                        )
                    raise torch.OutOfMemoryError(
                        f"CUDA out of memory. Tried to allocate {nbytes} bytes (emulated)"
                    )
            self.held[device] = held
            self.peak[device] = max(self.peak[device], held)

    def new_address(self, nbytes: int) -> int:
        """Return an address for memory that has no bytes."""
        with self.lock:
            address = self._next_address
            self._next_address += nbytes
            return address

    # --- graphs -----------------------------------------------------------------------------------

    @contextmanager
    def capture(self, record: GraphRecord, stream: Stream, pool: int | None) -> Iterator[None]:
        """Record the work of this thread on a stream instead of queueing it.

        pool  private pool of memory of other graphs; None: a new one
        """
        self.finish()
        self.captures += 1
        if pool is not None and not self._in_pool.get(pool):
            raise RuleError("no graph uses this pool any more")
        record.pool = next(self._pools) if pool is None else pool
        record.stream, record.workspace = stream, stream.workspaces
        self._in_pool.setdefault(record.pool, weakref.WeakSet()).add(record)
        weakref.finalize(record, self._destroyed, record.pool, stream)
        stream.capturing = record
        self._capture = (record, threading.get_ident())
        try:
            with self.on_stream(stream), self.trace.capturing(record.pool):
                yield
        finally:
            stream.capturing = None
            self._capture = None

    def _destroyed(self, pool: int, stream: Stream) -> None:
        """Free what belongs to a graph: its pool, if no other graph uses it, and in torch 2.13 the
        workspace of the stream on which it was captured."""
        stream.workspaces += 1
        if not self._in_pool[pool]:
            self.trace.drop_pool(pool)

    def replay(self, record: GraphRecord, device: int) -> None:
        """Queue the work of a graph. What the other graphs of its pool computed is lost."""
        if record.stream is not None and record.workspace != record.stream.workspaces:
            raise RuleError("a graph uses a workspace that was freed with another graph")
        for other in self._in_pool.get(record.pool, ()):
            if other is not record and self.poisons:
                self.stream(device).push(partial(_overwrite, [m.raw for m in other.memory]))
        for work in record.works:
            self.stream(device).push(work)

    def keep_for_capture(self, memory: Memory) -> None:
        """Keep memory that a capture allocates as long as its graph."""
        if self._capture is not None and self.is_capturing and not self.shapes_only:
            self._capture[0].memory.append(memory)
