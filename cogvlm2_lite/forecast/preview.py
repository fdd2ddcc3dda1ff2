"""Plans a model that is not loaded, and forecasts its speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from cogvlm2_lite.architectures.architecture import ModelConfig, Part, Released
from cogvlm2_lite.config import parse_config, read_config
from cogvlm2_lite.forecast.machine import Machine
from cogvlm2_lite.forecast.rates import Rates
from cogvlm2_lite.forecast.table import summarize
from cogvlm2_lite.forecast.times import Forecast, forecast
from cogvlm2_lite.kv_kind import KVKind
from cogvlm2_lite.memory.budget import check_context, useful_devices
from cogvlm2_lite.memory.inventory import UnitKey, sizes_of_quantized
from cogvlm2_lite.memory.plan import (
    RESERVE_BYTES,
    MemoryPlan,
    Offload,
    Workload,
    least_bytes,
    picture_bytes,
    plan_memory,
    plan_most_parallel,
)
from cogvlm2_lite.text import Text

_UNLIMITED_BYTES = 1 << 50


class Weigh(Protocol):
    """Returns the bytes in memory of every unit; parameters as in inventory.unit_sizes."""

    def __call__(self, *, itemsize: int, packed: bool, on_gpu: bool) -> Mapping[UnitKey, int]: ...


@dataclass(frozen=True, kw_only=True)
class PlannedModel:
    """The model to plan for: a folder's, or a released one that is not on disk."""

    name: str
    config: ModelConfig
    weigh: Weigh


def released_subject(released: Released, *, lm_head_nf4: bool = False) -> PlannedModel:
    """Return a released model as `quantize` would store it."""
    config = parse_config(released.raw)
    return PlannedModel(
        name=released.title,
        config=config,
        weigh=partial(sizes_of_quantized, config, lm_head_nf4=lm_head_nf4),
    )


def folder_subject(folder: Path, name: str) -> PlannedModel:
    """Return the model of a folder, from its headers. CheckpointError as for Catalog.open."""
    from cogvlm2_lite.memory.inventory import unit_sizes
    from cogvlm2_lite.weights.catalog import Catalog

    config = read_config(folder)
    catalog = Catalog.open(folder, config)
    return PlannedModel(
        name=name,
        config=config,
        weigh=partial(unit_sizes, catalog),
    )


@dataclass(frozen=True, kw_only=True)
class PlanPreview:
    """A plan and its forecast.

    sentence       a summary for the user
    load_s         time to read the weights from disk and pack them, before or during the first
                   answer
    packed_bytes   size of the second copies for the CPU's kernel
    picture_bytes  of one encoded picture; 0 without pictures
    """

    plan: MemoryPlan
    expected: Forecast
    sentence: Text
    load_s: float
    packed_bytes: int
    picture_bytes: int


def least_budget_bytes(subject: PlannedModel, *, itemsize: int, packed: bool, in_ram: bool) -> int:
    """Return the smallest --vram or --ram with which a model runs, with a context of full length.

    itemsize, packed  of the machine, as in Machine
    in_ram            for --ram, without a GPU
    """
    workload = Workload(context=check_context(subject.config, None), itemsize=itemsize)
    sizes = subject.weigh(itemsize=itemsize, packed=packed, on_gpu=not in_ram)
    return least_bytes(subject.config, sizes, workload, in_ram=in_ram) + RESERVE_BYTES


def preview(
    subject: PlannedModel,
    machine: Machine,
    *,
    context: int | None = None,
    with_picture: bool = True,
    offload: Offload = Offload.AUTO,
    kv: KVKind = KVKind.FULL,
    parallel: int = 1,
) -> PlanPreview:
    """Plan a model for a machine. Raises DoesNotFitError as plan_memory does.

    parallel  conversations at once; fewer if memory does not suffice
    """
    config, itemsize = subject.config, machine.itemsize
    workload = Workload(
        context=check_context(config, context),
        with_picture=with_picture,
        itemsize=itemsize,
        kv=kv,
        parallel=parallel,
    )
    weigh = partial(subject.weigh, itemsize=itemsize, on_gpu=not machine.in_ram)
    sizes, stored = weigh(packed=machine.packed), weigh(packed=False)
    budgets = useful_devices(config, sizes, machine.budgets, workload)
    rates = machine.rates[: len(budgets)]
    plan = plan_most_parallel(
        lambda n: plan_memory(
            config, sizes, budgets, replace(workload, parallel=n), offload=offload
        ),
        parallel,
    )
    workload = replace(workload, parallel=plan.parallel)
    expected = forecast(plan, config, rates, workload, stored)
    unlimited = forecast(_unlimited(plan, config, sizes, workload), config, rates, workload, stored)
    return PlanPreview(
        plan=plan,
        expected=expected,
        sentence=summarize(plan, config, expected, unlimited),
        load_s=_load_s(sizes, stored, rates[0]),
        packed_bytes=sum(sizes.values()) - sum(stored.values()),
        picture_bytes=picture_bytes(config, workload),
    )


def _load_s(sizes: Mapping[UnitKey, int], stored: Mapping[UnitKey, int], rates: Rates) -> float:
    """Return the time to read all weights from disk, except the embedding."""
    read = sum(n for (part, _), n in stored.items() if part is not Part.EMBEDDING)
    packed = sum(n for key, n in stored.items() if sizes[key] > n)
    return read / rates.disk_bytes_per_s + packed / rates.pack_bytes_per_s


def _unlimited(
    plan: MemoryPlan, config: ModelConfig, sizes: Mapping[UnitKey, int], workload: Workload
) -> MemoryPlan:
    """Return a plan with the same split over devices and memory for everything."""
    budgets = [replace(device.budget, device_bytes=_UNLIMITED_BYTES) for device in plan.devices]
    shares = [device.blocks for device in plan.devices]
    return plan_memory(config, sizes, budgets, workload, shares=shares)
