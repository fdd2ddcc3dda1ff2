"""The memory plan: what is in memory in each phase, decided before anything is loaded.

It is computed from sizes alone, without torch: thousands of plans take a second, `plan` can print
one for a model that is not on disk, and the window can redraw it while a slider moves.

Units are kept in one fixed order (the architecture's keep_order). In each phase the longest prefix
of that order that fits next to the phase's cache and buffers is resident. The other units that the
phase needs are streamed through one or two buffers while the previous block computes. A larger
budget can therefore only lengthen the prefix: more is resident, less is streamed.

On a GPU the weights of a device are in one allocation, the slab (memory/slab.py), which keeps its
size in all phases. All phases have the same room for weights there: the budget less the cache and
the buffers of the phase that needs most of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property

from cogvlm2_lite.architectures.architecture import ModelConfig, Part, Phase
from cogvlm2_lite.backends.device import pinned_bytes
from cogvlm2_lite.errors import DoesNotFitError
from cogvlm2_lite.kv_kind import KVKind
from cogvlm2_lite.memory.inventory import (
    Unit,
    UnitKey,
    in_keep_order,
    in_use_order,
    list_units,
    step_of,
)
from cogvlm2_lite.memory.training import (
    Training,
    feature_bytes,
    learn_bytes,
    pair_bytes,
    waiting_bytes,
)
from cogvlm2_lite.memory.training import picture_bytes as known_picture_bytes
from cogvlm2_lite.memory.work import PREFILL_CHUNK, scratch_bytes
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import GIB, format_bytes

PHASE_NAMES: Mapping[Phase, Text] = {
    Phase.ENCODE: Text("Encode"),
    Phase.PREFILL_IMAGE: Text("Prefill with picture"),
    Phase.PREFILL_TEXT: Text("Prefill of text"),
    Phase.DECODE: Text("Decode"),
    Phase.LEARN: Text("Training"),
}
"""Names of phases for the beginning of a sentence."""

RESERVE_BYTES = 384 * 1024**2
"""Part of the free memory that is not used: other programs grow, and the driver needs some."""

PREFETCH_DEPTH = 2
"""Buffers of the stream: one block computes while the next one is copied."""

PICTURE_CACHE_BYTES = GIB
"""Maximum RAM for the picture cache: three pictures of the 19B model."""


class Offload(Enum):
    """Whether weights may be streamed."""

    AUTO = "auto"
    NEVER = "never"  # raise DoesNotFitError instead of becoming slow


@dataclass(frozen=True, kw_only=True)
class DeviceBudget:
    """The memory of one device that may be used.

    device        its name: "cpu", "cuda:0", or "GPU 1" for an assumed one
    device_bytes  for weights, cache and buffers
    host_bytes    RAM for weights that are streamed to it; 0 if in_ram: they come from disk
    in_ram        whether the device's memory is RAM; then weights cross no bus
    origin        how device_bytes was determined, as text
    remark        a sentence for the user; "" if there is nothing to say
    """

    device: str
    device_bytes: int
    host_bytes: int = 0
    in_ram: bool = False
    origin: Text = Text()  # noqa: RUF009 - immutable
    remark: Text = Text()  # noqa: RUF009


@dataclass(frozen=True, kw_only=True)
class PhasePlan:
    """The plan of one phase on one device.

    parts          the parts that the phase needs
    resident       units in memory for the whole phase, needed by it or kept for other phases
    streamed       units that are loaded for each use, in that order, through `depth` buffers
    cache_bytes    key/value caches at the planned context
    scratch_bytes  peak of activations and kernel buffers
    spare_bytes    bytes of the slab that only other phases use; 0 without a slab
    """

    phase: Phase
    parts: frozenset[Part]
    resident: tuple[Unit, ...]
    streamed: tuple[Unit, ...]
    depth: int
    cache_bytes: int
    scratch_bytes: int
    spare_bytes: int = 0

    @property
    def resident_bytes(self) -> int:
        return sum(unit.nbytes for unit in self.resident)

    @property
    def streamed_bytes(self) -> int:
        """Bytes that are copied for one picture, one prompt or one token."""
        return sum(unit.nbytes for unit in self.streamed)

    @property
    def buffer_bytes(self) -> int:
        return stream_buffer_bytes(self.streamed, self.depth)

    @property
    def weight_bytes(self) -> int:
        """Bytes for weights in memory: resident ones, and the stream's buffers."""
        return self.resident_bytes + self.buffer_bytes

    @property
    def peak_bytes(self) -> int:
        return self.weight_bytes + self.spare_bytes + self.cache_bytes + self.scratch_bytes

    @cached_property
    def resident_keys(self) -> frozenset[UnitKey]:
        return frozenset(unit.key for unit in self.resident)


