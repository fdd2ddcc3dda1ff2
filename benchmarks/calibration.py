"""Compare calibrated NF4 with plain NF4, on the demo model and on its harder twin.

    python -m benchmarks.calibration [--pictures 80] [--questions 6]

Plain NF4, FP4 (as in the released int4 folders) and calibrated NF4 have equal bytes and are made by
the code that `quantize` runs. They are compared with the 16-bit model on questions that were not
used for training or calibration: mean KL of the next token at every token of the correct answers.
The twin computes the same function with outliers in its weights and activations. Writes
benchmarks/results/calibration.json; tools/write_quantization_docs.py writes the page.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import describe_machine  # noqa: E402
from cogvlm2_lite.devices import choose_compute  # noqa: E402
from cogvlm2_lite.engine.model import Model, open_model  # noqa: E402
from cogvlm2_lite.engine.runtime import run  # noqa: E402
from cogvlm2_lite.evaluate.metrics import TokenComparison, ratio, summarise  # noqa: E402
from cogvlm2_lite.evaluate.score import Reference, prepare  # noqa: E402
from cogvlm2_lite.inputs.tokenizer import Tokenizer  # noqa: E402
from cogvlm2_lite.memory.plan import DeviceBudget  # noqa: E402
from cogvlm2_lite.samples.drawn import drawn_samples  # noqa: E402
from cogvlm2_lite.samples.samples import Sample, in_fixed_order  # noqa: E402
from cogvlm2_lite.units import GIB  # noqa: E402
from cogvlm2_lite.weights.catalog import Catalog  # noqa: E402
from cogvlm2_lite.weights.kernels.nf4 import FP4_LEVELS  # noqa: E402
from quantize.calibration.calibrate import Task  # noqa: E402
from quantize.calibration.gptq import Calibration  # noqa: E402
from quantize.pipeline import Effort, convert  # noqa: E402
from quantize.recipe import QuantizeOptions, Recipe  # noqa: E402
from tools.demo_model.generator import Split, samples  # noqa: E402

CHECKPOINT = ROOT / "cogvlm2_lite" / "demo" / "checkpoint"
RESULT = ROOT / "benchmarks" / "results" / "calibration.json"
GROUP = 64

STEPS = {
    "signed scale search alone": Calibration(gptq=False, descents=0),
    "unsigned scale search alone": Calibration(signed=False, gptq=False, descents=0),
    "GPTQ alone, plain scales": Calibration(signed=False, search=False, ordered=False, descents=0),
    "+ signed scale search": Calibration(ordered=False, descents=0),
    "+ important columns first": Calibration(descents=0),
    "+ 4 passes of coordinate descent (the default)": Calibration(),
    "the default without double quantization": Calibration(double_quant=False),
}


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=150, help="held-out pictures")
    parser.add_argument("--questions", type=int, default=6, help="questions per picture")
    parser.add_argument("--calibration-pictures", type=int, default=48)
    options = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {"machine": describe_machine(), "options": vars(options)}
    with tempfile.TemporaryDirectory() as folder:
        twin = Path(folder) / "twin"
        make_twin(CHECKPOINT, twin)
        for name, source in (("demo model", CHECKPOINT), ("harder twin", twin)):
            asked = options.pictures, options.questions
            with Bench(source, Path(folder) / "made", *asked) as bench:
                many = options.calibration_pictures
                report[name] = dict(bench.measure(many, full=name == "demo model"))
            print(json.dumps(report[name], indent=1), flush=True)
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


class Bench:
    """Compares one network with its quantized forms."""

    def __init__(
        self, source: Path, folder: Path, pictures: int, each: int, seeds: Sequence[int] = (11,)
    ) -> None:
        """Prepare held-out questions: `each` about so many pictures of every seed."""
        self._source, self._folder, self._each = source, folder, each
        asked = [s for seed in seeds for s in questions("held-out", seed, pictures, each)]
        model = open_float32(source)
        tokenizer = Tokenizer.from_folder(source)
        self._reference = Reference(prepare(asked, tokenizer, model.config), model.config)
        run(self._reference.fill(model))

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._reference.__exit__(None, None, None)

    def measure(self, many: int, *, full: bool) -> Iterator[tuple[str, Any]]:
        """Yield named rows for so many pictures; with `full` also those for other samples."""
        plain = self.compare(None)
        yield "plain NF4", self._row(plain, plain, None)
        fp4 = self._folder / "fp4"
        make_fp4(self._source, fp4)
        yield "FP4", self._row(self.compare(fp4), plain, None)
        for seed in (5, 6, 7):
            fitted = self._fitted(many, seed)
            yield f"calibrated, seed {seed}", self._calibrated(fitted, plain, Calibration())
        fitted = self._fitted(many, 5)
        for name, how in STEPS.items():
            yield name, self._calibrated(fitted, plain, how)
        if not full:
            return
        for pictures in (3, 12, 192):
            fitted = self._fitted(pictures, 5)
            name = f"{len(fitted)} samples"
            yield name, self._calibrated(fitted, plain, Calibration())
        fitted = self._fitted(many, 5)
        text = [replace(s, image=None) for s in fitted]
        yield "text only", self._calibrated(text, plain, Calibration())
        for seed in range(8):  # `quantize` draws with 0
            drawn = drawn_samples(len(fitted), seed)
            name = "built-in drawn set" + (f", another draw ({seed})" if seed else "")
            yield name, self._calibrated(drawn, plain, Calibration())
        for seed in range(4):
            ours, theirs = self._fitted(many, 5 + seed), drawn_samples(len(fitted), seed)
            mixed = {
                "its pictures, the demo model's questions": with_pictures_of(ours, theirs),
                "its questions, the demo model's pictures": with_pictures_of(theirs, ours),
            }
            for name, found in mixed.items():
                yield f"{name} ({seed})", self._calibrated(found, plain, Calibration())

    def _fitted(self, pictures: int, seed: int) -> list[Sample]:
        return fitted_samples(pictures, seed, self._each)

    def _calibrated(
        self, fitted: list[Sample], plain: TokenComparison, how: Calibration
    ) -> dict[str, Any]:
        began = time.process_time()
        folder = self.calibrate(fitted, how)
        cpu_s = time.process_time() - began
        return self._row(self.compare(folder), plain, cpu_s) | {"samples": len(fitted)}

    def calibrate(self, fitted: list[Sample] | None, how: Calibration | None = None) -> Path:
        """Quantize and return the folder, which the next call overwrites.

        fitted  samples to calibrate with; None: round to nearest
        """
        target = self._folder / "made"
        shutil.rmtree(target, ignore_errors=True)
        how = how or Calibration()
        compute = choose_compute("cpu", "float32")
        tokenizer = Tokenizer.from_folder(self._source)

        def task(recipe: Recipe, folder: Path) -> Task:
            return Task(
                catalog=recipe.catalog,
                samples=fitted or [],
                tokenizer=tokenizer,
                chosen=frozenset(t.name for t in recipe.tensors if t.kind == "nf4"),
                how=how,
                compute=compute,
                folder=folder,
                identity="benchmark",
            )

        settings = QuantizeOptions(
            calibration="benchmark" if fitted else "", double_quant=how.double_quant
        )
        work = convert(self._source, target, settings, Effort(), task if fitted else None)
        for _ in work:
            pass
        return target

    def compare(self, folder: Path | None) -> TokenComparison:
        """Compare a folder with the original at every answer token; None: plain NF4."""
        found = self.calibrate(None) if folder is None else folder
        return run(self._reference.compare(open_float32(found)))

    def _row(
        self, found: TokenComparison, plain: TokenComparison, cpu_s: float | None
    ) -> dict[str, Any]:
        against = ratio(found.kl, plain.kl, found.picture)
        return {
            "of_plain": against.value,
            "low": against.low,
            "high": against.high,
            "cpu_s": cpu_s,
            **summarise(found).as_dict(),
        }


def fitted_samples(pictures: int, seed: int, each: int) -> list[Sample]:
    """Return calibration samples: `each` questions about so many pictures."""
    return in_fixed_order(questions("train", seed, pictures, each))


def questions(split: Split, seed: int, pictures: int, each: int) -> list[Sample]:
    """Return questions about pictures like those that the demo model was trained on."""
    found = []
    for drawn in islice(samples(split, seed, each), pictures):
        for talk in drawn.conversations:
            image = drawn.image if talk.sees_picture else None
            history = tuple((question, answer) for question, answer in talk.history)
            found.append(
                Sample(
                    question=talk.question,
                    answer=talk.answer.strip(),
                    image=image,
                    history=history,
                )
            )
    return found


def with_pictures_of(samples: list[Sample], others: list[Sample]) -> list[Sample]:
    """Return samples whose pictures are replaced by those of others, so that they don't fit."""
    pictures = cycle([sample.image for sample in others if sample.image is not None])
    return [replace(s, image=next(pictures)) if s.image is not None else s for s in samples]


