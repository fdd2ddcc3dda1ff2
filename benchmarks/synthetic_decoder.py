"""A decoder with the real shapes and random NF4 weights in memory, for benchmarks on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch

from cogvlm2_lite.bench.synthetic import NoiseReader, released_config, synthetic_catalog
from cogvlm2_lite.engine.runtime import Runtime
from cogvlm2_lite.memory.inventory import unit_sizes
from cogvlm2_lite.memory.plan import DeviceBudget, MemoryPlan, Workload, plan_memory
from cogvlm2_lite.model.rotary import RopeMode
from cogvlm2_lite.weights.kernels.choice import choose_kernels
from cogvlm2_lite.weights.loader import WeightLoader

CPU, BF16 = torch.device("cpu"), torch.bfloat16


def synthetic_decoder(
    layers: int,
    workload: Workload,
    *,
    nbytes: int,
    kernels: str = "auto",
    dtype: torch.dtype = BF16,
) -> tuple[Runtime, Callable[[int], MemoryPlan]]:
    """Return a runtime for so many decoder layers and lm_head, and a planner for other budgets.

    workload  without pictures
    nbytes    budget of the runtime's plan
    kernels   as choose_kernels takes it
    Every matrix has its own memory, like the pages of a file in the system's file cache.
    """
    config = released_config(1, layers)
    catalog = synthetic_catalog(config, lm_head_nf4=True)
    loader = WeightLoader(
        catalog,
        device=CPU,
        dtype=dtype,
        kernels=choose_kernels(CPU, dtype, kernels),
        reader=NoiseReader(keep=True),
    )
    sizes = unit_sizes(catalog, itemsize=dtype.itemsize, packed=loader.packs)

    def plan(nbytes: int) -> MemoryPlan:
        return plan_memory(
            config, sizes, [DeviceBudget(device="cpu", in_ram=True, device_bytes=nbytes)], workload
        )

    runtime = Runtime(
        config, [loader], plan(nbytes), devices=[CPU], dtype=dtype, rope=RopeMode.REFERENCE
    )
    return runtime, plan
