"""Carries out a memory plan: loads weights before they are needed and releases them afterwards.

The plan decides; this code decides nothing, and nothing else moves weights. The main loops look
like this; the block's weights are guaranteed to be in memory only inside the body:

    with residency.phase(Phase.PREFILL_TEXT):
        for block in residency.walk(decoder.blocks):
            hidden = block(hidden, step)

The next block's weights are loaded on another thread while this one computes: at the first use of
a resident block, and at every use of one that is streamed through two buffers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, TypeVar

from cogvlm2_lite.architectures.architecture import Part, Phase
from cogvlm2_lite.backends.base import HostCopy
from cogvlm2_lite.errors import EngineError
from cogvlm2_lite.memory.arena import Arena
from cogvlm2_lite.memory.inventory import Unit, UnitKey, in_use_order, step_of
from cogvlm2_lite.memory.plan import MemoryPlan, PhasePlan
from cogvlm2_lite.memory.slab import Slab, SlabLayout, lay_out
from cogvlm2_lite.weights.slots import WeightSlot

Keys = tuple[UnitKey, ...]


class HasSlots(Protocol):
    """A piece of the model that lists its weight slots."""

    def slots(self) -> Iterable[WeightSlot]: ...


class Loader(Protocol):
    """Fills slots on one device. Implementation: `weights/loader.py`; tests have another one."""

    @property
    def uses_slab(self) -> bool:
        """Whether all weights of the device lie in one allocation (memory/slab.py)."""
        ...

    def reserve(self, nbytes: int) -> None:
        """Replace the slab by one of another size; 0: release it. All slots must be empty."""
        ...

    def fill_unit(
        self, slots: Sequence[WeightSlot], begin: int | None, kept: HostCopy | None = None
    ) -> int:
        """Load a unit into its slots; return the bytes it takes.

        begin  the first byte of its place in the slab; None: it gets memory of its own
        kept   where its bytes are kept for the next time; None: nowhere
        """
        ...

    def read_ahead(self, slots: Sequence[WeightSlot]) -> None:
        """Let the system read weights that will be loaded soon; returns immediately."""
        ...

    def clear(self, slots: Sequence[WeightSlot]) -> None:
        """Remove the weights from slots."""
        ...


Piece = TypeVar("Piece", bound=HasSlots)


@dataclass(frozen=True, kw_only=True)
class Preloaded:
    """How much `preload` has loaded: units and their bytes in memory."""

    units: int
    total_units: int
    nbytes: int
    total_nbytes: int


class Residency:
    """Fills and empties slots on the devices of a plan.

    loaders  one per device; only one of them works at a time
    keys     the unit of each tensor, by name
    pieces   all pieces of the model that have slots
    arenas   one per device; they account for weights, and for a phase's scratch
    loads_ahead  whether the other thread may load weights while this one computes

    `loaded` has the bytes of each loaded unit. `version` changes whenever the address of a weight
    may have changed: with a slab, when there is a new slab; without, whenever a weight is loaded or
    released. What was recorded of addresses is valid for the same version while `is_ready`.
    `read_bytes` counts all bytes that were loaded, `streamed_bytes` those of streamed
    units. `steps` counts the pieces that were walked; the heartbeat uses it to see progress.
    """

    def __init__(
        self,
        loaders: Sequence[Loader],
        keys: Mapping[str, UnitKey],
        pieces: Sequence[HasSlots],
        plan: MemoryPlan,
        arenas: Sequence[Arena],
        *,
        loads_ahead: bool = True,
    ) -> None:
        self._loaders = loaders
        self._loads_ahead = loads_ahead
        self.arenas = arenas
        self._keys = keys
        self._slabs: list[Slab | None] = [None for _ in loaders]
        self._reserved = [0 for _ in loaders]
        self._host_copies: dict[UnitKey, HostCopy] = {}
        self._slots: dict[UnitKey, list[WeightSlot]] = {}
        for piece in pieces:
            for slot in piece.slots():
                self._slots.setdefault(keys[slot.name], []).append(slot)
        self.loaded: dict[UnitKey, int] = {}
        self._prefetching: Future[None] | None = None
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        self.streamed_bytes = self.read_bytes = 0
        self.version = 0
        self.steps = 0
        self.follow(plan)

    @property
    def resident_bytes(self) -> dict[Part, int]:
        """Bytes that each part holds now."""
        held = dict.fromkeys(Part, 0)
        for (part, _), nbytes in self.loaded.items():
            held[part] += nbytes
        return held

    def follow(self, plan: MemoryPlan) -> None:
        """Switch to a plan; release immediately what no phase of it keeps."""
        self._discard_prefetch()
        # 1. A slab with another layout is released, with everything in it.
        for index, device in enumerate(plan.devices):
            if self._loaders[index].uses_slab:
                self._follow_layout(index, lay_out(device))
        # 2. The device and size of every planned unit.
        planned = [
            (unit, index)
            for index, device in enumerate(plan.devices)
            for phase in device.phases
            for unit in (*phase.resident, *phase.streamed)
        ]
        self._device_index = {unit.key: index for unit, index in planned}
        self._sizes = {unit.key: unit.nbytes for unit, _ in planned}
        self._phases = {
            phase.phase: [device.phase(phase.phase) for device in plan.devices]
            for phase in plan.devices[0].phases
        }
        # 3. The new budgets. No phase is current, so the next one releases what it does not keep.
        for arena, device in zip(self.arenas, plan.devices, strict=True):
            arena.limit_bytes = device.budget.device_bytes
        self._current_phase: Phase | None = None
        self._lingering: Keys = ()
        self._following: dict[bool, dict[UnitKey, Keys]] = {False: {}, True: {}}
        self._streamed: set[UnitKey] = set()
        self._needs: frozenset[UnitKey] = frozenset()
        before, self._host_copies = self._host_copies, {}
        for device in plan.devices:
            for unit in device.pinned:
                self._host_copies[unit.key] = before.get(unit.key) or HostCopy()
        # 4. Release units that no phase keeps, and the content of stream buffers.
        self._drop(self._in_buffers())
        resident = (p.resident_keys for plans in self._phases.values() for p in plans)
        self._drop(self._not_kept(frozenset[UnitKey]().union(*resident)))

    @property
    def current_phase(self) -> Phase | None:
        """The current phase, or the last one between two; None before the first."""
        return self._current_phase

    def preload(self) -> Iterator[Preloaded]:
        """Load what decoding needs and no phase releases; yields the progress after each unit.

        If this is not called, the first answer loads them, and the user waits longer for it. For a
        training run, it loads what the learning phase needs.
        """
        units = self._lasting_units()
        sizes = [unit.nbytes for unit in units]
        with self.phase(list(self._phases)[-1]):
            for done, unit in enumerate(units, 1):
                self._load((unit.key,))
                yield Preloaded(
                    units=done,
                    total_units=len(units),
                    nbytes=sum(sizes[:done]),
                    total_nbytes=sum(sizes),
                )

    def read_ahead(self) -> None:
        """Let the system read what `preload` loads, while something else is done."""
        for index, loader in enumerate(self._loaders):
            keys = [unit.key for unit in self._lasting_units()]
            here = [key for key in keys if self._device_index[key] == index]
            loader.read_ahead([slot for key in here for slot in self._slots[key]])

    def _lasting_units(self) -> list[Unit]:
        """Return the units that the last phase needs and no phase releases, in order of use."""
        plans = list(self._phases.values())[-1]
        always = (
            frozenset.intersection(*(phase[index].resident_keys for phase in self._phases.values()))
            for index in range(len(plans))
        )
        return [
            unit
            for plan, kept in zip(plans, always, strict=True)
            for unit in in_use_order(plan.resident)
            if unit.key in kept and unit.part in plan.parts
        ]

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Enter a phase: release what its plan does not keep, and account for its scratch."""
        plans = self._phases[phase]
        if phase is not self._current_phase:
            self._finish_prefetch()
            kept = frozenset[UnitKey]().union(*(plan.resident_keys for plan in plans))
            self._drop([*self._not_kept(kept), *self._in_buffers()])
            self._lingering = ()
            for slab in filter(None, self._slabs):
                slab.enter(phase)
            self._following = {
                backward: _following(self._phases, phase, backward, slabs=any(self._slabs))
                for backward in (False, True)
            }
            self._needs = frozenset(
                unit.key
                for plan in plans
                for unit in (*plan.resident, *plan.streamed)
                if unit.part in plan.parts
            )
            self._streamed = {unit.key for plan in plans for unit in plan.streamed}
            self._current_phase = phase
        with ExitStack() as stack:
            for arena, plan in zip(self.arenas, plans, strict=True):
                stack.enter_context(arena.holding(plan.scratch_bytes))
            yield

    def walk(self, pieces: Sequence[Piece], *, backward: bool = False) -> Iterator[Piece]:
        """Yield pieces in order, each with the weights that the phase needs.

        backward  the pieces come last to first, as in the backward pass of a training step; the
                  piece that is prefetched is then the previous one

        The streamed weights of a piece stay until another piece needs their buffer, so several
        answers that go through one piece in turn load it once.
        """
        assert self._current_phase is not None, "walk outside of a phase"
        for piece in pieces:
            self.steps += 1
            keys = self._needed(piece, self._current_phase)
            following = self._following[backward]
            after = next((f for key in keys if (f := following.get(key))), ())
            # 1. The same streamed piece again, for another answer, or after the turn from forward
            #    to backward: its weights are still here.
            if keys and keys == self._lingering:
                self._prefetch_if_idle(after)
                yield piece
                continue
            # 2. The piece's own weights: usually the other thread has loaded them. Streamed weights
            #    of an earlier step leave, and those that were loaded ahead for a step that did not
            #    come, as after a training step that failed.
            if not self._all_loaded(keys) or not self._all_loaded(after):
                self._finish_prefetch()
                self._release_lingering((*keys, *after))
                kept = {*keys, *after}
                self._drop([key for key in self.loaded if key in self._streamed - kept])
                self._load(keys)
            # 3. Start to load those of the next step, then let the caller compute.
            self._prefetch(after)
            streamed = tuple(key for key in keys if key in self._streamed)
            try:
                yield piece
            except BaseException:
                self._drop(streamed)
                raise
            # 4. Streamed weights stay until another step needs their buffer.
            if streamed:
                self._release_lingering((*keys, *after))
                self._lingering = keys

    @contextmanager
    def at(self, phase: Phase, piece: HasSlots, *, backward: bool = False) -> Iterator[None]:
        """Enter a phase and load one piece's weights; other phases may run between two calls."""
        with self.phase(phase):
            for _ in self.walk([piece], backward=backward):
                yield

    def release(self) -> None:
        """Release all weights."""
        self._finish_prefetch()
        self._current_phase = None
        self._lingering = ()
        self._drop(list(self.loaded))
        for index in range(len(self._loaders)):
            self._release_slab(index)
        self._host_copies = {key: HostCopy() for key in self._host_copies}

    @property
    def is_ready(self) -> bool:
        """Whether everything that the current phase needs is in memory and stays there."""
        if self._current_phase is None or self._streamed:
            return False
        return self._needs <= self.loaded.keys()

    # --- slabs ------------------------------------------------------------------------------------

    def _follow_layout(self, index: int, layout: SlabLayout) -> None:
        """Use a layout for a device; an equal one changes no address."""
        slab = self._slabs[index]
        if slab is not None and slab.layout == layout:
            return
        if slab is not None:
            here = [key for key in self.loaded if self._device_index.get(key) == index]
            self._drop(here)
            self._release_slab(index)
        self._slabs[index] = Slab(layout)

    def _reserve(self, index: int, slab: Slab) -> None:
        """Allocate a device's slab unless it has one. A failure changes nothing."""
        nbytes = slab.layout.nbytes
        if self._reserved[index]:
            return
        # Account before the allocation, so that the budget is never exceeded.
        self.arenas[index].take(nbytes)
        try:
            self._loaders[index].reserve(nbytes)
        except BaseException:
            self.arenas[index].release(nbytes)
            raise
        self._reserved[index] = nbytes
        self.version += 1

    def _release_slab(self, index: int) -> None:
        """Release a device's slab, in which there are no weights any more."""
        nbytes, self._reserved[index] = self._reserved[index], 0
        if nbytes:
            self._loaders[index].reserve(0)
            self.arenas[index].release(nbytes)

    def _in_buffers(self) -> list[UnitKey]:
        """Return the units in the stream buffers of slabs, whose places depend on the phase."""
        return [key for slab in self._slabs if slab is not None for key in slab.streamed]

    # --- loading ----------------------------------------------------------------------------------

    def _all_loaded(self, keys: Keys) -> bool:
        return all(key in self.loaded for key in keys)

    def _release_lingering(self, needed: Keys) -> None:
        """Release the streamed weights of the last step, except those that are needed now."""
        lingering, self._lingering = self._lingering, ()
        self._drop(key for key in lingering if key in self._streamed and key not in needed)

    def _needed(self, piece: HasSlots, phase: Phase) -> Keys:
        keys = dict.fromkeys(self._keys[slot.name] for slot in piece.slots())
        parts = self._phases[phase][0].parts
        return tuple(key for key in keys if key[0] in parts)

    def _not_kept(self, kept: frozenset[UnitKey]) -> list[UnitKey]:
        """Return the units that are loaded and planned, but not in `kept`."""
        return [key for key in self.loaded if key in self._device_index and key not in kept]

    def _prefetch(self, keys: Keys) -> None:
        """Start to load units on the other thread."""
        if self._loads_ahead and any(key not in self.loaded for key in keys):
            self._prefetching = self._pool.submit(self._load, keys)

    def _prefetch_if_idle(self, keys: Keys) -> None:
        """Start to load units unless the other thread loads them already, or failed to."""
        running = self._prefetching
        if running is None or (running.done() and running.exception() is None):
            self._prefetch(keys)

    def _finish_prefetch(self) -> None:
        """Wait for the other thread; raises its error, if any."""
        if self._prefetching is not None:
            future, self._prefetching = self._prefetching, None
            future.result()

    def _discard_prefetch(self) -> None:
        """Wait for the other thread, and ignore its error, if any."""
        if self._prefetching is not None:
            self._prefetching.exception()
            self._prefetching = None

    def _load(self, keys: Keys) -> None:
        for key in keys:
            if key not in self.loaded:
                self.loaded[key] = self._fill(key)

    def _fill(self, key: UnitKey) -> int:
        """Load one unit; return its bytes.

        Units outside of the plan stay in mapped files and are not accounted for.
        """
        device, size = self._device_index.get(key), self._sizes.get(key, 0)
        slab = None if device is None else self._slabs[device]
        begin = None
        if device is not None and slab is not None:
            self._reserve(device, slab)
            begin = slab.take(key)
        else:
            self.version += 1
            if device is not None:  # accounted for before the allocation, as the slab is
                self.arenas[device].take(size)
        try:
            filled = self._loaders[device or 0].fill_unit(
                self._slots[key], begin, self._host_copies.get(key)
            )
        except BaseException:
            self._clear(key, size)
            raise
        if device is not None and filled != size:
            self._clear(key, size)
            raise _other_size(key, filled, size)
        self.read_bytes += filled
        if key in self._streamed:
            self.streamed_bytes += size
        return size

    def _drop(self, keys: Iterable[UnitKey]) -> None:
        for key in keys:
            if key in self.loaded:
                self._clear(key, self.loaded.pop(key))

    def _clear(self, key: UnitKey, held: int) -> None:
        device = self._device_index.get(key)
        self._loaders[device or 0].clear(self._slots[key])
        slab = None if device is None else self._slabs[device]
        if slab is not None:
            slab.release(key)
            return
        self.version += 1
        if device is not None:
            self.arenas[device].release(held)