def open_float32(folder: Path) -> Model:
    """Open a folder in float32 on the CPU, so that only the weights differ."""
    budget = DeviceBudget(device="cpu", in_ram=True, device_bytes=4 * GIB)
    return open_model(folder, compute=choose_compute("cpu", "float32"), budgets=[budget])


# --- other forms of a checkpoint ------------------------------------------------------------------


def _copy(source: Path, target: Path, tensors: dict[str, Tensor]) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in source.iterdir():
        if file.suffix == ".json":
            shutil.copy(file, target)
    names = sorted({f.name for f in source.glob("*.safetensors")})
    assert len(names) == 1, "the demo model is one file"
    save_file(tensors, target / names[0], {"format": "pt"})


def _read(source: Path) -> dict[str, Tensor]:
    return {k: v for file in source.glob("*.safetensors") for k, v in load_file(file).items()}


def make_twin(source: Path, target: Path) -> None:
    """Write a checkpoint of the same function with outliers, exact in bfloat16.

    Some channels of the norms, rows of `up_proj` and rows of the vision tower's values are
    multiplied by 8 to 64, and the columns that read them are divided by the same. These are powers
    of two, so nothing is rounded.
    """
    tensors, chance = _read(source), torch.Generator().manual_seed(3)

    def scale(count: int) -> Tensor:
        factors = torch.ones(count)
        chosen = torch.randperm(count, generator=chance)[: max(count // 32, 2)]
        powers = torch.randint(3, 7, (len(chosen),), generator=chance)
        factors[chosen] = 2.0**powers
        return factors

    def rows(name: str, factors: Tensor) -> None:
        shape = (-1,) + (1,) * (tensors[name].dim() - 1)
        tensors[name] = (tensors[name].float() * factors.view(shape)).to(tensors[name].dtype)

    def columns(name: str, factors: Tensor) -> None:
        tensors[name] = (tensors[name].float() / factors).to(tensors[name].dtype)

    layers = sorted({n.split(".")[2] for n in tensors if n.startswith("model.layers.")}, key=int)
    for layer in layers:
        base = f"model.layers.{layer}"
        factors = scale(tensors[f"{base}.input_layernorm.weight"].numel())
        rows(f"{base}.input_layernorm.weight", factors)
        for expert in ("language", "vision"):
            columns(f"{base}.self_attn.{expert}_expert_query_key_value.weight", factors)
        factors = scale(tensors[f"{base}.post_attention_layernorm.weight"].numel())
        rows(f"{base}.post_attention_layernorm.weight", factors)
        for expert in ("language", "vision"):
            for name in ("gate", "up"):
                columns(f"{base}.mlp.{expert}_mlp.{name}_proj.weight", factors)
            inner = scale(tensors[f"{base}.mlp.{expert}_mlp.up_proj.weight"].shape[0])
            rows(f"{base}.mlp.{expert}_mlp.up_proj.weight", inner)
            columns(f"{base}.mlp.{expert}_mlp.down_proj.weight", inner)
    for name in [n for n in tensors if n.startswith("model.vision.transformer")]:
        if name.endswith("query_key_value.weight"):
            base = name.removesuffix("query_key_value.weight")
            width = tensors[name].shape[1]
            inner = scale(width)
            factors = torch.cat((torch.ones(2 * width), inner))
            rows(name, factors)
            rows(f"{base}query_key_value.bias", factors)
            columns(f"{base}dense.weight", inner)
    _copy(source, target, tensors)


def make_fp4(source: Path, target: Path) -> None:
    """Write a 16-bit checkpoint whose linear matrices are rounded to FP4.

    As in the released folders: groups of 64, scales in float32. The values are stored in bfloat16
    again. This adds an error of 0.2 % to FP4's 10 %.
    """
    tensors = _read(source)
    catalog = Catalog.open(source, open_float32(source).config)
    linears = [
        name
        for name, stored in catalog.tensors.items()
        if stored.spec.role.name == "LINEAR" and name != "lm_head.weight"
    ]
    order = torch.tensor(FP4_LEVELS).sort().values
    for name in linears:
        weight = tensors[name].float()
        if weight.shape[1] % GROUP:
            continue
        groups = weight.view(-1, GROUP)
        scales = groups.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
        codes = torch.bucketize(groups / scales, (order[1:] + order[:-1]) / 2)
        tensors[name] = (order[codes] * scales).view_as(weight).to(tensors[name].dtype)
    _copy(source, target, tensors)


if __name__ == "__main__":
    main()
