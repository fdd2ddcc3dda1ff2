"""The layout of a GPU's weights: no two units that are in memory together share a byte."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cogvlm2_lite.architectures.architecture import ModelConfig, Phase
from cogvlm2_lite.backends.device import pinned_bytes
from cogvlm2_lite.errors import DoesNotFitError
from cogvlm2_lite.memory.inventory import UnitKey, sizes_of_quantized, step_of
from cogvlm2_lite.memory.plan import (
    RESERVE_BYTES,
    DeviceBudget,
    DevicePlan,
    Workload,
    least_bytes,
    plan_memory,
)
from cogvlm2_lite.memory.slab import Slab, lay_out
from cogvlm2_lite.units import GIB, MIB
from tests.helpers.plan_cases import models, workloads
from tests.helpers.shapes import REAL


def planned(config: ModelConfig, budget: int, workload: Workload) -> DevicePlan | None:
    devices = [DeviceBudget(device="cuda:0", device_bytes=budget)]
    try:
        (device,) = plan_memory(config, sizes_of_quantized(config), devices, workload).devices
    except DoesNotFitError:
        return None
    return device


def real(gib: float) -> DevicePlan:
    device = planned(REAL, int(gib * GIB) - RESERVE_BYTES, Workload(context=8192))
    assert device is not None
    return device


def assert_separate(ranges: list[tuple[int, int]], nbytes: int) -> None:
    ranges.sort()
    assert all(0 <= begin <= end <= nbytes for begin, end in ranges)
    for (_, end), (begin, _) in pairwise(ranges):
        assert end <= begin


@settings(max_examples=200, deadline=None)
@given(models(), st.data(), workloads)
def test_no_two_units_in_memory_share_a_byte(
    config: ModelConfig, data: st.DataObject, workload: Workload
) -> None:
    sizes = sizes_of_quantized(config)
    least = least_bytes(config, sizes, workload, in_ram=False)
    device = planned(config, least + data.draw(st.integers(0, sum(sizes.values()))), workload)
    assume(device is not None)
    assert device is not None
    layout = lay_out(device)
    assert layout.nbytes == device.phases[0].weight_bytes + device.phases[0].spare_bytes
    homes: dict[UnitKey, int] = {}
    for plan in device.phases:
        slab = Slab(layout)
        slab.enter(plan.phase)
        kept = [(slab.take(unit.key), unit) for unit in plan.resident]
        for begin, unit in kept:
            assert homes.setdefault(unit.key, begin) == begin  # the same in all phases
        # Two steps at once, as the walk does: the one that computes and the one behind it.
        steps = sorted({step_of(unit) for unit in plan.streamed})
        for first in range(len(steps)):
            together = steps[first : first + plan.depth]
            units = [unit for unit in plan.streamed if step_of(unit) in together]
            places = kept + [(slab.take(unit.key), unit) for unit in units]
            assert_separate([(b, b + unit.nbytes) for b, unit in places], layout.nbytes)
            assert slab.streamed == {unit.key for unit in units}
            for unit in units:
                slab.release(unit.key)


@pytest.mark.parametrize("gib", [4, 6, 8, 24])
def test_the_weights_of_decoding_have_one_place_in_the_real_model(gib: float) -> None:
    device = real(gib)
    layout = lay_out(device)
    homes = layout.phases[Phase.DECODE].homes
    for phase in layout.phases.values():
        assert all(homes.get(key, begin) == begin for key, begin in phase.homes.items())
    assert layout == lay_out(real(gib))
    assert layout != lay_out(real(gib - 0.5)) or gib == 24


def test_a_buffer_is_free_again_when_its_last_unit_is_released() -> None:
    plan = real(4).phase(Phase.PREFILL_IMAGE)
    slab = Slab(lay_out(real(4)))
    slab.enter(plan.phase)
    steps = [
        [unit.key for unit in plan.streamed if step_of(unit) == step]
        for step in sorted({step_of(unit) for unit in plan.streamed})
    ]
    pairs = [step for step in steps if len(step) == 2][:3]
    first = [slab.take(key) for key in pairs[0]]
    second = [slab.take(key) for key in pairs[1]]
    slab.release(pairs[0][0])
    with pytest.raises(AssertionError, match="every stream buffer is in use"):
        slab.take(pairs[2][0])
    slab.release(pairs[0][1])
    assert [slab.take(key) for key in pairs[2]] == first
    assert [slab.take(key) for key in pairs[1]] == second


def test_at_most_half_of_the_ram_for_weights_is_pinned() -> None:
    def pinned(host_gib: float) -> tuple[int, int]:
        budget = DeviceBudget(
            device="cuda:0",
            device_bytes=4 * GIB - RESERVE_BYTES,
            host_bytes=int(host_gib * GIB),
        )
        sizes = sizes_of_quantized(REAL, on_gpu=True)
        (device,) = plan_memory(REAL, sizes, [budget], Workload(context=8192)).devices
        streamed = device.phase(Phase.DECODE).streamed
        assert set(device.pinned) <= set(streamed)
        return sum(pinned_bytes(unit.nbytes) for unit in device.pinned), len(streamed)

    taken, streamed = pinned(32)
    assert taken >= streamed * 100 * MIB
    assert 0 < pinned(2)[0] <= GIB < taken
    assert pinned(0.1)[0] == 0
    assert pinned_bytes(107 * MIB) == 112 * MIB
    assert real(8).pinned == ()
