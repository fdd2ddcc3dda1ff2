"""Forecasts the times of a plan from operation counts, bytes and rates. No torch.

Each phase computes, reads weights from the device's memory, and waits for weights that are copied
from RAM or disk. With two stream buffers, or without a buffer, copying overlaps with computing and
the slower of the two counts; with a single buffer they alternate.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cogvlm2_lite.architectures.architecture import ModelConfig, Part, Phase
from cogvlm2_lite.forecast.rates import Rates
from cogvlm2_lite.memory.inventory import Unit, UnitKey
from cogvlm2_lite.memory.plan import DevicePlan, MemoryPlan, PhasePlan, Workload
from cogvlm2_lite.memory.work import decoder_flops, encode_flops

QUESTION_TOKENS = 100
"""Length of a typical question, including the template."""


@dataclass(frozen=True, kw_only=True)
class PhaseWork:
    """The work of one phase on one device: for a picture, a question, or a token.

    In parallel decoding, one token of each conversation.

    read_bytes  weights and cache that are read from the device's memory
    ram_bytes   weights that are copied over the bus first
    disk_bytes  weights that are read from disk first
    pack_bytes  those of them that get a packed copy
    blocks      that run one after another
    overlaps    whether copying overlaps with computing
    """

    flops: float
    read_bytes: int
    ram_bytes: int
    disk_bytes: int
    pack_bytes: int
    blocks: int
    overlaps: bool


def phase_seconds(work: PhaseWork, rates: Rates) -> float:
    """Return the expected duration of a phase on one device."""
    compute = max(
        work.flops / rates.matmul_flops,
        work.read_bytes / rates.memory_bytes_per_s,
        work.blocks * rates.block_s,
    )
    copy = (
        work.ram_bytes / rates.bus_bytes_per_s
        + work.disk_bytes / rates.disk_bytes_per_s
        + work.pack_bytes / rates.pack_bytes_per_s
    )
    return max(compute, copy) if work.overlaps else compute + copy


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """The weights that are copied for each use in a phase.

    They include those that another phase of the same turn had to evict.
    """

    ram: tuple[Unit, ...]
    disk: tuple[Unit, ...]

    @property
    def units(self) -> tuple[Unit, ...]:
        return (*self.ram, *self.disk)


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Expected times of a plan.

    seconds      by phase: for one new picture (encode, prefill with picture), for a question of
                 QUESTION_TOKENS, for one token of each conversation that is decoded (decode)
    arrivals     by phase and device
    ram_bytes    weights that are kept in RAM, including the embedding
    disk_bytes   weights that are read from disk for each use
    rates        one per device
    """

    seconds: Mapping[Phase, float]
    arrivals: Mapping[Phase, tuple[Arrivals, ...]]
    ram_bytes: int
    disk_bytes: int
    rates: tuple[Rates, ...]

    @property
    def tokens_per_s(self) -> float:
        """The decoding rate of one conversation."""
        return 1 / self.seconds[Phase.DECODE]

    @property
    def first_token_s(self) -> float:
        """Time from a question, about a new picture if there are pictures, to the first token."""
        return sum(s for phase, s in self.seconds.items() if phase is not Phase.DECODE)


def forecast(
    plan: MemoryPlan,
    config: ModelConfig,
    rates: Sequence[Rates],
    workload: Workload,
    stored: Mapping[UnitKey, int] | None = None,
) -> Forecast:
    """Return the expected time of each phase of a plan.

    rates   one per device
    stored  bytes of each unit as it is copied and as a multiplication reads it; None: those that
            it occupies. They differ if a matrix is in memory twice.
    """
    stored = stored or {}
    in_host = _kept_in_ram(plan)
    arrivals = arrivals_of(plan, workload, stored)
    seconds = {
        phase: sum(
            phase_seconds(
                _work(device, phase, arrivals[phase][index], config, workload, stored),
                rates[index],
            )
            for index, device in enumerate(plan.devices)
        )
        for phase in workload.phases
    }
    moving = {u.key: u.nbytes for device in plan.devices for u in device.moving}
    in_ram = sum(n for key, n in moving.items() if key in in_host)
    return Forecast(
        seconds=seconds,
        arrivals=arrivals,
        ram_bytes=in_ram + sum(plan.host_part_bytes.values()),
        disk_bytes=sum(moving.values()) - in_ram,
        rates=tuple(rates),
    )


def arrivals_of(
    plan: MemoryPlan, workload: Workload, stored: Mapping[UnitKey, int]
) -> dict[Phase, tuple[Arrivals, ...]]:
    """Return what must be copied for each use of a phase, by phase and device.

    stored  bytes of units as they are copied, if they differ
    """
    in_host = _kept_in_ram(plan)
    return {
        phase: tuple(_arrivals(device, phase, in_host, stored) for device in plan.devices)
        for phase in workload.phases
    }


