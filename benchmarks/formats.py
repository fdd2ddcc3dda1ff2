"""Measure the loss of each storage format on the demo model, in total and by part of the model.

    python -m benchmarks.formats [--pictures 100] [--seeds 11,12,13]

Folders made by `quantize` with several options, and one in FP4 like the released int4 folders, are
compared with the 16-bit original at every token of the correct answers to held-out questions. All
compute in float32, so that only the stored weights differ. Writes benchmarks/results/formats.json
and docs/quantization.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.fp4_folder import write_fp4  # noqa: E402
from benchmarks.machine import describe_machine  # noqa: E402
from cogvlm2_lite.config import read_config  # noqa: E402
from cogvlm2_lite.devices import choose_compute  # noqa: E402
from cogvlm2_lite.engine.model import Model, open_model  # noqa: E402
from cogvlm2_lite.engine.runtime import run  # noqa: E402
from cogvlm2_lite.evaluate.compare import weigh  # noqa: E402
from cogvlm2_lite.evaluate.metrics import TokenComparison, ratio, summarise  # noqa: E402
from cogvlm2_lite.evaluate.score import Reference, prepare  # noqa: E402
from cogvlm2_lite.memory.plan import DeviceBudget  # noqa: E402
from cogvlm2_lite.samples.samples import Sample  # noqa: E402
from cogvlm2_lite.units import GIB  # noqa: E402
from cogvlm2_lite.weights.catalog import Catalog  # noqa: E402
from quantize.command import main as quantize  # noqa: E402
from tools.demo_model.generator import samples  # noqa: E402
from tools.write_quantization_docs import RESULT, write  # noqa: E402

CHECKPOINT = ROOT / "cogvlm2_lite" / "demo" / "checkpoint"
PLAIN = "NF4, 8-bit scales"
FP4 = "FP4, as released"
CALIBRATED = "NF4, calibrated"
QUESTIONS = 6
"""Per picture."""

OPTIONS = {
    PLAIN: [],
    "NF4, 32-bit scales": ["--no-double-quant"],
    "NF4, lm_head too": ["--lm-head", "nf4"],
    "NF4, lm_head int8": ["--lm-head", "int8"],
    "int8": ["--keep", "*=int8"],
    "NF4, vision tower int8": ["--keep", "vision-tower=int8"],
    "NF4, projector int8": ["--keep", "projector=int8"],
    "NF4, vision experts int8": ["--keep", "vision-expert=int8"],
    "NF4, language experts int8": ["--keep", "language-expert=int8"],
}
"""Name -> additional options of `quantize`."""


def main() -> None:
    """Make the folders, measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=100, help="pictures per seed")
    parser.add_argument("--seeds", default="11,12,13")
    parser.add_argument("--samples", type=int, default=288, help="samples of a calibration")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        report = measure(make_all(Path(folder), options.samples), seeds, options.pictures)
    report["samples"] = options.samples
    report["machine"] = describe_machine()
    RESULT.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write()


def make_all(folder: Path, count: int) -> dict[str, Path]:
    """Make a folder of every format; calibrate with so many samples."""
    made = {}
    count_words = ["--samples", str(count), "--budget", "+0%"]
    alike = ["--calibrate", str(write_samples(folder / "samples", count)), *count_words]
    drawn = ["--calibrate", "built-in", *count_words]
    calibrated = {
        CALIBRATED: [*alike, "--device", "cpu"],
        "NF4, calibrated, projector int8": [*alike, "--device", "cpu", "--keep", "projector=int8"],
        "NF4, calibrated, built-in set": [*drawn, "--device", "cpu"],
    }
    for number, (name, words) in enumerate((OPTIONS | calibrated).items()):
        made[name] = folder / str(number)
        given = [str(CHECKPOINT), str(made[name]), "--json", "--calibrate", "none", *words]
        if quantize(given) != 0:
            sys.exit(f"quantize failed for {name}")
    made[FP4] = write_fp4(CHECKPOINT, folder / "fp4")
    return made


def write_samples(folder: Path, count: int) -> Path:
    """Write samples like the test questions, from the split used for training, as JSON lines."""
    folder.mkdir()
    lines = []
    for number, drawn in enumerate(samples("train", 5, QUESTIONS)):
        drawn.image.save(folder / f"{number}.png")
        for talk in drawn.conversations:
            if talk.history:
                continue  # the file format has no earlier turns
            picture = {"image": f"{number}.png"} if talk.sees_picture else {}
            answer = talk.answer.strip()
            lines.append(json.dumps({**picture, "question": talk.question, "answer": answer}))
        if len(lines) >= count:
            break
    file = folder / "samples.jsonl"
    file.write_text("\n".join(lines[:count]) + "\n", encoding="utf-8")
    return file


def measure(made: dict[str, Path], seeds: list[int], pictures: int) -> dict[str, Any]:
    """Compare every folder with the original: over all seeds, and the ratio for each seed."""
    config, found = read_config(CHECKPOINT), dict[str, list[TokenComparison]]()
    for seed in seeds:
        reference = open_float32(CHECKPOINT)
        asked = prepare(questions(seed, pictures), reference.engine.tokenizer, config)
        with Reference(asked, config) as kept:
            run(kept.fill(reference))
            for name, folder in made.items():
                found.setdefault(name, []).append(run(kept.compare(open_float32(folder))))
    plain, fp4 = joined(found[PLAIN]), joined(found[FP4])
    rows = {}
    for name, parts in found.items():
        whole = joined(parts)
        weight = weigh(Catalog.open(made[name], read_config(made[name])))
        rows[name] = {
            "bytes": weight.nbytes,
            "bits_per_weight": weight.bits_per_weight,
            "against_plain": ratio(whole.kl, plain.kl, plain.picture).as_dict(),
            "against_fp4": ratio(whole.kl, fp4.kl, fp4.picture).as_dict(),
            "against_plain_by_seed": [
                ratio(mine.kl, theirs.kl, mine.picture).as_dict()
                for mine, theirs in zip(parts, found[PLAIN], strict=True)
            ],
            **summarise(whole).as_dict(),
        }
    return {"seeds": seeds, "pictures_per_seed": pictures, "plain": PLAIN, "formats": rows}


def questions(seed: int, pictures: int) -> list[Sample]:
    """Return held-out questions; those about one picture follow each other."""
    return [
        Sample(
            image=drawn.image if talk.sees_picture else None,
            question=talk.question,
            answer=talk.answer.strip(),
            history=tuple(talk.history),
        )
        for drawn in islice(samples("held-out", seed, QUESTIONS), pictures)
        for talk in drawn.conversations
    ]


def joined(parts: list[TokenComparison]) -> TokenComparison:
    """Join the tokens of several seeds, with distinct numbers of answers and pictures."""
    columns: dict[str, list[Any]] = {}
    answers = pictures = 0
    for part in parts:
        for name, values in vars(part).items():
            shift = {"answer": answers, "picture": pictures}.get(name)
            columns.setdefault(name, []).append(values if shift is None else values + shift)
        answers += int(part.answer.max()) + 1
        pictures += int(part.picture.max()) + 1
    return TokenComparison(**{name: np.concatenate(values) for name, values in columns.items()})


def open_float32(folder: Path) -> Model:
    """Open a folder on the CPU."""
    budget = DeviceBudget(device="cpu", in_ram=True, device_bytes=4 * GIB)
    return open_model(folder, compute=choose_compute("cpu", "float32"), budgets=[budget])


if __name__ == "__main__":
    main()
