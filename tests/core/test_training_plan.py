"""The memory plan of a training run: the device holds little, and what waits in RAM is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cogvlm2_lite.architectures.architecture import ModelConfig, Part, Phase
from cogvlm2_lite.errors import DoesNotFitError
from cogvlm2_lite.finetune.expect import TalkSize, training_of
from cogvlm2_lite.finetune.settings import TrainingSettings
from cogvlm2_lite.memory.arena import Arena
from cogvlm2_lite.memory.inventory import UnitKey, sizes_of_quantized
from cogvlm2_lite.memory.plan import (
    DeviceBudget,
    MemoryPlan,
    Offload,
    Workload,
    least_bytes,
    plan_memory,
)
from cogvlm2_lite.memory.residency import Residency, _following
from cogvlm2_lite.memory.training import Training, picture_bytes, waiting_bytes
from cogvlm2_lite.units import GIB, MIB
from cogvlm2_lite.weights.slots import Vector, WeightSlot
from tests.helpers.plan_cases import models
from tests.helpers.shapes import REAL

SIZES = sizes_of_quantized(REAL)


def real(
    preset: str = "words", *, tokens: int = 100, rank: int = 16, bos: bool = False
) -> Training:
    chosen = TrainingSettings(preset=preset, rank=rank, bos=bos)
    talks = [TalkSize(ends=(tokens,), labels=30)] * 20
    return training_of(REAL, chosen, talks, pictures=20)


def planned(training: Training, gib: float, *, host: float = 0, in_ram: bool = False) -> MemoryPlan:
    budget = DeviceBudget(
        device="cpu" if in_ram else "cuda:0",
        device_bytes=int(gib * GIB),
        host_bytes=int(host * GIB),
        in_ram=in_ram,
    )
    workload = Workload.of_training(training, itemsize=2)
    return plan_memory(REAL, SIZES, [budget], workload)


def test_the_phases_of_a_run_follow_from_what_is_trained() -> None:
    assert real().phases == (Phase.ENCODE, Phase.PREFILL_IMAGE, Phase.LEARN)
    for training in (real("both"), real("demo"), real("tower"), real(bos=True)):
        assert training.phases == (Phase.ENCODE, Phase.LEARN)
    text = [TalkSize(ends=(40,), labels=9, has_picture=False)]
    assert training_of(REAL, TrainingSettings(), text, pictures=0).phases == (Phase.LEARN,)


@pytest.mark.parametrize(
    ("training", "unused"),
    [
        (real(), {Part.VISION_EXPERT, Part.VISION, Part.PROJECTOR}),
        (real(bos=True), {Part.VISION, Part.PROJECTOR}),
        (real("both"), {Part.VISION, Part.PROJECTOR}),
        (real("tower"), set()),
    ],
)
def test_learning_loads_only_what_its_preset_needs(training: Training, unused: set[Part]) -> None:
    (device,) = planned(training, 40, host=40).devices
    assert device.phase(Phase.LEARN).parts == set(Part) - unused
    assert not device.streams


def test_the_numbers_of_the_real_model_are_those_of_its_matrices() -> None:
    assert real().numbers == 2_359_296 * 16
    assert real("both", rank=64).numbers == 4_718_592 * 64
    assert real("tower", rank=8).numbers == 7_618_304 * 8
    assert real("demo").numbers == 327_680 * 16
    assert real().block_numbers == 2_359_296 * 16 // 32
    assert real("both").block_numbers == 2 * real().block_numbers
    assert real().matrix_numbers == 16 * 14_336


def test_eight_gib_train_without_streaming_as_one_card_should() -> None:
    (device,) = planned(real(rank=64), 7.1, host=16).devices
    assert not device.phase(Phase.LEARN).streamed
    (device,) = planned(real("both"), 11.1, host=32).devices
    assert not device.phase(Phase.LEARN).streamed


def test_trained_numbers_and_a_wave_wait_in_ram_and_not_on_the_card() -> None:
    one, two = (planned(real(rank=rank), 23, host=32) for rank in (16, 64))
    assert two.trained_bytes == 4 * one.trained_bytes == 16 * 2_359_296 * 64
    assert two.peak_bytes - one.peak_bytes < 64 * MIB
    training = real()
    assert one.wave_bytes == waiting_bytes(REAL, training, 2, tokens=1600, pictures=16)
    # 20 pictures: features, 18 MiB, and keys and values of bos and the picture, 288 MiB each.
    assert one.picture_cache_bytes == 20 * picture_bytes(REAL, training, 2)
    assert picture_bytes(REAL, training, 2) == 2306 * 4096 * 2 + 2307 * 128 * 1024


def test_little_ram_means_smaller_waves_and_too_little_says_so() -> None:
    training = real("both", tokens=2000)
    small, large = (planned(training, 15, host=host) for host in (4, 32))
    one = waiting_bytes(REAL, training, 2, tokens=training.tokens, pictures=1)
    assert one <= small.wave_bytes < large.wave_bytes
    with pytest.raises(DoesNotFitError, match="Training needs at least") as caught:
        planned(training, 15, host=1)
    assert "--rank" in caught.value.hint


def test_in_ram_everything_adds_up() -> None:
    training = real()
    plan = planned(training, 7.5, in_ram=True)
    (device,) = plan.devices
    learn = device.phase(Phase.LEARN)
    assert not learn.streamed  # a smaller wave is better than weights from the disk
    assert learn.cache_bytes == plan.trained_bytes + plan.wave_bytes
    assert device.peak_bytes + plan.picture_cache_bytes <= 7.5 * GIB
    wide = planned(training, 40, in_ram=True)
    assert wide.wave_bytes == waiting_bytes(REAL, training, 2, tokens=1600, pictures=16)
    with pytest.raises(DoesNotFitError, match="more is needed") as caught:
        planned(training, 1, in_ram=True)
    assert "--max-tokens" in caught.value.hint


def test_a_long_conversation_is_split_and_short_ones_share_a_pack() -> None:
    assert TalkSize(ends=(100, 100), labels=1).rows(2307) == [2507]
    assert TalkSize(ends=(1000, 1000, 100), labels=1).rows(2307) == [3307, 3407]
    assert TalkSize(ends=(4000, 100), labels=1).rows(0) == [4000, 100]
    assert TalkSize(ends=(5000,), labels=1).rows(0) == [5000]
    assert real(tokens=100).tokens == 1024
    assert real(tokens=10).tokens == 160
    assert real("both", tokens=100).tokens == 2407


def test_a_forbidden_offload_is_refused_in_training_too() -> None:
    budget = DeviceBudget(device="cuda:0", device_bytes=4 * GIB, host_bytes=32 * GIB)
    workload = Workload.of_training(real(), itemsize=2)
    with pytest.raises(DoesNotFitError, match="--offload is never"):
        plan_memory(REAL, SIZES, [budget], workload, offload=Offload.NEVER)


def test_after_the_logits_the_last_block_comes_again_and_then_the_others_backward() -> None:
    (device,) = planned(real("tower"), 3, host=40).devices
    plans = {phase.phase: [phase] for phase in device.phases}
    forward, backward = (_following(plans, Phase.LEARN, back) for back in (False, True))

    def block(n: int) -> set[UnitKey]:
        return {(Part.LANGUAGE_EXPERT, n), (Part.VISION_EXPERT, n)}

    assert set(forward[Part.LANGUAGE_EXPERT, 0]) == block(1)
    assert set(forward[Part.LM_HEAD, None]) == block(31)
    assert set(backward[Part.LANGUAGE_EXPERT, 31]) == block(30)
    assert backward[Part.LANGUAGE_EXPERT, 0] == ((Part.PROJECTOR, None),)
    assert backward[Part.PROJECTOR, None] == ((Part.VISION, 62),)
    assert backward[Part.VISION, None] == ()
    encode = _following(plans, Phase.ENCODE, False)
    assert (Part.LANGUAGE_EXPERT, 0) in encode[Part.PROJECTOR, None]


class _Piece:
    """A piece of the model with one slot for each of its units."""

    def __init__(self, keys: Sequence[UnitKey]) -> None:
        self._slots = [Vector(f"{part.value} {block}", (1,)) for part, block in keys]

    def slots(self) -> list[Vector]:
        return self._slots


class _CountingLoader:
    """Fills slots with nothing, and counts how often each is filled."""

    uses_slab = False

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes, self.fills = sizes, Counter[str]()

    def fill_unit(self, slots: Sequence[WeightSlot], *place: object) -> int:
        return sum(map(self.fill, slots))

    def reserve(self, nbytes: int) -> None:
        pass

    def fill(self, slot: WeightSlot) -> int:
        self.fills[slot.name] += 1
        return self._sizes[slot.name]

    def read_ahead(self, slots: Sequence[WeightSlot]) -> None:
        """Do nothing."""

    def clear(self, slots: Sequence[WeightSlot]) -> None:
        """Do nothing."""


@pytest.mark.parametrize("gib", [1.4, 2.0, 3.0])
def test_a_step_loads_a_streamed_block_twice_and_the_last_one_once(gib: float) -> None:
    plan = planned(real(), gib, host=40)
    learn = plan.devices[0].phase(Phase.LEARN)
    keys = {f"{part.value} {block}": (part, block) for part, block in SIZES}
    loader = _CountingLoader({name: SIZES[key] for name, key in keys.items()})
    blocks = [_Piece([(Part.NORMS, n), (Part.LANGUAGE_EXPERT, n)]) for n in range(32)]
    head = _Piece([(Part.NORMS, None), (Part.LM_HEAD, None)])
    arena = Arena()
    residency = Residency([loader], keys, [*blocks, head], plan, [arena])
    for piece in blocks[:3]:  # a step that failed: what was loaded ahead must not stay
        with residency.at(Phase.LEARN, piece):
            pass
    loader.fills.clear()
    for piece in [*blocks, head]:
        with residency.at(Phase.LEARN, piece):
            pass
    for piece in reversed(blocks):
        with residency.at(Phase.LEARN, piece, backward=True):
            pass
    assert arena.peak_bytes <= gib * GIB
    streamed = {unit.key for unit in learn.streamed}
    assert streamed
    for n in range(4, 32):  # those before were loaded for the step that failed
        stays = (Part.LANGUAGE_EXPERT, n) not in streamed or (n == 31 and learn.depth == 2)
        assert loader.fills[f"{Part.LANGUAGE_EXPERT.value} {n}"] == (1 if stays else 2), n


@st.composite
def runs(draw: st.DrawFn, config: ModelConfig) -> Workload:
    chosen = TrainingSettings(
        preset=draw(st.sampled_from(["words", "both", "demo", "tower"])),
        rank=draw(st.sampled_from([1, 8, 64])),
        step=draw(st.integers(1, 20)),
        bos=draw(st.booleans()),
    )
    talk = st.builds(
        TalkSize,
        ends=st.lists(st.integers(2, 3000), min_size=1, max_size=4).map(tuple),
        labels=st.just(1),
        has_picture=st.booleans(),
    )
    talks = draw(st.lists(talk, min_size=1, max_size=6)) * draw(st.integers(1, 9))
    pictures = sum(talk.has_picture for talk in talks)
    training = training_of(config, chosen, talks, pictures=pictures)
    return Workload.of_training(training, itemsize=draw(st.sampled_from([2, 4])))


def attempt(
    config: ModelConfig, workload: Workload, nbytes: int, in_ram: bool
) -> MemoryPlan | None:
    budget = DeviceBudget(
        device="d", device_bytes=nbytes, host_bytes=0 if in_ram else nbytes, in_ram=in_ram
    )
    try:
        return plan_memory(config, sizes_of_quantized(config), [budget], workload)
    except DoesNotFitError:
        return None


@settings(max_examples=40, deadline=None)
@given(st.data(), models(), st.integers(40, 1500), st.integers(0, 90), st.booleans())
def test_more_memory_never_means_more_streaming_or_fewer_bytes_for_a_wave_on_a_card(
    data: st.DataObject, config: ModelConfig, mib: int, more: int, in_ram: bool
) -> None:
    workload = data.draw(runs(config))
    training = workload.training
    tight = attempt(config, workload, mib * MIB, in_ram)
    assume(tight is not None)
    wide = attempt(config, workload, (mib + more) * MIB, in_ram)
    assert tight is not None
    assert wide is not None
    assert training is not None
    for phase in workload.phases:
        a, b = (plan.devices[0].phase(phase) for plan in (tight, wide))
        assert a.resident_keys <= b.resident_keys
        assert b.streamed_bytes <= a.streamed_bytes
        assert a.peak_bytes <= mib * MIB
        assert {unit.part for unit in a.streamed} <= workload.parts(phase, config)
    one = waiting_bytes(
        config,
        training,
        workload.itemsize,
        tokens=training.tokens,
        pictures=min(1, training.pictures),
    )
    for plan in (tight, wide):
        assert plan.wave_bytes >= one
        learn = plan.devices[0].phase(Phase.LEARN)
        held = learn.cache_bytes
        assert held == (plan.wave_bytes + plan.trained_bytes if in_ram else 0)
    if not in_ram:
        assert wide.wave_bytes >= tight.wave_bytes


@settings(max_examples=40, deadline=None)
@given(st.data(), models())
def test_the_least_memory_of_a_card_is_exactly_what_a_plan_needs(
    data: st.DataObject, config: ModelConfig
) -> None:
    workload = data.draw(runs(config))
    sizes = sizes_of_quantized(config)
    least = least_bytes(config, sizes, workload, in_ram=False)
    budget = DeviceBudget(device="d", device_bytes=least, host_bytes=1 << 50)
    assert plan_memory(config, sizes, [budget], workload).peak_bytes == least
    with pytest.raises(DoesNotFitError):
        plan_memory(config, sizes, [replace(budget, device_bytes=least - 1)], workload)