@dataclass(frozen=True, kw_only=True)
class DevicePlan:
    """The plan of one device: its budget, its share of the blocks, and its phases."""

    budget: DeviceBudget
    blocks: Mapping[Part, range]
    """Decoder blocks (under LANGUAGE_EXPERT) and vision blocks (under VISION) that run here."""
    phases: tuple[PhasePlan, ...]

    def phase(self, phase: Phase) -> PhasePlan:
        """Return the plan of one phase."""
        return next(p for p in self.phases if p.phase is phase)

    @property
    def peak_bytes(self) -> int:
        return max(p.peak_bytes for p in self.phases)

    @property
    def streams(self) -> bool:
        return any(p.streamed for p in self.phases)

    @property
    def caches_stay(self) -> bool:
        """Whether all caches stay at their addresses, which CUDA graphs contain, in all phases."""
        return len({phase.cache_bytes for phase in self.phases}) == 1

    @property
    def always_keys(self) -> frozenset[UnitKey]:
        """Units that stay in memory through all phases."""
        return frozenset[UnitKey].intersection(*(phase.resident_keys for phase in self.phases))

    @property
    def pinned(self) -> tuple[Unit, ...]:
        """Units with a copy in pinned RAM: those that are streamed for each token.

        At most half of the RAM for weights is pinned, because the system can't use it for anything
        else. The first units in the order of use have copies.
        """
        room = self.budget.host_bytes // 2
        streamed = (u for p in self.phases if p.phase is Phase.DECODE for u in p.streamed)
        sums = ((unit, room := room - pinned_bytes(unit.nbytes)) for unit in streamed)
        return tuple(unit for unit, left in sums if left >= 0)

    @property
    def moving(self) -> tuple[Unit, ...]:
        """Units that are not always in the device's memory, in the order of keeping."""
        always = self.always_keys
        units = {u.key: u for p in self.phases for u in (*p.resident, *p.streamed)}
        return in_keep_order(unit for key, unit in units.items() if key not in always)


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """The plans of all devices, and the use of the remaining RAM.

    host_part_bytes      bytes of parts that stay in RAM as mapped pages and are read by rows
    picture_cache_bytes  RAM for the picture cache; 0 if not even one picture fits
    parallel             conversations at once, each of `context` tokens
    remark               a sentence for the user; "" if there is nothing to say
    wave_bytes           RAM for what waits of the conversations of a training step that are
                         computed together (training.waiting_bytes); 0 without training
    trained_bytes        RAM for the trained numbers, their gradients and moments
    """

    context: int
    devices: tuple[DevicePlan, ...]
    host_part_bytes: Mapping[Part, int]
    picture_cache_bytes: int = 0
    parallel: int = 1
    remark: Text = Text()  # noqa: RUF009 - immutable
    wave_bytes: int = 0
    trained_bytes: int = 0

    @property
    def peak_bytes(self) -> int:
        return sum(device.peak_bytes for device in self.devices)

    @property
    def streams(self) -> bool:
        return any(device.streams for device in self.devices)

    @property
    def caches_stay(self) -> bool:
        """Whether all caches stay in memory in all phases; else the cache of a conversation must
        be freed before its new picture is encoded."""
        return all(device.caches_stay for device in self.devices)

    def streamed_bytes(self) -> dict[Phase, int]:
        """Return the streamed bytes of each phase, summed over all devices."""
        sums: dict[Phase, int] = {}
        for device in self.devices:
            for phase in device.phases:
                sums[phase.phase] = sums.get(phase.phase, 0) + phase.streamed_bytes
        return sums

    def reloaded_bytes(self) -> int:
        """Return the bytes of units that are resident in a phase but released for another one.

        They are loaded again once for each new picture, in addition to the streamed bytes.
        """
        total = 0
        for device in self.devices:
            always = device.always_keys
            leaving = {
                unit.key: unit.nbytes
                for phase in device.phases
                for unit in phase.resident
                if unit.part in phase.parts and unit.key not in always
            }
            total += sum(leaving.values())
        return total


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What the plan must have room for.

    context       tokens of a key/value cache
    with_picture  whether questions may have a picture; without, no vision weight is loaded
    itemsize      bytes of the compute dtype
    kv            how keys and values are stored
    parallel      conversations at once, each with its own cache
    training      a training run instead of answers: make it with `of_training`
    """

    context: int
    with_picture: bool = True
    itemsize: int = 2
    kv: KVKind = KVKind.FULL
    parallel: int = 1
    training: Training | None = None

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases in the order in which they follow one another."""
        if self.training is not None:
            return self.training.phases
        answer = (Phase.PREFILL_TEXT, Phase.DECODE)
        return (Phase.ENCODE, Phase.PREFILL_IMAGE, *answer) if self.with_picture else answer

    def parts(self, phase: Phase, config: ModelConfig) -> frozenset[Part]:
        """Return the parts that a phase needs."""
        parts = config.architecture.phases[phase]
        if phase is Phase.LEARN and self.training is not None:
            parts -= self.training.unused_parts
        return parts

    @staticmethod
    def of_training(training: Training, *, itemsize: int) -> Workload:
        """Return the workload of a training run.

        Its plan has the phases ENCODE, PREFILL_IMAGE (only if the adapter acts behind the picture)
        and LEARN, for forward and backward passes through the decoder. A trained vision tower runs
        forward in ENCODE and backward in LEARN. `Residency` carries the plan out as for answers:

            plan = plan_memory(config, sizes, budgets, Workload.of_training(training, itemsize=2))
            residency = Residency(loaders, keys, parts.pieces, plan, arenas)
            with residency.at(Phase.LEARN, block): ...                  # forward, and the head
            with residency.at(Phase.LEARN, block, backward=True): ...   # last block to first

        The conversations of a step are split into waves, so that `training.waiting_bytes` of a
        wave is at most `plan.wave_bytes`. `plan.picture_cache_bytes` limits what is kept of
        pictures from step to step.
        """
        return Workload(
            context=training.prefix + training.tokens,
            with_picture=training.pictures > 0,
            itemsize=itemsize,
            training=training,
        )


