"""Calibrations of the golden checkpoint."""

from __future__ import annotations

from pathlib import Path
from random import Random

from PIL import Image

from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.samples.pixels import SamplePixels
from cogvlm2_lite.samples.samples import Sample, in_fixed_order
from quantize.calibration.calibrate import MAX_HELD_OUT_INPUTS, MAX_INPUTS, Task
from quantize.calibration.gptq import Calibration
from quantize.events import Event
from quantize.pipeline import Calibrate, convert
from quantize.recipe import QuantizeOptions, Recipe
from tests.helpers.conversion import CHECKPOINT, QUICK

DEMO = checkpoint_folder()
SETTINGS = QuantizeOptions(calibration="a test", shard_bytes=300_000)

HOW = Calibration(descents=1)
"""More passes take most of the time and test nothing more."""


class ByteTokenizer:
    """Bytes as ids, for a checkpoint that has no tokenizer."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())


def made_samples(count: int = 16) -> list[Sample]:
    chance, found = Random(3), []
    for number in range(count):
        noise = Image.frombytes("RGB", (30, 30), chance.randbytes(2700))
        image = None if number % 5 == 4 else noise.resize((84, 84))
        found.append(Sample(question=f"What is {number}?", answer=f" It is {number}.", image=image))
    return in_fixed_order(found)


def calibrate_with(
    samples: list[Sample],
    identity: str = "a test",
    *,
    max_inputs: int = MAX_INPUTS,
    max_held_out_inputs: int = MAX_HELD_OUT_INPUTS,
    pixels: SamplePixels | None = None,
    how: Calibration = HOW,
) -> Calibrate:
    def task(recipe: Recipe, folder: Path) -> Task:
        return Task(
            catalog=recipe.catalog,
            samples=samples,
            tokenizer=ByteTokenizer(),  # type: ignore[arg-type]
            chosen=frozenset(t.name for t in recipe.tensors if t.kind == "nf4"),
            how=how,
            compute=choose_compute("cpu", "float32"),
            folder=folder,
            identity=identity,
            max_inputs=max_inputs,
            max_held_out_inputs=max_held_out_inputs,
            pixels=pixels,
        )

    return task


def run(target: Path, samples: list[Sample], settings: QuantizeOptions = SETTINGS) -> list[Event]:
    return list(convert(CHECKPOINT, target, settings, QUICK, calibrate_with(samples)))