def _other_size(key: UnitKey, filled: int, planned: int) -> EngineError:
    part, block = key
    return EngineError(
        "The memory plan does not match the weights: {unit} has {filled} bytes, planned were "
        "{planned}.",
        hint="If the model folder was changed while it was in use, load it again. If not, please "
        "report this.",
        unit=part.value if block is None else f"{part.value} {block}",
        filled=filled,
        planned=planned,
    )


def _following(
    plans: Mapping[Phase, Sequence[PhasePlan]], phase: Phase, backward: bool, *, slabs: bool = False
) -> dict[UnitKey, Keys]:
    """Return for each unit the units that may be prefetched while its step computes.

    These are the units of the next step; after the last step, those of the next phase's first step
    that are also in this phase's plan. Norms are loaded before all steps, and what a device streams
    through a single buffer can't be prefetched.

    slabs  stream buffers are in slabs; then their content is lost at the end of the phase
    """
    # 1. Units that have memory of their own, or a second buffer, in this phase.
    early = {
        unit.key
        for plan in plans[phase]
        for unit in (*plan.resident, *(plan.streamed if plan.depth > 1 else ()))
    }
    # 2. What follows each step.
    steps, after = _in_order(plans, phase, backward)
    if phase is Phase.DECODE and len(steps) < 2:
        after = [()]
    if slabs and not backward and _next_phase(plans, phase) is not phase:
        kept = frozenset[UnitKey]().union(*(plan.resident_keys for plan in plans[phase]))
        after = [*after[:-1], tuple(key for key in after[-1] if key in kept)]
    return {
        key: tuple(k for k in following if k in early)
        for step, following in zip(steps, after, strict=False)
        for key in step
    }


