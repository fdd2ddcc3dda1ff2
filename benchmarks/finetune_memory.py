"""Compare the plan of a training run with the tensors that a step really makes.

    python -m benchmarks.finetune_memory

The released model's widths with random NF4 weights, one block of the vision tower and two of the
decoder (all blocks use the same memory in turn; the last one computes fewer rows), on the CPU in
bfloat16. Every tensor that torch makes during a step is counted from
its creation to its release. Writes benchmarks/results/finetune_memory.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import describe_machine  # noqa: E402
from benchmarks.memory_estimate import peak_of  # noqa: E402
from cogvlm2_lite.architectures.architecture import ModelConfig, Phase  # noqa: E402
from cogvlm2_lite.bench.synthetic import (  # noqa: E402
    NoiseReader,
    released_config,
    synthetic_catalog,
)
from cogvlm2_lite.finetune.expect import TalkSize, plan_training, training_of  # noqa: E402
from cogvlm2_lite.finetune.learn import new_pairs  # noqa: E402
from cogvlm2_lite.finetune.network import LearningNetwork, weight_sizes  # noqa: E402
from cogvlm2_lite.finetune.samples import TrainingPicture, TrainingSample  # noqa: E402
from cogvlm2_lite.finetune.settings import TrainingSettings  # noqa: E402
from cogvlm2_lite.memory.inventory import sizes_of_quantized  # noqa: E402
from cogvlm2_lite.memory.plan import DeviceBudget  # noqa: E402
from cogvlm2_lite.memory.training import Training, learn_bytes, waiting_bytes  # noqa: E402
from cogvlm2_lite.model.rotary import RopeMode  # noqa: E402
from cogvlm2_lite.rows.labels import NO_LABEL  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "finetune_memory.json"
_PLENTY = 1 << 40
_BUDGET = DeviceBudget(device="cpu", in_ram=True, device_bytes=_PLENTY)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A step to measure.

    talks    answers about each picture, and pictures
    tokens   of each answer with its question
    labels   of them
    """

    preset: str
    rank: int
    talks: tuple[int, ...]
    tokens: int
    labels: int = 40

    @property
    def settings(self) -> TrainingSettings:
        return TrainingSettings(preset=self.preset, rank=self.rank)

    def sizes(self) -> list[TalkSize]:
        """Return the sizes of its conversations."""
        return [
            TalkSize(ends=(self.tokens,) * answers, labels=self.labels * answers)
            for answers in self.talks
        ]

    def samples(self, config: ModelConfig) -> list[TrainingSample]:
        """Return its samples, with tokens and pictures of noise."""
        generator = torch.Generator().manual_seed(17)
        vision, prefix = config.vision, 1 + config.vision.image_tokens
        side = vision.image_size

        def pixels() -> Tensor:
            return torch.randn(1, vision.in_channels, side, side)

        found = []
        for number, answers in enumerate(self.talks):
            picture = TrainingPicture(key=str(number), pixels=pixels)
            for _ in range(answers):
                ids = torch.randint(
                    0, config.vocab_size, (1, prefix + self.tokens), generator=generator
                )
                ids[0, 0], ids[0, 1:prefix] = config.bos_token_id, config.pad_token_id
                types = torch.zeros_like(ids)
                types[0, 1:prefix] = 1
                labels = torch.full_like(ids, NO_LABEL)
                labels[0, -self.labels :] = ids[0, -self.labels :]
                found.append(
                    TrainingSample(
                        input_ids=ids, token_type_ids=types, labels=labels, picture=picture
                    )
                )
        return found


CASES = (
    Case(preset="words", rank=16, talks=(1, 1), tokens=100),
    Case(preset="words", rank=64, talks=(10,), tokens=100),
    Case(preset="both", rank=16, talks=(1,), tokens=93),
    Case(preset="both", rank=64, talks=(8,), tokens=220),
    Case(preset="tower", rank=16, talks=(1,), tokens=93),
)


def measure(case: Case) -> dict[str, Any]:
    """Return planned and measured bytes of a step, and its seconds.

    The first step loads the weights and computes what is known of pictures; the second one is
    measured. With a trained tower it encodes the picture again.
    """
    config, settings = released_config(1, 2), case.settings
    catalog = synthetic_catalog(config)
    training = training_of(config, settings, case.sizes(), pictures=len(case.talks))
    network = LearningNetwork(
        catalog,
        new_pairs(settings.matrices(config), settings.rank, settings.seed),
        scale=2.0,
        acts_on=settings.acts_on,
        dtype=torch.bfloat16,
        rope=RopeMode.REFERENCE,
        plan=plan_training(
            config, weight_sizes(catalog, torch.bfloat16), _BUDGET, training, itemsize=2
        ),
        training=training,
        reader=NoiseReader(keep=False),
    )
    samples = case.samples(config)
    began = time.monotonic()
    network.accumulate(samples)
    first_s = time.monotonic() - began
    began = time.monotonic()
    measured = peak_of(lambda: network.accumulate(samples))
    seconds = time.monotonic() - began
    planned = _without_weights(config, training)
    whole = _full_peak(case)
    return {
        "case": asdict(case),
        "planned_bytes": planned,
        "measured_bytes": measured,
        "error": planned / measured - 1,
        "peak_bytes": whole,
        "peak_error": whole / (whole - planned + measured) - 1,
        "first_step_s": first_s,
        "step_s": seconds,
    }


def _without_weights(config: ModelConfig, training: Training) -> int:
    """Return the planned bytes of a step with few layers, without weights and trained numbers.

    What is known of a picture was made before the step, except for a trained tower.
    """
    scratch = learn_bytes(config, training, 2, head_is_quantized=False)
    waiting = waiting_bytes(
        config,
        training,
        2,
        tokens=training.step_tokens,
        pictures=training.step_pictures if training.tower else 0,
    )
    return scratch + waiting


def _full_peak(case: Case) -> int:
    """Return the planned peak of the learning phase with all layers and their weights."""
    config = released_config(None, None)
    training = training_of(config, case.settings, case.sizes(), pictures=len(case.talks))
    plan = plan_training(config, sizes_of_quantized(config), _BUDGET, training, itemsize=2)
    learn = plan.devices[0].phase(Phase.LEARN)
    others = sum(unit.nbytes for unit in learn.resident if unit.part not in learn.parts)
    return learn.peak_bytes - others


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, metavar="N", help="only one case; nothing is written")
    options = parser.parse_args()
    cases = CASES if options.only is None else CASES[options.only : options.only + 1]
    found = []
    for case in cases:
        found.append(measure(case))
        print(json.dumps(found[-1], indent=1), flush=True)
    if options.only is None:
        report = {"machine": describe_machine(), "cases": found}
        RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
