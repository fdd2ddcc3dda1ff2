"""Compare the time of a new picture with that of an older commit.

    git worktree add /tmp/before COMMIT
    (cd /tmp/before && python -c "from setuptools import setup; setup()" build_ext --inplace)
    python -m benchmarks.new_picture --before /tmp/before [--pairs 5] [--threads 2]

Each tree has a process with its own engine and a model of the 19B shapes in NF4 with two vision and
two decoder layers. The processes take turns: each encodes one picture of 1344 x 1344 and computes
the prompt (2,306 tokens of the picture and a short question). The second layer of each kind is the
time of a layer, with attention and norms; a prompt has both experts. The rest, which includes the
patch embedding, the projector and lm_head, counts once. The sum is scaled to 63 vision and 32
decoder layers. The ratio is the median of the pairs' ratios. Writes
benchmarks/results/new_picture.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "new_picture.json"
VISION_LAYERS, DECODER_LAYERS = 63, 32
MEASURED_LAYERS = 2
QUESTION = "Describe this picture. " * 4
KINDS = ("cpu_s", "clock_s")
Times = dict[str, dict[str, float]]


class Tree:
    """A process that runs the code of one tree."""

    def __init__(self, folder: Path, threads: int) -> None:
        environment = os.environ | {
            "PYTHONPATH": str(folder),
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--answer"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.measure()  # loads the weights

    def measure(self) -> Times:
        """Return the time of each part of one answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the process of {self.folder} ended; its error is above")
        found: Times = json.loads(line)
        return found

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def commit(self) -> str:
        """Return the commit of the tree, shortened."""
        command = ["git", "-C", str(self.folder), "rev-parse", "--short=10", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def answer_each_line() -> None:
    """Answer about a picture for each line of the input; write the times as a line of JSON."""
    import numpy as np
    import torch
    from PIL import Image

    import cogvlm2_lite
    from cogvlm2_lite.bench.synthetic import NoiseReader, released_config, synthetic_catalog
    from cogvlm2_lite.demo.shipped import checkpoint_folder
    from cogvlm2_lite.devices import Compute
    from cogvlm2_lite.engine.model import open_model
    from cogvlm2_lite.events import Finished, ImageEncoded, Prefilled, Progress
    from cogvlm2_lite.memory.plan import DeviceBudget
    from cogvlm2_lite.sampling import Sampling

    assert Path(cogvlm2_lite.__file__).is_relative_to(Path.cwd()), "another tree was imported"
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    catalog = synthetic_catalog(released_config(MEASURED_LAYERS, MEASURED_LAYERS))
    model = open_model(
        checkpoint_folder(),  # for its tokenizer
        compute=Compute(device=torch.device("cpu"), dtype=torch.bfloat16, reason=""),
        budgets=[DeviceBudget(device="cpu", device_bytes=14 << 30, in_ram=True)],
        weights=(catalog, NoiseReader(keep=True)),
    )
    for number, _ in enumerate(sys.stdin):  # the engine would remember a picture
        pixels = np.random.default_rng(number).integers(0, 256, (1344, 1344, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels)
        marks: dict[str, list[tuple[float, float]]] = {"encode": [], "prefill": [], "whole": []}
        marks["whole"].append((time.process_time(), time.perf_counter()))
        once = Sampling(max_new_tokens=1, repetition_guard=False)
        for event in model.answer(QUESTION, picture, sampling=once):
            now = time.process_time(), time.perf_counter()
            if isinstance(event, Progress) and event.phase in marks:
                marks[event.phase].append(now)
            elif isinstance(event, (ImageEncoded, Prefilled, Finished)):
                marks["whole"].append(now)
        print(json.dumps(_parts(marks)), flush=True)


def _parts(marks: dict[str, list[tuple[float, float]]]) -> Times:
    """Return the time of a layer of each kind and of the rest, from the ends of the layers."""
    began, encoded, prefilled = marks["whole"][:3]
    found: Times = {}
    for number, kind in enumerate(KINDS):
        layers = {
            "vision_layer": _step(marks["encode"], number),
            "decoder_layer": _step(marks["prefill"], number),
        }
        encode, prefill = encoded[number] - began[number], prefilled[number] - encoded[number]
        rest_encode = encode - MEASURED_LAYERS * layers["vision_layer"]
        rest_prefill = prefill - MEASURED_LAYERS * layers["decoder_layer"]
        all_encode = VISION_LAYERS * layers["vision_layer"] + rest_encode
        all_prefill = DECODER_LAYERS * layers["decoder_layer"] + rest_prefill
        found[kind] = layers | {
            "rest_of_encode": rest_encode,
            "rest_of_prefill": rest_prefill,
            "encode": all_encode,
            "prefill": all_prefill,
            "picture": all_encode + all_prefill,
        }
    return found


def _step(ends: Sequence[tuple[float, float]], number: int) -> float:
    """Return the time of the second layer, summed over the parts of a prompt."""
    parts = [ends[i : i + MEASURED_LAYERS] for i in range(0, len(ends), MEASURED_LAYERS)]
    return sum(part[1][number] - part[0][number] for part in parts)


def compare(before: Tree, after: Tree, pairs: int) -> dict[str, Any]:
    """Return medians of both, and of the ratios of pairs."""
    found = []
    for number in range(pairs):
        in_order = (before, after) if number % 2 == 0 else (after, before)
        measured = {tree: tree.measure() for tree in in_order}
        found.append((measured[before], measured[after]))
        ratio = found[-1][1]["cpu_s"]["picture"] / found[-1][0]["cpu_s"]["picture"]
        print(f"pair {number + 1}: CPU time {ratio:.3f} of before", flush=True)
    report: dict[str, Any] = {}
    for kind in KINDS:
        report[kind] = {}
        for part in found[0][0][kind]:
            old, new = ([pair[side][kind][part] for pair in found] for side in (0, 1))
            ratios = [b / a for a, b in zip(old, new, strict=True)]
            report[kind][part] = {
                "before": statistics.median(old),
                "after": statistics.median(new),
                "ratio": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
            }
    return report


def main() -> None:
    """Measure and write the result."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, metavar="TREE", help="with its own extension built")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        answer_each_line()
        return
    if options.before is None:
        parser.error("--before is missing: the tree of an older commit")
    from benchmarks.machine import describe_machine

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    before, after = (Tree(f, options.threads) for f in (options.before.resolve(), ROOT))
    report = compare(before, after, options.pairs)
    for tree in (before, after):
        tree.close()
    report |= {
        "machine": describe_machine(),
        "pairs": options.pairs,
        "threads": options.threads,
        "load": load,
        "commits": {"before": before.commit(), "after": after.commit()},
        "layers": {"vision": VISION_LAYERS, "decoder": DECODER_LAYERS},
    }
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
