"""Measure what the kinds of key/value cache change in the demo model's probabilities.

    python -m benchmarks.kv_kinds [--pictures 60] [--seed 7]

The KL divergence from the model with its full cache, per token of the true answers to held-out
questions (tools/demo_model/generator.py), in float32: with 8 bits, with 4 bits, and with 4 bits
without the rotation. Writes benchmarks/results/kv_kinds.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import describe_machine  # noqa: E402
from cogvlm2_lite.devices import choose_compute  # noqa: E402
from cogvlm2_lite.engine.model import Model, open_model  # noqa: E402
from cogvlm2_lite.engine.runtime import run  # noqa: E402
from cogvlm2_lite.evaluate.compare import compare  # noqa: E402
from cogvlm2_lite.kv_kind import KVKind  # noqa: E402
from cogvlm2_lite.memory.plan import DeviceBudget  # noqa: E402
from cogvlm2_lite.samples.samples import Sample  # noqa: E402
from cogvlm2_lite.units import GIB  # noqa: E402
from tools.demo_model.generator import samples  # noqa: E402

CHECKPOINT = ROOT / "cogvlm2_lite" / "demo" / "checkpoint"
RESULT = ROOT / "benchmarks" / "results" / "kv_kinds.json"
QUESTIONS = 6
"""Per picture."""
CASES = {
    "int8": (KVKind.INT8, True),
    "int4": (KVKind.INT4, True),
    "int4 without rotation": (KVKind.INT4, False),
}


def main() -> None:
    """Compare and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    asked = held_out_questions(options.pictures, options.seed)
    found: dict[str, Any] = {}
    for name, (kind, rotated) in CASES.items():
        found[name] = _compared(asked, kind, rotated=rotated)
        print(name, json.dumps(found[name]))
    found |= {"seed": options.seed, "machine": describe_machine()}
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def held_out_questions(pictures: int, seed: int) -> list[Sample]:
    """Return questions about pictures that the demo model was not trained on."""
    return [
        Sample(
            question=talk.question,
            answer=talk.answer.strip(),
            image=one.image if talk.sees_picture else None,
            history=talk.history,
        )
        for one in islice(samples("held-out", seed, QUESTIONS), pictures)
        for talk in one.conversations
    ]


def _compared(asked: list[Sample], kind: KVKind, *, rotated: bool) -> dict[str, Any]:
    kinds = iter((KVKind.FULL, kind))

    def opened(folder: Path) -> Model:
        budget = DeviceBudget(device="cpu", in_ram=True, device_bytes=4 * GIB)
        compute = choose_compute("cpu", "float32")
        return open_model(folder, compute=compute, budgets=[budget], kv=next(kinds))

    plain = patch("cogvlm2_lite.model.kv_cache.hadamard", lambda x: x)
    with nullcontext() if rotated else plain:
        summary = run(compare(CHECKPOINT, CHECKPOINT, asked, opened)).summary.as_dict()
    return {key: summary[key] for key in ("answers", "tokens", "kl_mean", "kl_p99", "top1")}


if __name__ == "__main__":
    main()
