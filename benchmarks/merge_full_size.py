"""Measure the memory and speed of `merge` on matrices of the released size.

    python -m benchmarks.merge_full_size SCRATCH

Writes a synthetic checkpoint of two vision and two decoder layers (3.9 GB), its NF4 form and an
adapter of rank 64 for all linear layers, and merges it in four ways. Needs 14 GB in SCRATCH, which
is left there; the results go to benchmarks/results/merge_full_size.json. A process takes the same
memory for 32 layers: it holds a few runs of rows at a time. Only the adapter's file grows, whose
pages are mapped and can be dropped.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import describe_machine  # noqa: E402
from benchmarks.quantize_full_size import measure  # noqa: E402
from benchmarks.synthetic_19b import released_config, write_checkpoint  # noqa: E402
from cogvlm2_lite.config import read_config  # noqa: E402
from cogvlm2_lite.finetune.settings import TrainingSettings  # noqa: E402
from cogvlm2_lite.weights.adapter import peft_name, write_adapter  # noqa: E402
from quantize.command import main as quantize  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "merge_full_size.json"
RANK = 64
WAYS: dict[str, list[str]] = {
    "NF4 to NF4": ["merge", "nf4", "adapter", "out"],
    "NF4 to 16 bits": ["merge", "nf4", "adapter", "out", "--to", "bf16"],
    "16 bits to 16 bits": ["merge", "source", "adapter", "out"],
    "16 bits to NF4": ["quantize", "source", "out", "--adapter", "adapter", "--calibrate", "none"],
}


def main() -> None:
    """Make what is missing, merge, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--threads", type=int, default=8)
    options = parser.parse_args()
    scratch: Path = options.scratch
    if not (scratch / "source").exists():
        write_checkpoint(scratch / "source", released_config(2, 2), seed=2)
    if not (scratch / "nf4").exists():
        quantize([str(scratch / "source"), str(scratch / "nf4"), "--calibrate", "none"])
    write_adapter_for(scratch)
    found: dict[str, Any] = {
        "machine": describe_machine(),
        "threads": options.threads,
        "rank": RANK,
        "adapter_bytes": sum(f.stat().st_size for f in (scratch / "adapter").glob("*.safetensors")),
        "runs": {},
    }
    for way, words in WAYS.items():
        shutil.rmtree(scratch / "out", ignore_errors=True)
        found["runs"][way] = run(scratch, words, options.threads)
        print(way, json.dumps(found["runs"][way]), flush=True)
    RESULT.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def write_adapter_for(scratch: Path) -> None:
    """Write an adapter with small random numbers for all linear layers."""
    generator = torch.Generator().manual_seed(4)
    matrices = TrainingSettings(preset="tower").matrices(read_config(scratch / "source"))
    tensors = {}
    for name, (rows, columns) in matrices.items():
        for side, shape in (("A", (RANK, columns)), ("B", (rows, RANK))):
            tensors[peft_name(name, side)] = torch.randn(shape, generator=generator) * 0.01
    write_adapter(scratch / "adapter", tensors, alpha=128, base_name="synthetic", facts={})


def run(scratch: Path, words: list[str], threads: int) -> dict[str, Any]:
    """Run one command in a process of its own and return what it took."""
    places = [str(scratch / w) if w in ("source", "nf4", "adapter", "out") else w for w in words]
    code = "import sys; from cogvlm2_lite.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *places, "--threads", str(threads), "--json"]
    measured = measure(command)
    assert measured.exit_code == 0, measured.events[-1:]
    (finished,) = (e for e in measured.events if e["event"] == "finished")
    return {
        "wall_s": round(measured.wall_s, 1),
        "cpu_s": round(measured.cpu_s, 1),
        "peak_rss_bytes": measured.max_rss_bytes,
        "peak_anonymous_bytes": measured.peak.get("RssAnon"),
        "result_bytes": finished["result_bytes"],
    }


if __name__ == "__main__":
    main()
