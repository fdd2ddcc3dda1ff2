"""What to expect of a training run: bytes, operations and seconds, before anything is loaded.

No torch. Operations are counted from the lengths of the run's own rows; the seconds follow from the
rates of the device (forecast/rates.py). A frozen matrix is used three times for each row: forward,
again in the backward pass, and for the gradient of its input. It gets no gradient itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from cogvlm2_lite.architectures.architecture import ModelConfig, Part, Phase, expected_tensors
from cogvlm2_lite.finetune.settings import PRESETS, TrainingSettings
from cogvlm2_lite.forecast.rates import RAM_BYTES_PER_S, Rates
from cogvlm2_lite.forecast.times import Arrivals, arrivals_of
from cogvlm2_lite.memory.inventory import Unit, UnitKey
from cogvlm2_lite.memory.plan import DeviceBudget, MemoryPlan, Offload, Workload, plan_memory
from cogvlm2_lite.memory.training import (
    PACK_ROWS,
    TALK_ROWS,
    Training,
    feature_bytes,
    prefix_bytes,
    waiting_bytes,
)
from cogvlm2_lite.memory.work import decoder_flops, encode_flops, expert_weights, tower_flops
from cogvlm2_lite.weights.adapter_names import ALL_ROWS

_MATRICES, _ATTENTION, _HEAD = 3.0, 4.5, 2.0
"""How often a training step computes what a forward pass computes once."""

_STARTED = 4.0
"""Passes over a block in a step, each of which starts operations: the backward pass has twice as
many as the forward pass, and the forward pass runs twice. Each conversation attends by itself."""

_OPTIMIZER_BYTES = 40
"""Bytes that the optimizer reads and writes for a number: itself, its gradient, its moments, and
their copies in the compute type."""
_OPTIMIZER_SHARE = 0.2
"""Share of the RAM's rate that it reaches on the CPU."""

_FILE_BYTES = 4 * 2 + 12 * 3
"""Bytes of a number in OUT: the best adapter and the last one, two saved states, and the next one
while it is written. A state has the number and its two moments."""


_ASCII_PER_TOKEN = 3.5
"""Letters of English in a token of Llama 3, on the safe side; of other scripts a token has one."""


class EstimatedTokens:
    """Counts tokens without a tokenizer, for a model that is not on disk."""

    special_texts: tuple[str, ...] = ()

    def encode(self, text: str) -> list[int]:
        """Return as many ids as the text is likely to have."""
        ascii_letters = sum(letter.isascii() for letter in text)
        return [0] * ceil(ascii_letters / _ASCII_PER_TOKEN + len(text) - ascii_letters)


@dataclass(frozen=True, kw_only=True)
class TalkSize:
    """The size of a conversation: the answers about one picture.

    ends         tokens of each answer with its question and past, without bos and the picture
    labels       positions whose next token is learnt
    has_picture  False: one answer, with its bos among the tokens
    """

    ends: tuple[int, ...]
    labels: int
    has_picture: bool = True

    @property
    def tokens(self) -> int:
        """Tokens behind the picture."""
        return sum(self.ends)

    def rows(self, prefix: int) -> list[int]:
        """Return the rows of the parts that it is split into; a part is in one pack.

        prefix  rows of bos and the picture that are in each part; 0: in none
        """
        shared, packs = prefix if self.has_picture else 0, [0]
        for end in self.ends:
            if packs[-1] and shared + packs[-1] + end > TALK_ROWS:
                packs.append(0)
            packs[-1] += end
        return [shared + rows for rows in packs]