def plan_memory(
    config: ModelConfig,
    sizes: Mapping[UnitKey, int],
    budgets: Sequence[DeviceBudget],
    workload: Workload,
    *,
    offload: Offload = Offload.AUTO,
    shares: Sequence[Mapping[Part, range]] | None = None,
) -> MemoryPlan:
    """Return a plan of all phases on all devices.

    sizes    bytes in memory of every unit (inventory.sum_by_unit)
    budgets  one per device, in the order in which blocks are spread
    shares   blocks of each device, from an earlier plan; None: in proportion to the budgets

    Raises DoesNotFitError if a device can't hold even the smallest working set, or, with offload
    NEVER, if anything would have to be streamed. The error says how many bytes are missing and
    what would help.
    """
    # 1. Spread the blocks over the devices, unless an earlier plan did.
    shares = shares or share_blocks(config, budgets)

    def plan_with(waiting: int) -> MemoryPlan:
        return _plan(config, sizes, budgets, workload, offload, shares, waiting)

    training = workload.training
    if training is None:
        return plan_with(0)
    # 2. In training, RAM also holds the trained numbers and what waits of a step's conversations:
    #    of all of them if there is room, else of as many as fit, but at least of the longest one.
    least, most = (
        training.trained_bytes
        + waiting_bytes(config, training, workload.itemsize, tokens=tokens, pictures=pictures)
        for tokens, pictures in (
            (training.tokens, min(1, training.pictures)),
            (training.step_tokens, training.step_pictures),
        )
    )
    most = max(least, most)
    if not budgets[0].in_ram:
        return plan_with(_waiting_beside_weights(plan_with(0), budgets, least, most))
    floor = least_bytes(config, sizes, workload, in_ram=True)
    room = _room_to_wait(plan_with(least), floor + least)
    return plan_with(min(most, least + room))