def _kept_in_ram(plan: MemoryPlan) -> frozenset[UnitKey]:
    """Return the moving units that are kept in RAM; the others are read from disk each time.

    Those that are needed most often come first, within each device's share of RAM, after what
    waits there in training.
    """
    chosen: set[UnitKey] = set()
    waiting = (plan.trained_bytes + plan.wave_bytes) // len(plan.devices)
    for device in plan.devices:
        room = device.budget.host_bytes - waiting
        for unit in device.moving:
            if unit.nbytes > room:
                break
            room -= unit.nbytes
            chosen.add(unit.key)
    return frozenset(chosen)


def _arrivals(
    device: DevicePlan,
    phase: Phase,
    in_host: Collection[UnitKey],
    stored: Mapping[UnitKey, int],
) -> Arrivals:
    """Return what must be copied for a phase: what is streamed, and what was evicted before.

    Phases repeat in a cycle: after an answer comes the next picture. A unit is in memory if every
    phase since its last use kept it.
    """
    plans = device.phases
    here = next(index for index, plan in enumerate(plans) if plan.phase is phase)
    units = {u.key: u for u in (*plans[here].resident, *plans[here].streamed)}
    arriving = [
        replace(unit, nbytes=stored.get(unit.key, unit.nbytes))
        for unit in units.values()
        if _arrives(unit, plans, here)
    ]
    return Arrivals(
        ram=tuple(unit for unit in arriving if unit.key in in_host),
        disk=tuple(unit for unit in arriving if unit.key not in in_host),
    )


def _arrives(unit: Unit, plans: Sequence[PhasePlan], here: int) -> bool:
    if unit.part not in plans[here].parts:
        return False
    if plans[here].phase is Phase.DECODE:
        # Once per token; what is copied for the first token stays for the others.
        return unit.key not in plans[here].resident_keys
    for step in range(len(plans)):
        plan = plans[here - step]
        if unit.key not in plan.resident_keys:
            return True
        if step and unit.part in plan.parts:
            return False
    return False


def _work(
    device: DevicePlan,
    phase: Phase,
    arrivals: Arrivals,
    config: ModelConfig,
    workload: Workload,
    stored: Mapping[UnitKey, int],
) -> PhaseWork:
    plan = device.phase(phase)
    held = {unit.key: unit.nbytes for unit in (*plan.resident, *plan.streamed)}
    needed = [key for key in held if key[0] in plan.parts]
    blocks = device.blocks[Part.VISION if phase is Phase.ENCODE else Part.LANGUAGE_EXPERT]
    all_blocks = config.num_hidden_layers
    if phase is Phase.ENCODE:
        all_blocks = config.vision.num_hidden_layers
    share = len(blocks) / all_blocks
    conversations = workload.parallel if phase is Phase.DECODE else 1
    # On a CPU a matrix is read once for all conversations, on a GPU once for each.
    readings = 1 if device.budget.in_ram else conversations
    return PhaseWork(
        flops=_flops(phase, config, workload) * share * conversations,
        read_bytes=sum(stored.get(key, held[key]) for key in needed) * readings
        + round(_cache_read_bytes(phase, config, workload) * share) * conversations,
        ram_bytes=_sum(arrivals.ram),
        disk_bytes=_sum(arrivals.disk),
        pack_bytes=_sum(unit for unit in arrivals.units if held[unit.key] > unit.nbytes),
        blocks=len(blocks) * readings,
        overlaps=plan.depth != 1,
    )


def _sum(units: Iterable[Unit]) -> int:
    return sum(unit.nbytes for unit in units)


def _cached_tokens(config: ModelConfig, workload: Workload) -> int:
    """Return the tokens in the cache while a typical question about a picture is answered."""
    picture = config.vision.image_tokens if workload.with_picture else 0
    return min(workload.context, 1 + picture + QUESTION_TOKENS)


def _flops(phase: Phase, config: ModelConfig, workload: Workload) -> float:
    cached = _cached_tokens(config, workload)
    if phase is Phase.ENCODE:
        return encode_flops(config)
    if phase is Phase.PREFILL_IMAGE:
        tokens = 1 + config.vision.image_tokens
        return decoder_flops(config, tokens=tokens, keys=tokens // 2, scored=0)
    tokens = min(QUESTION_TOKENS, cached) if phase is Phase.PREFILL_TEXT else 1
    return decoder_flops(config, tokens=tokens, keys=cached)


def _cache_read_bytes(phase: Phase, config: ModelConfig, workload: Workload) -> int:
    if phase is Phase.ENCODE:
        return 0
    per_head = workload.kv.row_bytes(config.head_dim, workload.itemsize)
    per_token = 2 * config.num_hidden_layers * config.num_multi_query_heads * per_head
    return per_token * _cached_tokens(config, workload)
