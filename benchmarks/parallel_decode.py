"""Measure the time per token of decoding several conversations at once on a CPU.

    python -m benchmarks.parallel_decode [--repeats 5]

All decoder layers and lm_head in the real shapes, random NF4 weights, everything resident. Each
conversation has its own cache, filled to the same length. Steps of 1, 2, 4 and 8 conversations
alternate; the results are medians. One thread, CPU time. Writes
benchmarks/results/parallel_decode.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import describe_machine  # noqa: E402
from benchmarks.synthetic_decoder import synthetic_decoder  # noqa: E402
from cogvlm2_lite.engine.runtime import Runtime, Token  # noqa: E402
from cogvlm2_lite.memory.plan import Workload  # noqa: E402
from cogvlm2_lite.model.kv_cache import KVCache  # noqa: E402
from cogvlm2_lite.units import GIB  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "parallel_decode.json"
AT_ONCE = (1, 2, 4, 8)
DECODER_LAYERS = 32
FILLED = 200
"""Tokens in every cache before the first step: a short question and a part of its answer."""


def main() -> int:
    """Measure steps of every width alternately and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    workload = Workload(context=2 * FILLED, with_picture=False, parallel=max(AT_ONCE))
    runtime, _ = synthetic_decoder(DECODER_LAYERS, workload, nbytes=16 * GIB)
    assert not any(runtime.plan.streamed_bytes().values())
    caches = [filled_cache(runtime) for _ in range(max(AT_ONCE))]
    seconds: dict[int, list[float]] = {n: [] for n in AT_ONCE}
    for repeat in range(repeats + 1):
        for n in AT_ONCE:
            took = step_seconds(runtime, caches[:n])
            if repeat:  # the first round is a warm-up
                seconds[n].append(took)
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "load_average": os.getloadavg()[0],
        "repeats": repeats,
        "context": FILLED,
        "widths": {
            n: {
                "step_ms": 1000 * statistics.median(times),
                "ms_per_token": 1000 * statistics.median(times) / n,
                "times_as_many_tokens": statistics.median(
                    n * one / each for one, each in zip(seconds[1], times, strict=True)
                ),
            }
            for n, times in seconds.items()
        },
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report["widths"], indent=1))
    return 0


def filled_cache(runtime: Runtime) -> KVCache:
    """Return a cache of FILLED tokens; their values make no difference to the time."""
    cache = runtime.new_cache()
    cache.reserve(FILLED)
    cache.advance(FILLED)
    return cache


def step_seconds(runtime: Runtime, caches: list[KVCache]) -> float:
    """Run one step for these conversations; return its CPU time and restore the caches."""
    tokens = [Token(token=17, position=FILLED, cache=cache) for cache in caches]
    began = time.process_time()
    runtime.decode_each(tokens)
    took = time.process_time() - began
    for cache in caches:
        cache.truncate(FILLED)
    return took


if __name__ == "__main__":
    sys.exit(main())