def _room_to_wait(plan: MemoryPlan, floor: int) -> int:
    """Return how much more may wait than in a plan for the longest conversation alone, in RAM.

    floor  bytes of the smallest working set, and of what waits in that plan

    If the learning phase streams nothing, it must stay so. If it streams anyway, larger waves save
    more than resident weights do: all streamed weights are read twice for each wave.
    """
    rooms = [sum(device.budget.device_bytes for device in plan.devices) - floor]
    for device in plan.devices:
        learn = device.phase(Phase.LEARN)
        if not learn.streamed:
            last = max(i for i, unit in enumerate(learn.resident) if unit.part in learn.parts)
            others = sum(unit.nbytes for unit in learn.resident[last + 1 :])
            rooms.append(device.budget.device_bytes - learn.peak_bytes + others)
    return max(0, min(rooms))


def _waiting_beside_weights(
    plan: MemoryPlan, budgets: Sequence[DeviceBudget], least: int, most: int
) -> int:
    """Return the bytes of RAM for what waits in training; weights that are streamed come first.

    Raises DoesNotFitError if there is not enough for one conversation.
    """
    host = sum(budget.host_bytes for budget in budgets)
    if host < least:
        raise DoesNotFitError(
            "Training needs at least {least} of RAM for the trained numbers and one conversation, "
            "where {size} can be used.",
            hint="Close other programs, or use a smaller --rank or --max-tokens.",
            least=format_bytes(least),
            size=format_bytes(host),
        )
    moving = sum(unit.nbytes for device in plan.devices for unit in device.moving)
    return min(most, max(least, host - moving))


def _plan(
    config: ModelConfig,
    sizes: Mapping[UnitKey, int],
    budgets: Sequence[DeviceBudget],
    workload: Workload,
    offload: Offload,
    shares: Sequence[Mapping[Part, range]],
    waiting: int,
) -> MemoryPlan:
    """Return a plan; `waiting` bytes of RAM are used besides weights, caches and scratch."""
    # 1. Only the parts that some phase of the workload needs take part.
    units = _needed_units(config, sizes, workload)
    # 2. Each device is planned for itself: its units within its budget.
    last = len(budgets) - 1
    taken = waiting // len(budgets) if budgets[0].in_ram else 0
    devices = tuple(
        _plan_device(
            config, budget, shares[i], _units_on(units, shares[i], i == last), workload, offload,
            taken,
        )
        for i, budget in enumerate(budgets)
    )  # fmt: skip
    # 3. The embedding is read by rows from its mapped file; the picture cache gets what is left.
    on_host = {Part.EMBEDDING: sizes[(Part.EMBEDDING, None)]}
    trained = 0 if workload.training is None else workload.training.trained_bytes
    return MemoryPlan(
        context=workload.context,
        devices=devices,
        host_part_bytes=on_host,
        picture_cache_bytes=_picture_cache_bytes(config, devices, on_host, workload, waiting),
        parallel=workload.parallel,
        wave_bytes=max(0, waiting - trained),
        trained_bytes=trained,
    )


