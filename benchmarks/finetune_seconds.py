"""Compare the time of a training step's phases with its operations.

    python -m benchmarks.finetune_seconds [--repeats 3]

The released model's widths with random NF4 weights, one block of the vision tower and two of the
decoder, on the CPU in bfloat16, one thread, CPU time. Operations are those that `finetune --plan`
counts. Each phase is measured in turn with a large product of torch in the same number type; the
share is the speed of the phase divided by the speed of that product. Medians are written to
benchmarks/results/finetune_seconds.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.finetune_memory import Case  # noqa: E402
from benchmarks.machine import describe_machine  # noqa: E402
from cogvlm2_lite.architectures.architecture import ModelConfig, Phase  # noqa: E402
from cogvlm2_lite.bench.synthetic import (  # noqa: E402
    NoiseReader,
    released_config,
    synthetic_catalog,
)
from cogvlm2_lite.finetune.expect import RunSize, expect, plan_training, training_of  # noqa: E402
from cogvlm2_lite.finetune.learn import new_pairs  # noqa: E402
from cogvlm2_lite.finetune.network import LearningNetwork, weight_sizes  # noqa: E402
from cogvlm2_lite.finetune.samples import TrainingSample  # noqa: E402
from cogvlm2_lite.forecast.rates import Cpu  # noqa: E402
from cogvlm2_lite.memory.plan import DeviceBudget  # noqa: E402
from cogvlm2_lite.memory.work import decoder_flops, encode_flops, expert_weights  # noqa: E402
from cogvlm2_lite.model.rotary import RopeMode  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "finetune_seconds.json"
CASES = (
    Case(preset="words", rank=16, talks=(1,), tokens=100),
    Case(preset="words", rank=16, talks=(10,), tokens=100),
    Case(preset="both", rank=16, talks=(1,), tokens=93),
)
_BUDGET = DeviceBudget(device="cpu", in_ram=True, device_bytes=1 << 40)
_PRODUCT = (2048, 4096, 14336)

Result = TypeVar("Result")


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """Return the result of some work, and its CPU seconds."""
    began = time.process_time()
    result = work()
    return result, time.process_time() - began


def product_speed() -> float:
    """Return operations per second of a large product in bfloat16."""
    rows, columns, out = _PRODUCT
    x, w = torch.randn(rows, columns).bfloat16(), torch.randn(out, columns).bfloat16()
    torch.nn.functional.linear(x, w)
    seconds = [timed(lambda: torch.nn.functional.linear(x, w))[1] for _ in range(5)]
    return 2 * rows * columns * out / statistics.median(seconds)


def operations(config: ModelConfig, case: Case) -> dict[str, float]:
    """Return the operations of each phase of a step whose pictures are new."""
    training = training_of(config, case.settings, case.sizes(), pictures=len(case.talks))
    sizes = weight_sizes(synthetic_catalog(config), torch.bfloat16)
    run = RunSize(learnt=tuple(case.sizes()), held_out=(), epochs=1, steps=1)
    plan = plan_training(config, sizes, _BUDGET, training, itemsize=2)
    rates = Cpu(cores=1, has_bf16=True, has_avx512=True).rates
    found = expect(config, plan, training, run, rates, itemsize=2, stored=sizes)
    pictures, prefix = len(case.talks), 1 + config.vision.image_tokens
    flops = {"encode": float(pictures * encode_flops(config))}
    if training.prefix:
        prefill = decoder_flops(config, tokens=prefix, keys=prefix // 2, scored=0)
        # Of the last block only keys and values are computed. The forecast ignores it: one of 32.
        unwanted = expert_weights(config) - config.hidden_size * config.qkv_rows
        unwanted += 2 * config.hidden_size * (prefix // 2)  # attention
        flops["prefill"] = float(pictures * (prefill - 2 * prefix * unwanted))
    flops["learn"] = found.phases[Phase.LEARN].flops
    return flops


def measure(case: Case, repeats: int) -> dict[str, Any]:
    """Return operations, seconds and shares of each phase."""
    config, settings = released_config(1, 2), case.settings
    catalog = synthetic_catalog(config)
    training = training_of(config, settings, case.sizes(), pictures=len(case.talks))
    sizes = weight_sizes(catalog, torch.bfloat16)
    network = LearningNetwork(
        catalog,
        new_pairs(settings.matrices(config), settings.rank, settings.seed),
        scale=2.0,
        acts_on=settings.acts_on,
        dtype=torch.bfloat16,
        rope=RopeMode.REFERENCE,
        plan=plan_training(config, sizes, _BUDGET, training, itemsize=2),
        training=training,
        reader=NoiseReader(keep=False),
    )
    samples = case.samples(config)
    network.accumulate(samples)  # loads the weights
    flops, seconds = operations(config, case), dict[str, list[float]]()
    speeds: list[float] = []
    for repeat in range(repeats):
        speeds.append(product_speed())
        fresh = [_with_new_picture(sample, repeat) for sample in samples]
        for phase, spent in _phases(network, fresh).items():
            seconds.setdefault(phase, []).append(spent)
    speed = statistics.median(speeds)
    phases = {}
    for phase, count in flops.items():
        spent = statistics.median(seconds[phase])
        phases[phase] = {
            "gflop": count / 1e9,
            "seconds": spent,
            "share": count / spent / speed,
        }
    return {
        "preset": case.preset,
        "rank": case.rank,
        "talks": case.talks,
        "tokens": case.tokens,
        "product_gflop_per_s": speed / 1e9,
        "phases": phases,
    }


def _with_new_picture(sample: TrainingSample, repeat: int) -> TrainingSample:
    assert sample.picture is not None
    return replace(sample, picture=replace(sample.picture, key=f"{sample.picture.key} {repeat}"))


def _phases(network: LearningNetwork, samples: list[TrainingSample]) -> dict[str, float]:
    """Return the CPU seconds of the phases of one step."""
    passes, spent = network._passes, dict[str, float]()
    for name, phase in (("_encode", "encode"), ("_prefill", "prefill")):
        original = getattr(passes, name)

        def measured(*args: Any, run: Callable[..., Any] = original, phase: str = phase) -> Any:
            result, seconds = timed(lambda: run(*args))
            spent[phase] = spent.get(phase, 0.0) + seconds
            return result

        setattr(passes, name, measured)
    try:
        _, whole = timed(lambda: network.accumulate(samples))
    finally:
        del passes._encode, passes._prefill
    return {**spent, "learn": whole - sum(spent.values())}


def main() -> int:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    report = {
        "machine": describe_machine(),
        "load_average": os.getloadavg()[0],
        "repeats": repeats,
        "cases": [measure(case, repeats) for case in CASES],
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report["cases"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
