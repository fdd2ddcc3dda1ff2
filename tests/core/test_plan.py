"""The memory plan is arithmetic: checked by hand for the real model, by rules for any other."""

from __future__ import annotations

import itertools
import re
import time
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cogvlm2_lite.architectures.architecture import ModelConfig, Part, Phase, expected_tensors
from cogvlm2_lite.architectures.cogvlm2 import COGVLM2
from cogvlm2_lite.errors import DoesNotFitError
from cogvlm2_lite.forecast.table import draw_table, plan_as_dict
from cogvlm2_lite.memory.inventory import sizes_of_quantized, spread
from cogvlm2_lite.memory.plan import (
    RESERVE_BYTES,
    DeviceBudget,
    MemoryPlan,
    Offload,
    Workload,
    least_bytes,
    plan_memory,
    plan_most_parallel,
)
from cogvlm2_lite.memory.work import KERNEL_SCRATCH_BYTES
from cogvlm2_lite.units import GIB, MIB, format_bytes, parse_bytes
from tests.helpers.plan_cases import models, workloads
from tests.helpers.shapes import REAL

SIZES = sizes_of_quantized(REAL)


def plan_real(gib: float, *, offload: Offload = Offload.AUTO, context: int = 8192) -> MemoryPlan:
    budget = DeviceBudget(device="gpu", device_bytes=int(gib * GIB))
    return plan_memory(REAL, SIZES, [budget], Workload(context=context), offload=offload)


def test_the_real_model_has_1221_tensors_and_39_006_214_656_bytes() -> None:
    specs = expected_tensors(REAL)
    assert len(specs) == 1221
    assert sum(2 * spec.numel for spec in specs.values()) == 39_006_214_656
    assert REAL.vision.image_tokens == 2306
    assert REAL.kv_bytes_per_token == 128 * 1024


def test_the_quantized_real_model_weighs_what_the_table_says() -> None:
    # Spec, section 11: 11.67 GB with double quantization and lm_head and embeddings in 16 bits.
    assert abs(sum(SIZES.values()) / 1e9 - 11.67) < 0.01


def test_decoding_and_text_touch_no_vision_weights() -> None:
    vision = {Part.VISION, Part.PROJECTOR, Part.VISION_EXPERT}
    assert not COGVLM2.phases[Phase.DECODE] & vision
    assert not COGVLM2.phases[Phase.PREFILL_TEXT] & vision
    assert set().union(*COGVLM2.phases.values()) == set(Part)


def test_sixteen_gib_hold_everything() -> None:
    plan = plan_real(15)
    assert not plan.streams
    assert plan.peak_bytes < 13 * GIB


def test_eight_gib_decode_without_streaming_and_stream_only_vision() -> None:
    (device,) = plan_real(7.5).devices
    assert not device.phase(Phase.DECODE).streamed
    assert not device.phase(Phase.PREFILL_TEXT).streamed
    parts = {unit.part for phase in device.phases for unit in phase.streamed}
    assert parts <= {Part.VISION, Part.VISION_EXPERT, Part.PROJECTOR}