def least_bytes(
    config: ModelConfig, sizes: Mapping[UnitKey, int], workload: Workload, *, in_ram: bool
) -> int:
    """Return the memory of a single device below which `plan_memory` raises DoesNotFitError.

    in_ram  as in DeviceBudget. In training without a GPU, what waits in RAM comes in addition.
    """
    budget = DeviceBudget(device="", device_bytes=0, in_ram=in_ram)
    [share] = share_blocks(config, [replace(budget, device_bytes=1)])
    units = _units_on(_needed_units(config, sizes, workload), share, is_last=True)
    phases = _plan_phases(config, budget, share, units, workload, 0)
    return max(phase.peak_bytes for phase in phases)


def plan_most_parallel(plan_for: Callable[[int], MemoryPlan], wanted: int) -> MemoryPlan:
    """Return a plan for as many conversations at once as memory allows, at most `wanted`.

    plan_for  plans for a number of conversations; raises DoesNotFitError if they do not fit
    Returns   a plan whose remark says so if there are fewer than wanted

    Raises what plan_for raises for a single conversation.
    """
    for parallel in range(wanted, 1, -1):
        with suppress(DoesNotFitError):
            return _with_remark(plan_for(parallel), wanted)
    return _with_remark(plan_for(1), wanted)


def _with_remark(plan: MemoryPlan, wanted: int) -> MemoryPlan:
    if plan.parallel == wanted:
        return plan
    each = sum(device.phase(Phase.DECODE).cache_bytes for device in plan.devices) // plan.parallel
    remark = Text(
        "Memory suffices for {count} conversations at once, not for {wanted}: each takes {size} of "
        "key/value cache. A shorter --context makes them smaller."
        if plan.parallel > 1
        else "Memory suffices for one conversation at once, not for {wanted}: each takes {size} of "
        "key/value cache. A shorter --context makes them smaller.",
        count=plan.parallel,
        wanted=wanted,
        size=format_bytes(each),
    )
    return replace(plan, remark=remark)


