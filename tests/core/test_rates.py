"""Expected times: arithmetic that can be checked by hand, and rules that hold for any plan."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cogvlm2_lite.architectures.architecture import ModelConfig, Part, Phase
from cogvlm2_lite.architectures.cogvlm2 import COGVLM2
from cogvlm2_lite.errors import DoesNotFitError, UsageError
from cogvlm2_lite.forecast.machine import Machine, measure_cpu, this_cpu
from cogvlm2_lite.forecast.preview import preview, released_subject
from cogvlm2_lite.forecast.rates import CARDS, Cpu, Rates, gpu_rates, named_card
from cogvlm2_lite.forecast.times import Forecast, PhaseWork, forecast, phase_seconds
from cogvlm2_lite.memory.inventory import sizes_of_quantized
from cogvlm2_lite.memory.plan import DeviceBudget, MemoryPlan, Workload, plan_memory
from cogvlm2_lite.units import GIB, MIB
from tests.helpers.plan_cases import models, workloads
from tests.helpers.shapes import REAL

SIZES = sizes_of_quantized(REAL)
WORK = Workload(context=8192)
ROUND = Rates(
    matmul_flops=100e12,
    memory_bytes_per_s=1e12,
    bus_bytes_per_s=10e9,
    disk_bytes_per_s=1e9,
    source="stated: round numbers",
)
CARD = named_card("4060").rates


def planned(gib: float, *, ram_gib: float = 64, workload: Workload = WORK) -> MemoryPlan:
    budget = DeviceBudget(device="GPU", device_bytes=int(gib * GIB), host_bytes=int(ram_gib * GIB))
    return plan_memory(REAL, SIZES, [budget], workload)


def expected(gib: float, *, ram_gib: float = 64, rates: Rates = ROUND) -> Forecast:
    return forecast(planned(gib, ram_gib=ram_gib), REAL, [rates], WORK)


def test_a_phase_takes_what_its_slowest_part_takes() -> None:
    work = PhaseWork(
        flops=200e12, read_bytes=10**12, ram_bytes=0, disk_bytes=0, pack_bytes=0, blocks=32,
        overlaps=True,
    )  # fmt: skip
    assert phase_seconds(work, ROUND) == 2  # operations
    assert phase_seconds(replace(work, read_bytes=3 * 10**12), ROUND) == 3  # memory
    assert phase_seconds(replace(work, ram_bytes=40 * 10**9), ROUND) == 4  # bus
    assert phase_seconds(replace(work, disk_bytes=5 * 10**9), ROUND) == 5  # disk
    assert phase_seconds(work, replace(ROUND, block_s=0.25)) == 8  # the program itself
    slow_packing = replace(ROUND, pack_bytes_per_s=1e9)
    packing = replace(work, disk_bytes=5 * 10**9, pack_bytes=4 * 10**9)
    assert phase_seconds(packing, slow_packing) == 9


def test_without_a_second_buffer_copying_and_computing_take_turns() -> None:
    work = PhaseWork(
        flops=200e12, read_bytes=0, ram_bytes=30 * 10**9, disk_bytes=0, pack_bytes=0, blocks=32,
        overlaps=False,
    )  # fmt: skip
    assert phase_seconds(work, ROUND) == 5
    assert phase_seconds(replace(work, overlaps=True), ROUND) == 3


def test_the_real_model_without_limits_takes_what_the_specification_counts() -> None:
    found = expected(24)
    # Section 13: 118 TFLOP for a picture, 35 for its prefill, 5.29 GB read per token; lm_head in
    # 16 bits, and NF4 with double quantization, which makes it 4.96 GB.
    assert found.seconds[Phase.ENCODE] == pytest.approx(1.18, rel=0.02)
    assert found.seconds[Phase.PREFILL_IMAGE] == pytest.approx(0.338, rel=0.03)
    assert found.seconds[Phase.DECODE] == pytest.approx(4.96e-3, rel=0.01)
    assert found.tokens_per_s == pytest.approx(201, rel=0.02)
    assert not any(a.units for arrivals in found.arrivals.values() for a in arrivals)


def test_at_eight_gib_vision_weights_come_over_the_bus_and_decoding_waits_for_none() -> None:
    found = expected(7.6)
    (encode,), (image,), (decode,) = (
        found.arrivals[p] for p in (Phase.ENCODE, Phase.PREFILL_IMAGE, Phase.DECODE)
    )
    assert {u.part for u in encode.units} == {Part.VISION, Part.PROJECTOR}
    assert {u.part for u in image.units} == {Part.VISION_EXPERT}
    assert decode.units == ()
    assert found.disk_bytes == 0
    everywhere = expected(24)
    assert found.seconds[Phase.DECODE] == everywhere.seconds[Phase.DECODE]


def test_weights_that_left_between_phases_are_counted_when_they_come_back() -> None:
    # With 10.5 GiB of RAM nothing is streamed while a picture is encoded, but a part of the tower
    # had to make room for the conversation before. (On a GPU all phases have the same room.)
    budget = DeviceBudget(device="cpu", device_bytes=int(10.5 * GIB), in_ram=True)
    plan = plan_memory(REAL, SIZES, [budget], WORK)
    assert not plan.devices[0].phase(Phase.ENCODE).streamed
    (encode,) = forecast(plan, REAL, [ROUND], WORK).arrivals[Phase.ENCODE]
    assert encode.units
    assert {unit.part for unit in encode.units} == {Part.VISION}


def test_a_streamed_token_takes_as_long_as_its_bytes_on_the_bus() -> None:
    plan, found = planned(4), expected(4)
    streamed = plan.streamed_bytes()[Phase.DECODE]
    assert streamed > GIB
    assert found.seconds[Phase.DECODE] == pytest.approx(streamed / 10e9)


def test_what_does_not_wait_in_ram_comes_from_disk() -> None:
    rich, poor = expected(4), expected(4, ram_gib=1)
    assert rich.disk_bytes == 0
    assert poor.disk_bytes > 0
    assert poor.disk_bytes + poor.ram_bytes == rich.ram_bytes
    # What every token needs waits in RAM first.
    (decode,) = poor.arrivals[Phase.DECODE]
    assert {u.part for u in decode.ram} == {Part.LANGUAGE_EXPERT}
    assert poor.seconds[Phase.DECODE] > 3 * rich.seconds[Phase.DECODE]


def test_on_the_cpu_everything_that_is_streamed_comes_from_disk() -> None:
    machine = Machine(
        label="the CPU",
        budgets=(DeviceBudget(device="cpu", in_ram=True, device_bytes=7 * GIB),),
        rates=(Cpu(cores=8, has_bf16=True, has_avx512=True).rates,),
        packed=True,
    )
    found = preview(released_subject(COGVLM2.released), machine).expected
    assert all(not a.ram for arrivals in found.arrivals.values() for a in arrivals)
    assert found.arrivals[Phase.DECODE][0].disk


def test_packed_copies_are_read_once_and_cost_when_they_are_made() -> None:
    cpu = Cpu(cores=8, has_bf16=True, has_avx512=True)
    machine = Machine(
        label="the CPU",
        budgets=(DeviceBudget(device="cpu", in_ram=True, device_bytes=64 * GIB),),
        rates=(cpu.rates,),
    )
    plain = preview(released_subject(COGVLM2.released), machine)
    packed = preview(released_subject(COGVLM2.released), replace(machine, packed=True))
    assert packed.packed_bytes == pytest.approx(3.45 * GIB, rel=0.01)
    assert packed.plan.peak_bytes - plain.plan.peak_bytes == packed.packed_bytes
    assert packed.expected.seconds == plain.expected.seconds
    assert packed.load_s > plain.load_s


def test_streamed_matrices_are_packed_anew_for_every_token() -> None:
    cpu = Cpu(cores=8, has_bf16=True, has_avx512=True)
    machine = Machine(
        label="the CPU",
        budgets=(DeviceBudget(device="cpu", in_ram=True, device_bytes=7 * GIB),),
        rates=(cpu.rates,),
        packed=True,
    )
    found = preview(released_subject(COGVLM2.released), machine)
    (arrivals,) = found.expected.arrivals[Phase.DECODE]
    stored = sum(SIZES[unit.key] for unit in arrivals.disk)
    assert sum(unit.nbytes for unit in arrivals.disk) == stored > 0
    copying = stored / cpu.rates.disk_bytes_per_s + stored / cpu.rates.pack_bytes_per_s
    assert found.expected.seconds[Phase.DECODE] == pytest.approx(copying)


def test_with_a_single_buffer_a_plan_takes_both_times() -> None:
    plan = planned(2.3)
    assert plan.devices[0].phase(Phase.DECODE).depth == 1
    found = forecast(plan, REAL, [ROUND], WORK)
    everything = expected(24)
    streamed = plan.streamed_bytes()[Phase.DECODE]
    both = everything.seconds[Phase.DECODE] + streamed / ROUND.bus_bytes_per_s
    assert found.seconds[Phase.DECODE] == pytest.approx(both)


def test_starting_blocks_takes_time_for_each_of_them() -> None:
    slow = expected(24, rates=replace(ROUND, block_s=1.0))
    assert slow.seconds[Phase.ENCODE] == REAL.vision.num_hidden_layers
    assert slow.seconds[Phase.DECODE] == REAL.num_hidden_layers


@settings(max_examples=60, deadline=None)
@given(
    st.floats(2.0, 14.0),
    st.floats(0.0, 4.0),
    st.floats(0.0, 12.0),
    st.sampled_from([card.name for card in CARDS]),
    st.booleans(),
)
def test_more_memory_is_never_slower(
    gib: float, more: float, ram_gib: float, card: str, with_picture: bool
) -> None:
    rates, work = named_card(card).rates, Workload(context=8192, with_picture=with_picture)
    try:
        tight = planned(gib, ram_gib=ram_gib, workload=work)
    except DoesNotFitError:
        return
    wide = planned(gib + more, ram_gib=ram_gib, workload=work)
    a, b = (forecast(plan, REAL, [rates], work) for plan in (tight, wide))
    for phase in work.phases:
        assert b.seconds[phase] <= a.seconds[phase]
    richer = forecast(planned(gib, ram_gib=ram_gib + more, workload=work), REAL, [rates], work)
    assert all(richer.seconds[p] <= a.seconds[p] for p in work.phases)


@settings(max_examples=150, deadline=None)
@given(models(), st.integers(50 * MIB, 500 * MIB), st.integers(0, 40 * MIB), workloads)
def test_more_memory_is_never_slower_for_any_model(
    config: ModelConfig, budget: int, more: int, workload: Workload
) -> None:
    sizes = sizes_of_quantized(config)
    seconds = []
    for device_bytes in (budget, budget + more):
        budgets = [DeviceBudget(device="cpu", in_ram=True, device_bytes=device_bytes)]
        try:
            plan = plan_memory(config, sizes, budgets, workload)
        except DoesNotFitError:
            assume(False)
        seconds.append(forecast(plan, config, [ROUND], workload).seconds)
    assert all(seconds[1][phase] <= seconds[0][phase] for phase in workload.phases)


@settings(max_examples=40, deadline=None)
@given(st.floats(2.5, 14.0), st.floats(0, 10))
def test_arrivals_are_needed_and_never_resident_throughout(gib: float, ram_gib: float) -> None:
    plan = planned(gib, ram_gib=ram_gib)
    found = forecast(plan, REAL, [CARD], WORK)
    (device,) = plan.devices
    for phase in WORK.phases:
        (arrivals,) = found.arrivals[phase]
        keys = {unit.key for unit in arrivals.units}
        assert len(keys) == len(arrivals.units)
        assert {u.key for u in device.phase(phase).streamed} <= keys
        assert all(unit.part in COGVLM2.phases[phase] for unit in arrivals.units)
        for key in keys:
            assert any(key not in p.resident_keys for p in device.phases)


def test_two_gpus_compute_one_after_the_other() -> None:
    half = [DeviceBudget(device=f"GPU {i}", device_bytes=8 * GIB) for i in (0, 1)]
    plan = plan_memory(REAL, SIZES, half, WORK)
    both = forecast(plan, REAL, [ROUND, ROUND], WORK)
    one = expected(24)
    assert both.seconds[Phase.ENCODE] == pytest.approx(one.seconds[Phase.ENCODE], rel=0.02)
    assert both.seconds[Phase.DECODE] == pytest.approx(one.seconds[Phase.DECODE], rel=0.02)


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("4090", "RTX 4090"),
        ("rtx 4060 ti", "RTX 4060 Ti"),
        ("NVIDIA GeForce RTX 3060", "RTX 3060"),
        ("t4", "Tesla T4"),
    ],
)
def test_cards_are_found_by_what_people_call_them(name: str, card: str) -> None:
    assert named_card(name).name == card


def test_an_unknown_card_is_refused_with_a_way_out() -> None:
    with pytest.raises(UsageError, match="'RTX 4061' are not known") as caught:
        named_card("RTX 4061")
    assert "Did you mean RTX 4060" in caught.value.hint
    assert "--vram" in caught.value.hint
    with pytest.raises(UsageError, match="'' are not known"):
        named_card("")


def test_the_driver_s_name_decides_and_else_the_size() -> None:
    found = gpu_rates("NVIDIA GeForce RTX 4060 Ti", 16 * GIB)
    assert found == named_card("4060 ti").rates
    assert "a card like RTX 4060 8 GB" in gpu_rates("NVIDIA RTX Something", 8 * GIB).source
    assert "a card like RTX 3090 24 GB" in gpu_rates("", int(23.6 * GIB)).source
    assert "a card like H100 80 GB" in gpu_rates("", 500 * GIB).source


def test_typical_cards_of_more_memory_are_not_slower() -> None:
    typical = sorted((c for c in CARDS if c.typical and c.gib < 40), key=lambda card: card.gib)
    assert len(typical) == 7
    assert typical == sorted(typical, key=lambda card: card.memory_gb_per_s)


def test_this_processor_is_described_and_measured() -> None:
    cpu = this_cpu()
    assert cpu.cores >= 1
    assert cpu.rates.source.startswith("stated: ")
    found = measure_cpu(cpu)
    assert found.source.startswith("measured")
    # Within a factor of fifty of what is stated, however busy or odd the computer is.
    for name in ("matmul_flops", "memory_bytes_per_s"):
        assert 1 / 50 < getattr(found, name) / getattr(cpu.rates, name) < 50
    assert found.disk_bytes_per_s == cpu.rates.disk_bytes_per_s
