"""Compare the time per token on a CPU with streamed and with resident weights.

    python -m benchmarks.streamed_decode [--repeats 5]

Four decoder layers of the real shapes, random NF4 weights that are already in memory, like a file
in the system's file cache. One thread, CPU time. With our C kernel, and with bitsandbytes' kernel,
which needs a packed copy of each matrix whenever it is loaded. Writes
benchmarks/results/streamed_decode.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import describe_machine  # noqa: E402
from benchmarks.synthetic_decoder import synthetic_decoder  # noqa: E402
from cogvlm2_lite.architectures.architecture import Part, Phase  # noqa: E402
from cogvlm2_lite.engine.runtime import Runtime  # noqa: E402
from cogvlm2_lite.errors import DoesNotFitError  # noqa: E402
from cogvlm2_lite.memory.plan import MemoryPlan, Workload  # noqa: E402
from cogvlm2_lite.units import GIB, MIB  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "streamed_decode.json"
LAYERS = 4
CONTEXT = 256


def main() -> int:
    """Measure both kernels and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "load_average": os.getloadavg()[0],
        "layers": LAYERS,
        "repeats": repeats,
        "kernels": {name: measure(name, repeats) for name in ("gemv", "packed")},
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report["kernels"], indent=1))
    return 0


def measure(name: str, repeats: int) -> dict[str, Any]:
    """Return times with everything resident, and with the smallest budget, which streams most."""
    workload = Workload(context=CONTEXT, with_picture=False)
    runtime, plan = synthetic_decoder(LAYERS, workload, nbytes=8 * GIB, kernels=name)
    resident, expected = seconds_per_token(runtime, repeats)
    runtime.follow(smallest(plan))
    streamed, found = seconds_per_token(runtime, repeats)
    (device,) = runtime.plan.devices
    units = device.phase(Phase.DECODE).streamed
    return {
        "resident_ms": 1000 * resident,
        "streamed_ms": 1000 * streamed,
        "streamed_bytes": sum(unit.nbytes for unit in units),
        "streamed_layers": sum(unit.part is Part.LANGUAGE_EXPERT for unit in units),
        "equal_to_the_bit": torch.equal(expected, found),
    }


def smallest(plan: Callable[[int], MemoryPlan]) -> MemoryPlan:
    """Return the plan of the smallest budget with two buffers, which streams everything else."""
    for nbytes in range(64 * MIB, 8 * GIB, 16 * MIB):
        try:
            found = plan(nbytes)
        except DoesNotFitError:
            continue
        if found.devices[0].phase(Phase.DECODE).depth == 2:
            return found
    raise AssertionError("some budget streams through two buffers")


def seconds_per_token(runtime: Runtime, repeats: int) -> tuple[float, torch.Tensor]:
    """Decode a few tokens; return the median CPU time of one (all threads) and the last logits."""
    cache = runtime.new_cache()
    times = []
    for position in range(repeats + 1):
        began = time.process_time()
        scores = runtime.decode_one_token(17 + position, position, cache)
        times.append(time.process_time() - began)
    cache.release()
    return statistics.median(times[1:]), scores


if __name__ == "__main__":
    sys.exit(main())