def _in_order(
    plans: Mapping[Phase, Sequence[PhasePlan]], phase: Phase, backward: bool
) -> tuple[list[Keys], list[Keys]]:
    """Return the steps of a phase in order, and what follows each of them."""
    steps = _steps(plans[phase], backward=backward)
    if backward:  # which phase comes after a backward pass is not known
        return steps[::-1], [*steps[-2::-1], ()]
    if phase is Phase.LEARN:  # after the logits comes the way back: the last block again
        return steps, [*steps[1:], *(steps[-2:-1] or [()])]
    nexts = _steps(plans[_next_phase(plans, phase)])
    return steps, [*steps[1:], nexts[0] if nexts else ()]


def _next_phase(plans: Mapping[Phase, Sequence[PhasePlan]], phase: Phase) -> Phase:
    """Return the phase after a phase; decoding is followed by the next token's."""
    order = list(plans)
    return order[min(order.index(phase) + 1, len(order) - 1)]


def _steps(plans: Sequence[PhasePlan], *, backward: bool = False) -> list[Keys]:
    """Return the units that a phase needs, except norms, grouped by step, in order of use.

    The learning phase only goes back through the vision tower: forward, the tower is computed in a
    phase of its own.
    """
    skipped = {Part.NORMS}
    if plans[0].phase is Phase.LEARN and not backward:
        skipped |= {Part.VISION, Part.PROJECTOR}
    needed: list[Unit] = sorted(
        (
            unit
            for plan in plans
            for unit in (*plan.resident, *plan.streamed)
            if unit.part in plan.parts and unit.part not in skipped
        ),
        key=step_of,
    )
    return [tuple(unit.key for unit in group) for _, group in groupby(needed, key=step_of)]