def training_of(
    config: ModelConfig, settings: TrainingSettings, talks: Sequence[TalkSize], *, pictures: int
) -> Training:
    """Return the facts from which the memory of a run is planned.

    talks     of the run: learnt, replayed and held out
    pictures  different ones among them

    A step has at most `settings.step` talks, because each has an answer; the largest step is taken
    to have the largest ones.
    """
    all_rows = settings.acts_on == ALL_ROWS
    shown = any(talk.has_picture for talk in talks)
    prefix = 1 + config.vision.image_tokens if shown else 0
    packs = [talk.rows(prefix if all_rows else 0) for talk in talks]
    totals = sorted((sum(rows) for rows in packs), reverse=True)
    step_tokens = sum(totals[: settings.step])
    specs = expected_tensors(config)
    numbers: dict[tuple[Part, int | None], int] = {}
    largest = 0
    for name, (rows, columns) in settings.matrices(config).items():
        # Both experts of a decoder block are loaded together.
        part = specs[name].part
        group = Part.LANGUAGE_EXPERT if part is Part.VISION_EXPERT else part
        key = (group, specs[name].block)
        numbers[key] = numbers.get(key, 0) + settings.rank * (rows + columns)
        largest = max(largest, settings.rank * max(rows, columns))
    return Training(
        tokens=max(min(PACK_ROWS, step_tokens), max(max(rows) for rows in packs)),
        step_tokens=step_tokens,
        step_pictures=min(settings.step, sum(talk.has_picture for talk in talks)),
        pictures=pictures,
        prefix=0 if all_rows else prefix,
        numbers=sum(numbers.values()),
        block_numbers=max(numbers.values()),
        matrix_numbers=largest,
        vision_expert=all_rows and shown,
        tower=shown and Part.VISION in PRESETS[settings.preset].parts,
    )


def plan_training(
    config: ModelConfig,
    sizes: Mapping[UnitKey, int],
    budget: DeviceBudget,
    training: Training,
    *,
    itemsize: int,
    offload: Offload = Offload.AUTO,
) -> MemoryPlan:
    """Return the plan of a run on one device.

    sizes     bytes in memory of every unit, as for `plan_memory`
    itemsize  bytes of the compute dtype

    Raises DoesNotFitError as `plan_memory` does.
    """
    workload = Workload.of_training(training, itemsize=itemsize)
    return plan_memory(config, sizes, [budget], workload, offload=offload)


@dataclass(frozen=True, kw_only=True)
class RunSize:
    """The work of a run.

    learnt    conversations of one epoch, replayed ones included
    held_out  conversations whose loss is measured before the first step and after each epoch
    epochs    passes over the learnt ones
    steps     of the optimizer, in all epochs
    """

    learnt: tuple[TalkSize, ...]
    held_out: tuple[TalkSize, ...]
    epochs: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class PhaseCost:
    """The work of a phase in the whole run.

    times    pictures that are encoded or prefilled, or steps
    flops    operations, 2 per multiply-add
    seconds  expected
    """

    times: int
    flops: float
    seconds: float

    @property
    def each_s(self) -> float:
        """Seconds of one picture or step."""
        return self.seconds / max(1, self.times)