def test_four_gib_stream_some_language_blocks_spread_out() -> None:
    (device,) = plan_real(4).devices
    streamed = [unit.block for unit in device.phase(Phase.DECODE).streamed]
    assert 0 < len(streamed) < 32
    # Resident blocks stand between the streamed ones as far as their number allows.
    ordered = sorted(block for block in streamed if block is not None)
    resident = [block for block in range(32) if block not in ordered]
    gaps = [b - a for a, b in itertools.pairwise(resident)]
    assert not gaps or max(gaps) <= 2 * (32 // len(resident) + 1)


def test_kept_pictures_get_what_the_plan_leaves_of_ram() -> None:
    one = 2307 * 128 * 1024

    def kept(device: str, gib: float, host_gib: float = 0) -> int:
        budget = DeviceBudget(
            device=device,
            device_bytes=int(gib * GIB),
            host_bytes=int(host_gib * GIB),
            in_ram=device == "cpu",
        )
        return plan_memory(REAL, SIZES, [budget], Workload(context=8192)).picture_cache_bytes

    plenty = DeviceBudget(device="cpu", device_bytes=40 * GIB, in_ram=True)
    peak = plan_memory(REAL, SIZES, [plenty], Workload(context=8192)).peak_bytes
    assert kept("cpu", 40) == GIB
    assert kept("cpu", peak / GIB) == 0
    assert kept("cpu", (peak + one) / GIB) == one
    assert kept("cpu", (peak + one - 1) / GIB) == 0  # less than a picture is no room
    # On a GPU they lie in RAM, beside the weights that wait there and the embedding.
    assert kept("cuda:0", 24, 32) == GIB
    assert kept("cuda:0", 24, 1.1) == 0
    assert kept("cuda:0", 4, 8.5) == 0
    assert one < kept("cuda:0", 4, 9.5) < GIB


def test_weights_have_the_same_room_in_all_phases_of_a_gpu() -> None:
    """The slab is one allocation: a phase that needs fewer weights does not make it smaller."""
    for gib in (4, 6, 8, 15):
        (device,) = plan_real(gib).devices
        slabs = {p.weight_bytes + p.spare_bytes for p in device.phases}
        assert slabs == {max(p.weight_bytes for p in device.phases)}
        besides = max(p.cache_bytes + p.scratch_bytes for p in device.phases)
        assert device.peak_bytes == slabs.pop() + besides
    budget = DeviceBudget(device="cpu", device_bytes=6 * GIB, in_ram=True)
    (device,) = plan_memory(REAL, SIZES, [budget], Workload(context=8192)).devices
    assert not any(p.spare_bytes for p in device.phases)


def test_six_gib_decode_without_streaming() -> None:
    budget = DeviceBudget(device="gpu", device_bytes=6 * GIB - RESERVE_BYTES)
    (device,) = plan_memory(REAL, SIZES, [budget], Workload(context=8192)).devices
    assert not device.phase(Phase.DECODE).streamed
    assert not device.phase(Phase.PREFILL_TEXT).streamed


def test_a_text_only_workload_plans_no_vision() -> None:
    budget = DeviceBudget(device="gpu", device_bytes=6 * GIB)
    plan = plan_memory(REAL, SIZES, [budget], Workload(context=4096, with_picture=False))
    (device,) = plan.devices
    assert [p.phase for p in device.phases] == [Phase.PREFILL_TEXT, Phase.DECODE]
    vision = {Part.VISION, Part.PROJECTOR, Part.VISION_EXPERT}
    assert not any(unit.part in vision for p in device.phases for unit in p.resident)
    assert plan.picture_cache_bytes == 0


def test_what_does_not_fit_says_how_much_is_missing_and_what_would_help() -> None:
    with pytest.raises(DoesNotFitError, match=r"more is needed") as caught:
        plan_real(1.9)
    assert "--context" in caught.value.hint
    with pytest.raises(DoesNotFitError) as caught:
        plan_real(0.5)
    assert "allow more memory" in caught.value.hint


def test_the_missing_bytes_are_all_that_is_missing() -> None:
    def plan_bytes(count: int) -> MemoryPlan:
        return plan_memory(
            REAL, SIZES, [DeviceBudget(device="gpu", device_bytes=count)], Workload(context=8192)
        )

    with pytest.raises(DoesNotFitError) as caught:
        plan_bytes(GIB)
    named = re.search(r"needs at least (\S+ \S+) on gpu", caught.value.message)
    assert named is not None
    plan_bytes(int(parse_bytes(named.group(1)) * 1.005))


@pytest.mark.parametrize("with_picture", [True, False])
def test_the_least_memory_is_exactly_what_a_plan_needs(with_picture: bool) -> None:
    workload = Workload(context=8192, with_picture=with_picture)
    least = least_bytes(REAL, SIZES, workload, in_ram=False)
    for budget_bytes in (least, least - 1):
        budget = DeviceBudget(device="gpu", device_bytes=budget_bytes)
        if budget_bytes == least:
            assert plan_memory(REAL, SIZES, [budget], workload).peak_bytes == least
        else:
            with pytest.raises(DoesNotFitError):
                plan_memory(REAL, SIZES, [budget], workload)


def test_without_a_gpu_the_memory_is_called_ram() -> None:
    budget = DeviceBudget(device="cpu", device_bytes=GIB, in_ram=True)
    with pytest.raises(DoesNotFitError, match=r"needs at least \S+ GiB of RAM, where"):
        plan_memory(REAL, SIZES, [budget], Workload(context=8192))
    plan = plan_memory(REAL, SIZES, [replace(budget, device_bytes=9 * GIB)], Workload(context=8192))
    assert draw_table(plan).startswith("RAM: ")


def test_the_shorter_context_that_is_offered_fits() -> None:
    with pytest.raises(DoesNotFitError) as caught:
        plan_real(1.6)
    shorter = int(caught.value.hint.split()[-1].rstrip("."))
    assert plan_real(1.6, context=shorter).peak_bytes <= 1.6 * GIB


def test_forbidden_offloading_names_the_bytes_that_hold_everything() -> None:
    def never(count: int) -> MemoryPlan:
        budget = DeviceBudget(device="gpu", device_bytes=count)
        return plan_memory(REAL, SIZES, [budget], Workload(context=8192), offload=Offload.NEVER)

    whole = sum(n for (part, _), n in SIZES.items() if part is not Part.EMBEDDING)
    low, high = GIB, 20 * GIB
    while high - low > 1:
        middle = (low + high) // 2
        try:
            never(middle)
            high = middle
        except DoesNotFitError:
            low = middle
    assert whole < high < whole + 2 * GIB
    # Nothing leaves between phases either.
    (device,) = never(high).devices
    assert len({phase.resident_keys for phase in device.phases}) == 1
    with pytest.raises(DoesNotFitError) as caught:
        never(low)
    assert f"needs {format_bytes(high)} on gpu" in caught.value.message


def test_forbidden_offloading_refuses_instead_of_streaming() -> None:
    assert not plan_real(15, offload=Offload.NEVER).streams
    with pytest.raises(DoesNotFitError, match="--offload is never") as caught:
        plan_real(8, offload=Offload.NEVER)
    assert "--offload" in caught.value.hint


def test_two_devices_share_the_blocks() -> None:
    budgets = [DeviceBudget(device=f"gpu:{i}", device_bytes=n * GIB) for i, n in enumerate((6, 12))]
    plan = plan_memory(REAL, SIZES, budgets, Workload(context=8192))
    first, second = (d.blocks[Part.LANGUAGE_EXPERT] for d in plan.devices)
    assert (first.start, first.stop, second.stop) == (0, second.start, 32)
    assert len(second) > 1.8 * len(first)
    held = [{u.key for p in d.phases for u in (*p.resident, *p.streamed)} for d in plan.devices]
    assert not held[0] & held[1]
    everything = {key for key in SIZES if key[0] is not Part.EMBEDDING}
    assert held[0] | held[1] == everything


def test_the_plan_of_the_real_model_takes_no_time() -> None:
    # Not a benchmark: a plan that took a second would be another algorithm.
    began = time.process_time()
    for gib in range(3, 43):
        plan_real(gib)
    assert time.process_time() - began < 4


def test_a_plan_is_drawn_and_written() -> None:
    plan = plan_real(6)
    table = draw_table(plan)
    assert "streamed: vision expert" in table
    assert "6.00 GiB" in table
    written = plan_as_dict(plan)["devices"][0]
    assert written["peak_bytes"] <= 6 * GIB
    assert [p["phase"] for p in written["phases"]] == [
        phase.value for phase in Workload(context=1).phases
    ]


def plan_parallel(gib: float, wanted: int, offload: Offload = Offload.AUTO) -> MemoryPlan:
    budget = DeviceBudget(device="gpu", device_bytes=int(gib * GIB))
    return plan_most_parallel(
        lambda n: plan_memory(
            REAL, SIZES, [budget], Workload(context=8192, parallel=n), offload=offload
        ),
        wanted,
    )


def test_caches_stay_on_a_gpu_if_nothing_else_has_to_leave() -> None:
    """CUDA graphs contain their addresses. Without room for it, one is freed for a new picture."""
    for gib, caches in ((6, 0), (10, 0), (24, 1)):
        plan = plan_real(gib)
        (device,) = plan.devices
        assert device.phase(Phase.ENCODE).cache_bytes == caches * GIB
        assert device.phase(Phase.DECODE).cache_bytes == GIB
        assert plan.caches_stay == bool(caches)
        assert plan.peak_bytes <= gib * GIB
    in_ram = DeviceBudget(device="cpu", device_bytes=24 * GIB, in_ram=True)
    assert not plan_memory(REAL, SIZES, [in_ram], Workload(context=8192)).caches_stay


def test_each_conversation_has_a_cache_and_only_its_own_is_empty_for_a_new_picture() -> None:
    (device,) = plan_parallel(14, 4).devices
    assert device.phase(Phase.ENCODE).cache_bytes == 3 * GIB
    for phase in (Phase.PREFILL_IMAGE, Phase.PREFILL_TEXT, Phase.DECODE):
        assert device.phase(phase).cache_bytes == 4 * GIB
    (alone,) = plan_parallel(24, 1).devices
    more = device.phase(Phase.DECODE).scratch_bytes - alone.phase(Phase.DECODE).scratch_bytes
    # A picture's features beside the stream of its prompt, which may wait half read.
    assert more == 2 * 2307 * 4096 * 2
    # The logits of 32 rows in bfloat16 and float32, and their way through an MLP: for drafts, or
    # for as many conversations. More conversations need more.
    (many,) = plan_parallel(200, 40).devices
    more = many.phase(Phase.DECODE).scratch_bytes - device.phase(Phase.DECODE).scratch_bytes
    assert more == 8 * (8 * 128256 + 2 * (2 * 14336 + 3 * 4096))
    rows = alone.phase(Phase.DECODE).scratch_bytes - KERNEL_SCRATCH_BYTES
    assert rows == 32 * (8 * 128256 + 2 * (2 * 14336 + 3 * 4096))


def test_as_many_conversations_as_fit_are_planned_and_fewer_are_told() -> None:
    plan = plan_parallel(6, 8)
    assert plan.parallel == 4
    assert plan.remark.startswith("Memory suffices for 4 conversations at once, not for 8: each")
    assert "1.00 GiB" in plan.remark
    with pytest.raises(DoesNotFitError):
        plan_memory(
            REAL,
            SIZES,
            [DeviceBudget(device="gpu", device_bytes=6 * GIB)],
            Workload(context=8192, parallel=5),
        )
    assert plan_parallel(6, 4).remark == ""
    assert "for one conversation at once" in plan_parallel(2.8, 2).remark
    with pytest.raises(DoesNotFitError, match="more is needed"):
        plan_parallel(1, 3)


def test_where_offloading_is_forbidden_only_as_many_are_planned_as_leave_all_weights_there() -> (
    None
):
    plan = plan_parallel(14, 4, Offload.NEVER)
    assert 1 < plan.parallel < 4
    assert not plan.streams


def test_a_plan_for_several_conversations_says_so() -> None:
    plan = plan_parallel(6, 8)
    assert "4 conversations of 8192 tokens" in draw_table(plan)
    assert plan_as_dict(plan)["parallel"] == 4
    assert plan_as_dict(plan)["remark"] == plan.remark


def test_spreading_visits_a_range_evenly() -> None:
    order = sorted(range(32), key=spread)
    for length in (2, 4, 8, 16):
        chosen = sorted(order[:length])
        assert {b - a for a, b in itertools.pairwise(chosen)} == {32 // length}


def attempt(
    config: ModelConfig, budgets: list[int], workload: Workload, offload: Offload = Offload.AUTO
) -> MemoryPlan | None:
    named = [DeviceBudget(device=f"gpu:{i}", device_bytes=n) for i, n in enumerate(budgets)]
    try:
        return plan_memory(config, sizes_of_quantized(config), named, workload, offload=offload)
    except DoesNotFitError:
        return None


some_bytes = st.integers(50 * MIB, 500 * MIB)


@settings(max_examples=400, deadline=None)
@given(models(), st.lists(some_bytes, min_size=1, max_size=3), workloads)
def test_no_phase_ever_passes_its_budget(
    config: ModelConfig, budgets: list[int], workload: Workload
) -> None:
    plan = attempt(config, budgets, workload)
    assume(plan is not None)
    assert plan is not None
    for device in plan.devices:
        for phase in device.phases:
            assert phase.peak_bytes <= device.budget.device_bytes
            needed = {u.key for u in phase.streamed}
            assert not needed & phase.resident_keys
            assert all(u.part in phase.parts for u in phase.streamed)
            assert (phase.depth == 0) == (not phase.streamed)
    for phase_name in workload.phases:
        there = {
            key
            for device in plan.devices
            for unit in (
                *device.phase(phase_name).resident,
                *device.phase(phase_name).streamed,
            )
            for key in [unit.key]
        }
        wanted = {k for k in sizes_of_quantized(config) if k[0] in COGVLM2.phases[phase_name]}
        assert wanted - {(Part.EMBEDDING, None)} <= there


@settings(max_examples=400, deadline=None)
@given(models(), some_bytes, st.integers(0, 40 * MIB), workloads)
def test_more_budget_never_means_less_resident_or_more_streamed(
    config: ModelConfig, budget: int, more: int, workload: Workload
) -> None:
    tight = attempt(config, [budget], workload)
    assume(tight is not None)
    wide = attempt(config, [budget + more], workload)
    assert tight is not None
    assert wide is not None
    for phase in workload.phases:
        a, b = (plan.devices[0].phase(phase) for plan in (tight, wide))
        assert a.resident_keys <= b.resident_keys
        assert b.streamed_bytes <= a.streamed_bytes
        assert not b.streamed or b.depth >= a.depth


@settings(max_examples=200, deadline=None)
@given(models(), some_bytes, workloads)
def test_one_conversation_more_never_means_more_resident(
    config: ModelConfig, budget: int, workload: Workload
) -> None:
    more = attempt(config, [budget], replace(workload, parallel=workload.parallel + 1))
    assume(more is not None)
    fewer = attempt(config, [budget], workload)
    assert more is not None
    assert fewer is not None
    for phase in workload.phases:
        a, b = (plan.devices[0].phase(phase) for plan in (more, fewer))
        assert a.resident_keys <= b.resident_keys
        assert a.streamed_bytes >= b.streamed_bytes


@settings(max_examples=100, deadline=None)
@given(models(), workloads)
def test_a_plan_exists_down_to_the_smallest_working_set(
    config: ModelConfig, workload: Workload
) -> None:
    low, high = 0, 1 << 32
    assert attempt(config, [high], workload) is not None
    while high - low > 1:
        middle = (low + high) // 2
        if attempt(config, [middle], workload) is None:
            low = middle
        else:
            high = middle
    smallest = attempt(config, [high], workload)
    assert smallest is not None
    phases = smallest.devices[0].phases
    assert max(p.peak_bytes for p in phases) == high
    # The phase whose weights decide the size of the slab.
    dearest = max(phases, key=lambda p: p.weight_bytes)
    assert dearest.spare_bytes == 0
    assert dearest.depth <= 1
    assert {unit.part for unit in dearest.resident} <= {Part.NORMS}


@settings(max_examples=200, deadline=None)
@given(models(), st.integers(1 * MIB, 60 * MIB), workloads)
def test_a_refused_budget_names_bytes_that_would_do(
    config: ModelConfig, budget: int, workload: Workload
) -> None:
    named = [DeviceBudget(device="gpu", device_bytes=budget)]
    assume(attempt(config, [budget], workload) is None)
    with pytest.raises(DoesNotFitError, match="more is needed") as caught:
        plan_memory(config, sizes_of_quantized(config), named, workload)
    assert caught.value.hint


def test_what_leaves_between_phases_is_counted_too() -> None:
    assert plan_real(15).reloaded_bytes() == 0
    plans = [
        plan_memory(
            REAL,
            SIZES,
            [DeviceBudget(device="cpu", device_bytes=int(gib / 100 * GIB), in_ram=True)],
            Workload(context=8192),
        )
        for gib in range(1000, 1160, 5)
    ]
    quiet = [plan for plan in plans if not plan.streams and plan.reloaded_bytes()]
    # Nothing is streamed there, but part of the vision tower makes room for the cache.
    assert quiet
    for plan in quiet:
        (device,) = plan.devices
        absent = {u.key for u in device.phases[0].resident} - device.phases[1].resident_keys
        assert {key[0] for key in absent} <= {Part.VISION, Part.PROJECTOR}
