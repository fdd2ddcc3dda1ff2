"""The facts about given samples from which their memory is planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cogvlm2_lite.architectures.architecture import ModelConfig, Part, expected_tensors
from cogvlm2_lite.finetune.samples import TrainedPair, TrainingSample
from cogvlm2_lite.finetune.talks import PackLimits, make_packs
from cogvlm2_lite.memory.training import Training
from cogvlm2_lite.weights.adapter_names import ALL_ROWS


def training_of_samples(
    config: ModelConfig,
    pairs: Mapping[str, TrainedPair],
    samples: Sequence[TrainingSample],
    *,
    acts_on: str,
    limits: PackLimits,
) -> Training:
    """Return the facts about a single step with all samples."""
    packs, prefixes = make_packs(samples, limits=limits, stored=acts_on != ALL_ROWS)
    pictures = {p.key for pack in packs for p in pack.pictures}
    pictures |= {p.key for prefix in prefixes.values() for p in prefix.pack.pictures}
    specs = expected_tensors(config)
    numbers: dict[tuple[Part, int | None], int] = {}
    for name, pair in pairs.items():
        part = specs[name].part
        group = Part.LANGUAGE_EXPERT if part is Part.VISION_EXPERT else part
        key = (group, specs[name].block)
        numbers[key] = numbers.get(key, 0) + pair.down.numel() + pair.up.numel()
    parts = {specs[name].part for name in pairs}
    return Training(
        tokens=max((pack.rows for pack in packs), default=1),
        step_tokens=sum(pack.rows for pack in packs),
        step_pictures=len(pictures),
        pictures=len(pictures),
        prefix=max((prefix.pack.rows for prefix in prefixes.values()), default=0),
        numbers=sum(numbers.values()),
        block_numbers=max(numbers.values(), default=0),
        matrix_numbers=max((max(p.down.numel(), p.up.numel()) for p in pairs.values()), default=0),
        vision_expert=any(bool(pack.chunk.vision_mask.any()) for pack in packs),
        tower=bool(parts & {Part.VISION, Part.PROJECTOR}),
    )