def share_blocks(config: ModelConfig, budgets: Sequence[DeviceBudget]) -> list[dict[Part, range]]:
    """Return each device's blocks: contiguous, and in proportion to its memory."""
    total = sum(budget.device_bytes for budget in budgets) or 1
    shares: list[dict[Part, range]] = []
    below = 0
    for budget in budgets:
        above = below + budget.device_bytes
        shares.append(
            {
                part: range(count * below // total, count * above // total)
                for part, count in (
                    (Part.VISION, config.vision.num_hidden_layers),
                    (Part.LANGUAGE_EXPERT, config.num_hidden_layers),
                )
            }
        )
        below = above
    return shares


def _needed_units(
    config: ModelConfig, sizes: Mapping[UnitKey, int], workload: Workload
) -> list[Unit]:
    needed = frozenset[Part]().union(*(workload.parts(phase, config) for phase in workload.phases))
    units = list_units(sizes, config.architecture.keep_order)
    return [unit for unit in units if unit.part in needed]


def _units_on(
    units: Sequence[Unit], share: Mapping[Part, range], is_last: bool
) -> tuple[Unit, ...]:
    """Return a device's units.

    These are its blocks; on the first device also what precedes the vision blocks, and on the last
    one everything else outside of blocks.
    """

    def is_here(unit: Unit) -> bool:
        own = share[Part.VISION if unit.part is Part.VISION else Part.LANGUAGE_EXPERT]
        if unit.block is not None:
            return unit.block in own
        return own.start == 0 if unit.part is Part.VISION else is_last

    return tuple(unit for unit in units if is_here(unit))


def _plan_device(
    config: ModelConfig,
    budget: DeviceBudget,
    share: Mapping[Part, range],
    units: tuple[Unit, ...],
    workload: Workload,
    offload: Offload,
    waiting: int,
) -> DevicePlan:
    phases = _plan_phases(config, budget, share, units, workload, waiting)
    largest = max(phases, key=lambda phase: phase.peak_bytes)
    if largest.peak_bytes > budget.device_bytes:
        shorter = None
        if workload.training is None:
            shorter = _fitting_context(phases, budget, workload)
        raise _does_not_fit(largest, shorter, budget, config)
    plan = DevicePlan(budget=budget, blocks=share, phases=phases)
    if offload is Offload.NEVER:
        _check_nothing_moves(plan, units)
    return plan


def _check_nothing_moves(plan: DevicePlan, units: Sequence[Unit]) -> None:
    """Raise DoesNotFitError if any weight would have to be released and loaded again."""
    always = plan.always_keys
    if all(unit.key in always for unit in units):
        return
    held = sum(unit.nbytes for unit in units)
    everything = held + max(phase.cache_bytes + phase.scratch_bytes for phase in plan.phases)
    raise DoesNotFitError(
        "The whole model needs {least} of RAM, where {usable}, and --offload is never."
        if plan.budget.in_ram
        else "The whole model needs {least} on {device}, where {usable}, and --offload is never.",
        hint="Leave --offload at auto: the answers are the same, but slower.",
        param="offload",
        least=format_bytes(everything),
        device=plan.budget.device,
        usable=_usable(plan.budget),
    )


def _usable(budget: DeviceBudget) -> Text:
    size = format_bytes(budget.device_bytes)
    if not budget.origin:
        return Text("{size} can be used", size=size)
    return Text("{size} can be used ({origin})", size=size, origin=budget.origin)


def _plan_phases(
    config: ModelConfig,
    budget: DeviceBudget,
    share: Mapping[Part, range],
    units: tuple[Unit, ...],
    workload: Workload,
    waiting: int,
) -> tuple[PhasePlan, ...]:
    """Return the plans of all phases on one device.

    waiting  bytes of a training run that are on this device in every phase
    """
    # 1. What each phase needs besides weights; the rest of the budget is room for weights.
    besides = [
        _besides_weights(phase, config, share, units, workload, waiting, in_ram=budget.in_ram)
        for phase in workload.phases
    ]
    most = max(cache + scratch for cache, scratch in besides)
    plans = [
        _plan_phase(
            phase, config, units, workload, cache, scratch,
            room=budget.device_bytes - (cache + scratch if budget.in_ram else most),
        )
        for phase, (cache, scratch) in zip(workload.phases, besides, strict=True)
    ]  # fmt: skip
    if budget.in_ram:
        return tuple(plans)
    # 2. The slab has the size that the phase with the most weights needs.
    slab = max(plan.weight_bytes for plan in plans)
    plans = [replace(plan, spare_bytes=slab - plan.weight_bytes) for plan in plans]
    # 3. If nothing else has to leave for it, the cache of the conversation stays during ENCODE.
    one = _cache_bytes(Phase.DECODE, config, share, replace(workload, parallel=1))
    return tuple(
        replace(plan, cache_bytes=plan.cache_bytes + one)
        if plan.phase is Phase.ENCODE
        and workload.training is None
        and plan.peak_bytes + one <= budget.device_bytes
        else plan
        for plan in plans
    )


def _besides_weights(
    phase: Phase,
    config: ModelConfig,
    share: Mapping[Part, range],
    units: tuple[Unit, ...],
    workload: Workload,
    waiting: int,
    *,
    in_ram: bool,
) -> tuple[int, int]:
    """Return the bytes of a phase's caches, and of its activations and kernel buffers."""
    cache, scratch = waiting, _scratch_bytes(phase, config, units, workload)
    if workload.training is None:
        cache = _cache_bytes(phase, config, share, workload)
    if cache:
        # Several conversations share this: their keys and values are converted one after another.
        values = workload.context * config.num_multi_query_heads * _padded(config, workload.kv)
        scratch += values * workload.kv.reading_bytes(workload.itemsize, in_ram=in_ram)
    return cache, scratch


def _plan_phase(
    phase: Phase,
    config: ModelConfig,
    units: tuple[Unit, ...],
    workload: Workload,
    cache: int,
    scratch: int,
    *,
    room: int,
) -> PhasePlan:
    """Return the plan with the longest prefix of the keeping order that fits.

    If nothing fits, it is the plan with the smallest possible working set.

    room  bytes for weights
    """
    # 1. The prefix that stays. Norms are always in it: they are needed before every block.
    parts = workload.parts(phase, config)
    needed = [unit for unit in units if unit.part in parts]
    floor = sum(unit.part is Part.NORMS for unit in units)
    kept, depth = _longest_prefix(units, needed, floor, room)
    # 2. What the phase needs and does not keep is streamed.
    resident = units[:kept]
    streamed = tuple(in_use_order(set(needed) - set(resident)))
    return PhasePlan(
        phase=phase,
        parts=parts,
        resident=resident,
        streamed=streamed,
        depth=depth if streamed else 0,
        cache_bytes=cache,
        scratch_bytes=scratch,
    )


def _scratch_bytes(
    phase: Phase, config: ModelConfig, units: Sequence[Unit], workload: Workload
) -> int:
    training, itemsize = workload.training, workload.itemsize
    if phase is Phase.LEARN and training is not None:
        whole = config.vocab_size * config.hidden_size * itemsize
        quantized = any(u.part is Part.LM_HEAD and u.nbytes < whole for u in units)
        return learn_bytes(config, training, itemsize, head_is_quantized=quantized)
    scratch = scratch_bytes(
        phase,
        config,
        itemsize=itemsize,
        tokens=min(PREFILL_CHUNK, workload.context),
        parallel=workload.parallel,
    )
    if training is not None and training.tower:
        scratch += pair_bytes(training, itemsize)
    return scratch


def _longest_prefix(
    units: Sequence[Unit], needed: Sequence[Unit], floor: int, room: int
) -> tuple[int, int]:
    """Return how many units stay, and the number of buffers that stream the rest.

    With one buffer only the first `floor` units stay: a second buffer gains more than a resident
    block, and with more room no fewer units may be resident.
    """
    # Try all units first, then drop them one by one from the end. A dropped unit that the phase
    # needs enlarges its step, and each buffer must hold the largest step.
    wanted = set(needed)
    held = sum(unit.nbytes for unit in units)
    steps: dict[tuple[int, int], int] = {}
    largest = 0
    for kept in range(len(units), floor - 1, -1):
        if held + PREFETCH_DEPTH * largest <= room:
            return kept, PREFETCH_DEPTH
        if kept > floor:
            unit = units[kept - 1]
            held -= unit.nbytes
            if unit in wanted:
                steps[step_of(unit)] = steps.get(step_of(unit), 0) + unit.nbytes
                largest = max(largest, steps[step_of(unit)])
    return floor, 1


def stream_buffer_bytes(streamed: Sequence[Unit], depth: int) -> int:
    """Return the bytes of the stream's buffers: each must hold what the largest step needs."""
    steps: dict[tuple[int, int], int] = {}
    for unit in streamed:
        steps[step_of(unit)] = steps.get(step_of(unit), 0) + unit.nbytes
    return depth * max(steps.values(), default=0)


def _cache_bytes(
    phase: Phase, config: ModelConfig, share: Mapping[Part, range], workload: Workload
) -> int:
    """Return the bytes of the key/value caches of this device's layers.

    While a new picture is encoded, the cache of its conversation is empty and needs no memory; the
    other conversations continue. On a GPU with room for it the cache stays (`_plan_phases`).
    """
    caches = workload.parallel - 1 if phase is Phase.ENCODE else workload.parallel
    layers = len(share[Part.LANGUAGE_EXPERT])
    return caches * _token_bytes(config, workload) * layers * workload.context


def _token_bytes(config: ModelConfig, workload: Workload) -> int:
    """Return the bytes of the key and value of one token in one layer."""
    per_head = workload.kv.row_bytes(config.head_dim, workload.itemsize)
    return 2 * config.num_multi_query_heads * per_head


def _padded(config: ModelConfig, kind: KVKind) -> int:
    """Return how many numbers of a head are computed from its codes."""
    count, size = kind.groups(config.head_dim)
    return count * size


def _picture_cache_bytes(
    config: ModelConfig,
    devices: Sequence[DevicePlan],
    on_host: Mapping[Part, int],
    workload: Workload,
    waiting: int,
) -> int:
    """Return what weights, caches and activations leave of the RAM budgets, for kept pictures.

    waiting  bytes of RAM that a training run uses
    """
    if not workload.with_picture:
        return 0
    if devices[0].budget.in_ram:
        left = devices[0].budget.device_bytes - devices[0].peak_bytes
    else:
        left = sum(
            device.budget.host_bytes
            - sum(unit.nbytes for unit in device.moving)
            - sum(pinned_bytes(unit.nbytes) - unit.nbytes for unit in device.pinned)
            for device in devices
        ) - sum(on_host.values())
        left -= waiting
    each, most = picture_bytes(config, workload), PICTURE_CACHE_BYTES
    training = workload.training
    if training is not None:
        # What a trained tower makes of a picture changes in every step.
        most = 0 if training.tower else each * training.pictures
        each = feature_bytes(config, workload.itemsize)
    return min(left, most) if left >= each else 0


def picture_bytes(config: ModelConfig, workload: Workload) -> int:
    """Return the bytes of a kept picture: keys and values of [bos, picture]; 0 without pictures.

    In training it is all that is known of a picture, its features too.
    """
    if workload.training is not None and workload.with_picture:
        return known_picture_bytes(config, workload.training, workload.itemsize)
    tokens = 1 + config.vision.image_tokens if workload.with_picture else 0
    return _token_bytes(config, workload) * config.num_hidden_layers * tokens


def _fitting_context(phases: Sequence[PhasePlan], budget: DeviceBudget, workload: Workload) -> int:
    """Return the longest context with which all phases, as planned, fit; 0 if none does."""
    shortest = workload.context
    for plan in phases:
        missing = plan.peak_bytes - budget.device_bytes
        per_token = plan.cache_bytes // workload.context
        if missing > 0:
            fewer = -(-missing // per_token) if per_token else workload.context
            shortest = min(shortest, workload.context - fewer)
    return max(shortest, 0)


def _does_not_fit(
    plan: PhasePlan, shorter: int | None, budget: DeviceBudget, config: ModelConfig
) -> DoesNotFitError:
    """Return the error; `shorter` is a context that fits, None in training."""
    missing = plan.peak_bytes - budget.device_bytes
    hint = "Close other programs, allow more memory, or use another device."
    if shorter is None:
        hint = "Close other programs, allow more memory, or use a smaller --max-tokens or --rank."
    elif shorter >= config.vision.image_tokens + 512:
        hint = "A context of {context} tokens would fit: --context {context}."
    return DoesNotFitError(
        "{phase} needs at least {least} of RAM, where {usable}: {missing} more is needed."
        if budget.in_ram
        else "{phase} needs at least {least} on {device}, where {usable}: {missing} more is "
        "needed.",
        hint=hint,
        context=shorter,
        phase=PHASE_NAMES[plan.phase],
        least=format_bytes(plan.peak_bytes),
        device=budget.device,
        usable=_usable(budget),
        missing=format_bytes(missing),
    )