@dataclass(frozen=True, kw_only=True)
class KeptPictures:
    """What is computed once of pictures and kept, in RAM or on disk.

    features       of so many pictures
    prefixes       keys and values of bos and so many pictures
    disk_prefixes  those of them that are on disk
    disk_bytes     of the cache on disk
    """

    features: int = 0
    prefixes: int = 0
    disk_prefixes: int = 0
    disk_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a run needs.

    phases         by phase of the plan; LEARN without evaluations
    evaluations    all measurements of the held-out loss
    load_s         to read the weights from disk once
    kept           what is kept of pictures from their first use on
    ram_bytes      RAM besides the device's memory
    out_bytes      disk for OUT at its largest, without a cache of pictures
    """

    plan: MemoryPlan
    training: Training
    phases: Mapping[Phase, PhaseCost]
    evaluations: PhaseCost
    load_s: float
    kept: KeptPictures
    ram_bytes: int
    out_bytes: int
    rates: Rates

    @property
    def seconds(self) -> float:
        """Seconds of the whole run, without answers to held-out questions."""
        phases = sum(cost.seconds for cost in self.phases.values())
        return phases + self.evaluations.seconds + self.load_s

    @property
    def disk_bytes(self) -> int:
        """Disk for OUT at its largest, and for what is kept of pictures."""
        return self.out_bytes + self.kept.disk_bytes

    @property
    def peak_bytes(self) -> int:
        """The most that a phase needs on the device.

        Weights that are kept there only because there is room are not counted.
        """
        return max(needed_bytes(self.plan).values())


def expected_as_dict(expected: Expected) -> dict[str, Any]:
    """Return the forecast as JSON-ready values, in bytes and seconds."""
    needed = needed_bytes(expected.plan)
    device = expected.plan.devices[0]
    return {
        "device": device.budget.device,
        "budget_bytes": device.budget.device_bytes,
        "peak_bytes": expected.peak_bytes,
        "ram_bytes": expected.ram_bytes,
        "disk_bytes": expected.out_bytes,
        "cache_bytes": expected.kept.disk_bytes,
        "seconds": expected.seconds,
        "load_s": expected.load_s,
        "evaluation_s": expected.evaluations.seconds,
        "kept_features": expected.kept.features,
        "kept_prefixes": expected.kept.prefixes,
        "rates": str(expected.rates.source),
        "phases": [
            {
                "phase": phase.value,
                "needed_bytes": needed[phase],
                "streamed_bytes": device.phase(phase).streamed_bytes,
                "times": cost.times,
                "flops": cost.flops,
                "seconds": cost.seconds,
            }
            for phase, cost in expected.phases.items()
        ],
    }


def needed_bytes(plan: MemoryPlan) -> dict[Phase, int]:
    """Return what each phase needs on the device, without weights kept for other phases."""
    return {
        phase.phase: phase.peak_bytes
        - sum(unit.nbytes for unit in phase.resident if unit.part not in phase.parts)
        for phase in plan.devices[0].phases
    }


def expect(
    config: ModelConfig,
    plan: MemoryPlan,
    training: Training,
    run: RunSize,
    rates: Rates,
    *,
    itemsize: int,
    stored: Mapping[UnitKey, int],
    cache_bytes: int = 0,
) -> Expected:
    """Return what a run needs on a device.

    stored       bytes of each unit as it is copied
    cache_bytes  the most that is kept of pictures on disk, in addition to RAM
    """
    costs = _Costs(config, plan, training, rates, itemsize, stored)
    kept = _kept(config, plan, training, itemsize, cache_bytes)
    features, prefixes = kept.features, kept.prefixes
    phases: dict[Phase, PhaseCost] = {}
    if training.pictures:
        # 1. A picture is computed at its first use, and at each other one if it is not kept.
        uses = run.epochs * _pictures(run.learnt) + (run.epochs + 1) * _pictures(run.held_out)
        encoded = uses - round(uses * features / training.pictures) + features
        made = uses - round(uses * prefixes / training.pictures) + prefixes
        # Behind a kept prefix nothing reads the features.
        if training.prefix:
            encoded = min(encoded, made)
        phases[Phase.ENCODE] = costs.pictures(
            Phase.ENCODE, encoded, encode_flops(config), run.steps
        )
        if training.prefix:
            tokens = training.prefix
            flops = decoder_flops(config, tokens=tokens, keys=tokens // 2, scored=0)
            cost = costs.pictures(Phase.PREFILL_IMAGE, made, flops, run.steps)
            each = prefix_bytes(config, training, itemsize)
            read = (uses - made) * each * kept.disk_prefixes / max(1, prefixes)
            phases[Phase.PREFILL_IMAGE] = replace(
                cost, seconds=cost.seconds + read / rates.disk_bytes_per_s
            )
    # 2. The steps, and the held-out loss, which is a forward pass.
    phases[Phase.LEARN] = costs.learning(run.learnt, run.epochs, run.steps)
    evaluations = costs.evaluating(run.held_out, run.epochs + 1)
    # 3. Bytes. On a CPU the device's memory is the RAM.
    in_ram = plan.devices[0].budget.in_ram
    waiting = 0 if in_ram else plan.trained_bytes + plan.wave_bytes
    moving = sum(unit.nbytes for unit in plan.devices[0].moving)
    held = 0 if in_ram else min(moving, max(0, plan.devices[0].budget.host_bytes - waiting))
    read = sum(n for (part, _), n in stored.items() if part is not Part.EMBEDDING)
    return Expected(
        plan=plan,
        training=training,
        phases=phases,
        evaluations=evaluations,
        load_s=read / rates.disk_bytes_per_s,
        kept=kept,
        ram_bytes=waiting + held + plan.picture_cache_bytes,
        out_bytes=_FILE_BYTES * training.numbers,
        rates=rates,
    )


def _pictures(talks: Iterable[TalkSize]) -> int:
    return sum(talk.has_picture for talk in talks)


def _kept(
    config: ModelConfig, plan: MemoryPlan, training: Training, itemsize: int, cache_bytes: int
) -> KeptPictures:
    """Return what is kept of pictures: features first, which save more time for each byte."""
    if training.tower or not training.pictures:
        return KeptPictures()
    count, each = training.pictures, feature_bytes(config, itemsize)
    on_disk = min(count, cache_bytes // each)
    in_ram = min(count - on_disk, plan.picture_cache_bytes // each)
    prefixes = disk_prefixes = 0
    prefix = prefix_bytes(config, training, itemsize)
    if prefix:
        prefixes = min(count, (plan.picture_cache_bytes - in_ram * each) // prefix)
        disk_prefixes = min(count - prefixes, (cache_bytes - on_disk * each) // prefix)
    return KeptPictures(
        features=on_disk + in_ram,
        prefixes=prefixes + disk_prefixes,
        disk_prefixes=disk_prefixes,
        disk_bytes=on_disk * each + disk_prefixes * prefix,
    )


class _Costs:
    """Counts operations, and the seconds that they take with a plan."""

    def __init__(
        self,
        config: ModelConfig,
        plan: MemoryPlan,
        training: Training,
        rates: Rates,
        itemsize: int,
        stored: Mapping[UnitKey, int],
    ) -> None:
        self._config, self._training, self._rates = config, training, rates
        self._device = plan.devices[0]
        self._plan, self._itemsize = plan, itemsize
        workload = Workload.of_training(training, itemsize=itemsize)
        self._arrivals = {
            phase: arrivals[0] for phase, arrivals in arrivals_of(plan, workload, stored).items()
        }
        learn = self._device.phase(Phase.LEARN)
        self._learn_bytes = sum(
            stored.get(unit.key, unit.nbytes)
            for unit in (*learn.resident, *learn.streamed)
            if unit.part in learn.parts
        )

    def pictures(self, phase: Phase, count: int, flops: float, steps: int) -> PhaseCost:
        """Return the cost of encoding or prefilling pictures, those of a step together."""
        arrivals = self._arrivals[phase]
        copied = self._copy_s(arrivals, arrivals.units) * min(count, steps)
        seconds = self._overlapped(phase, count * flops / self._rates.matmul_flops, copied)
        return PhaseCost(times=count, flops=count * flops, seconds=seconds)

    def learning(self, talks: Sequence[TalkSize], epochs: int, steps: int) -> PhaseCost:
        """Return the cost of all steps."""
        rates, training = self._rates, self._training
        packs = self._packs(talks, steps // max(1, epochs)) * epochs
        flops = epochs * sum(map(self.learn_flops, talks))
        compute = flops / rates.matmul_flops + packs * _MATRICES * self._dequantize_s()
        compute += (packs + epochs * len(talks)) * _STARTED * self._start_s()
        waves = steps * self._waves(talks, max(1, steps // max(1, epochs)))
        copied = 2 * waves * self._streamed_s()
        update = training.numbers * _OPTIMIZER_BYTES / (RAM_BYTES_PER_S * _OPTIMIZER_SHARE)
        seconds = self._overlapped(Phase.LEARN, compute, copied) + steps * update
        return PhaseCost(times=steps, flops=flops, seconds=seconds)

    def evaluating(self, talks: Sequence[TalkSize], times: int) -> PhaseCost:
        """Return the cost of measuring the loss of held-out conversations several times."""
        if not talks:
            return PhaseCost(times=0, flops=0.0, seconds=0.0)
        flops = times * sum(self._flops(talk, 1.0, 1.0, 1.0) for talk in talks)
        packs = self._packs(talks, 1) * times
        compute = flops / self._rates.matmul_flops + packs * self._dequantize_s()
        compute += (packs + times * len(talks)) * self._start_s()
        copied = times * self._waves(talks, 1) * self._streamed_s()
        seconds = self._overlapped(Phase.LEARN, compute, copied)
        return PhaseCost(times=times, flops=flops, seconds=seconds)

    def learn_flops(self, talk: TalkSize) -> float:
        """Return the operations of a conversation in a step, forward and backward."""
        flops = self._flops(talk, _MATRICES, _ATTENTION, _HEAD)
        if self._training.tower and talk.has_picture:
            # The tower's forward pass is a phase of its own.
            flops += tower_flops(self._config, linears=_MATRICES - 1, attention=_ATTENTION - 1)
        return flops

    def _flops(self, talk: TalkSize, matrices: float, attention: float, head: float) -> float:
        """Return the operations of a conversation; each kind is computed so many times."""
        config, training = self._config, self._training
        shown = 1 + config.vision.image_tokens if talk.has_picture else 0
        own = 0 if training.prefix else shown
        parts = talk.rows(own)
        rows = sum(parts)
        # Keys that are seen: by the picture's rows in each part, then by those behind it.
        keys = len(parts) * own * own / 2 + sum(end * (shown + end / 2) for end in talk.ends)
        weights = config.num_hidden_layers * expert_weights(config)
        total = matrices * rows * weights
        # No row of a picture is wanted behind the attention of the last block.
        unwanted = expert_weights(config) - config.hidden_size * config.qkv_rows
        total -= matrices * len(parts) * own * unwanted
        total += attention * 2 * config.num_hidden_layers * config.hidden_size * keys
        total += head * talk.labels * config.vocab_size * config.hidden_size
        # The adapter: a row goes through one expert of each block.
        share = 0.5 if training.vision_expert else 1.0
        total += matrices * rows * training.numbers * share
        return 2 * total

    def _packs(self, talks: Sequence[TalkSize], steps: int) -> int:
        """Return the packs of an epoch: small conversations of a step share one."""
        training = self._training
        own = 0 if training.prefix else 1 + self._config.vision.image_tokens
        full, small = 0, 0
        for rows in _parts(talks, own):
            if rows > PACK_ROWS // 2:
                full += 1
            else:
                small += rows
        return max(steps, full + ceil(small / PACK_ROWS))

    def _waves(self, talks: Sequence[TalkSize], steps: int) -> int:
        """Return the waves of an average step."""
        training = self._training
        own = 0 if training.prefix else 1 + self._config.vision.image_tokens
        waiting = waiting_bytes(
            self._config,
            training,
            self._itemsize,
            tokens=sum(_parts(talks, own)) // steps,
            pictures=ceil(_pictures(talks) / steps),
        )
        return max(1, ceil(waiting / max(1, self._plan.wave_bytes)))

    def _start_s(self) -> float:
        """Return the seconds to start the operations of all blocks, or their attention."""
        return self._config.num_hidden_layers * self._rates.block_s

    def _dequantize_s(self) -> float:
        """Return the seconds for which a pass over a pack dequantizes the weights."""
        config = self._config
        if self._device.budget.in_ram:
            return 0.0  # the rate of a CPU was measured with dequantizing
        experts = 2 if self._training.vision_expert else 1
        written = experts * config.num_hidden_layers * expert_weights(config) * self._itemsize
        # A multiplication reads the dequantized weights while it computes.
        return (self._learn_bytes + written) / self._rates.memory_bytes_per_s

    def _streamed_s(self) -> float:
        streamed = {unit.key for unit in self._device.phase(Phase.LEARN).streamed}
        arrivals = self._arrivals[Phase.LEARN]
        return self._copy_s(arrivals, [u for u in arrivals.units if u.key in streamed])

    def _copy_s(self, arrivals: Arrivals, units: Iterable[Unit]) -> float:
        from_ram = {unit.key for unit in arrivals.ram}
        rates = self._rates
        return sum(
            unit.nbytes
            / (rates.bus_bytes_per_s if unit.key in from_ram else rates.disk_bytes_per_s)
            for unit in units
        )

    def _overlapped(self, phase: Phase, compute: float, copied: float) -> float:
        """Return the seconds of a phase; with two buffers it copies while it computes."""
        if self._device.phase(phase).depth == 1:
            return compute + copied
        return max(compute, copied)


def _parts(talks: Iterable[TalkSize], own: int) -> Iterator[int]:
    for talk in talks:
        yield from talk.rows(own)
