"""What packing the questions of a step saves, on the demo model.

    python -m benchmarks.finetune_packing

CPU time of a step of 16 answers in float32 on one thread, with one or four questions about each
picture: every answer as a sequence of its own, and packed. The adapter is new, the pictures are
noise; the time does not depend on them. Writes benchmarks/results/finetune_packing.json.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import describe_machine  # noqa: E402
from cogvlm2_lite.architectures.architecture import ModelConfig  # noqa: E402
from cogvlm2_lite.config import read_config  # noqa: E402
from cogvlm2_lite.demo.shipped import model_folder  # noqa: E402
from cogvlm2_lite.devices import choose_compute  # noqa: E402
from cogvlm2_lite.finetune.learn import new_pairs  # noqa: E402
from cogvlm2_lite.finetune.network import LearningNetwork  # noqa: E402
from cogvlm2_lite.finetune.samples import TrainingPicture, TrainingSample  # noqa: E402
from cogvlm2_lite.finetune.settings import TrainingSettings  # noqa: E402
from cogvlm2_lite.finetune.talks import PackLimits  # noqa: E402
from cogvlm2_lite.model.rotary import RopeMode  # noqa: E402
from cogvlm2_lite.weights.catalog import Catalog  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "finetune_packing.json"
QUESTION, ANSWER, REPEATS = 14, 6, 4
LIMITS = {"separate": PackLimits(talk=1, pack=1), "packed": PackLimits()}


def main() -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    rows = []
    for preset in ("words", "both"):
        for pictures, questions in ((16, 1), (4, 4)):
            row: dict[str, Any] = {"preset": preset, "pictures": pictures, "questions": questions}
            for name, limits in LIMITS.items():
                row[name] = round(seconds(preset, pictures, questions, limits), 3)
            print(json.dumps(row), flush=True)
            rows.append(row)
    RESULT.write_text(json.dumps({"machine": describe_machine(), "rows": rows}, indent=1) + "\n")


def seconds(preset: str, pictures: int, questions: int, limits: PackLimits) -> float:
    """Return the CPU seconds of a step after the first one."""
    folder, settings = Path(model_folder("demo")), TrainingSettings(preset=preset)
    config = read_config(folder)
    samples = make_samples(config, pictures, questions)
    network = LearningNetwork.for_samples(
        Catalog.open(folder, config),
        new_pairs(settings.matrices(config), settings.rank, 0),
        samples,
        scale=settings.alpha / settings.rank,
        acts_on=settings.acts_on,
        compute=choose_compute("cpu", "float32"),
        rope=RopeMode.REFERENCE,
        limits=limits,
    )
    network.accumulate(samples)
    began = time.process_time()
    for _ in range(REPEATS):
        network.accumulate(samples)
    return (time.process_time() - began) / REPEATS


def make_samples(config: ModelConfig, pictures: int, questions: int) -> list[TrainingSample]:
    """Return samples of noise: bos, picture, question, answer."""
    generator = torch.Generator().manual_seed(0)
    side, places = config.vision.image_size, config.vision.image_tokens
    samples = []
    for number in range(pictures):
        pixels = torch.randn((1, config.vision.in_channels, side, side), generator=generator)
        picture = TrainingPicture(key=str(number), pixels=lambda pixels=pixels: pixels)
        for _ in range(questions):
            ids = torch.randint(
                5, config.vocab_size, (1, 1 + places + QUESTION + ANSWER), generator=generator
            )
            types = torch.zeros_like(ids)
            types[:, 1 : 1 + places] = 1
            # Tokens before a question are equal for all of them.
            ids[:, 0] = config.bos_token_id
            ids[:, 1 : 1 + places] = config.pad_token_id
            labels = torch.full_like(ids, -100)
            labels[:, -ANSWER:] = ids[:, -ANSWER:]
            samples.append(
                TrainingSample(input_ids=ids, token_type_ids=types, labels=labels, picture=picture)
            )
    return samples


if __name__ == "__main__":
    main()
