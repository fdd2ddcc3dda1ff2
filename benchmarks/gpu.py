"""Run the 19B shapes with random weights under several limits (caps) of video memory.

    python -m benchmarks.gpu --device cuda --caps 24,16,12,8,6
    python -m benchmarks.gpu --device cpu --layers 1 --caps 2.2,1.4 --tokens 4    (a rehearsal)

benchmarks/gpu.sh runs it. Every cap is measured in its own process. On a GPU the cap is set twice:
as the memory limit of the process (set_per_process_memory_fraction) and as the budget of the plan.
On a CPU only the arena enforces it. Writes benchmarks/results/gpu.json; a rehearsal writes
gpu_rehearsal.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import describe_machine  # noqa: E402
from cogvlm2_lite.bench.measure import (  # noqa: E402
    QUESTION,
    BenchedModel,
    BenchResult,
    measure,
    synthetic_subject,
)
from cogvlm2_lite.bench.report import as_dict, as_text  # noqa: E402
from cogvlm2_lite.devices import Compute, choose_compute  # noqa: E402
from cogvlm2_lite.engine.model import Model, open_model  # noqa: E402
from cogvlm2_lite.engine.replan import OUT_OF_MEMORY  # noqa: E402
from cogvlm2_lite.errors import DoesNotFitError  # noqa: E402
from cogvlm2_lite.events import Event, Finished, Prefilled, Replanned  # noqa: E402
from cogvlm2_lite.memory.arena import Arena, OutOfBudgetError  # noqa: E402
from cogvlm2_lite.memory.plan import RESERVE_BYTES, DeviceBudget  # noqa: E402
from cogvlm2_lite.sampling import Sampling  # noqa: E402
from cogvlm2_lite.units import GIB, MIB  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
HOST_BYTES = 14 * GIB
"""RAM that the script needs, for the weights that do not fit on the card."""


def main() -> int:
    """Run all caps, each in its own process, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--caps", default="24,16,12,8,6", help="GiB, largest first")
    parser.add_argument("--layers", type=int, help="layers of each kind; default: all")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--one", type=float, help="measure one cap and print its JSON")
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measure_cap(options)))
        return 0
    caps = [_in_process(options, float(cap)) for cap in options.caps.split(",")]
    runs = [cap for cap in caps if cap is not None]
    verdict = compare_caps(runs)
    report = {"machine": describe_machine(), "runs": runs, "verdict": verdict}
    name = "gpu.json" if options.device.startswith("cuda") else "gpu_rehearsal.json"
    (RESULTS / name).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(verdict, indent=1))
    return 0 if verdict["equal_to_the_bit"] and verdict["recovered"] else 1


def _in_process(options: argparse.Namespace, cap: float) -> dict[str, Any] | None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", options.device]
    command += ["--tokens", str(options.tokens), "--one", str(cap)]
    command += [] if options.layers is None else ["--layers", str(options.layers)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        print(f"{cap} GiB: exit {done.returncode}", file=sys.stderr)
        return None
    run: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return run


def compare_caps(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how every cap compares with the largest one."""
    if not runs:
        return {"equal_to_the_bit": False, "recovered": False}
    first = runs[0]
    return {
        "equal_to_the_bit": len({h for r in runs for h in (r["scores"], r["recovered_scores"])})
        == 1,
        "recovered": all(
            run["recovery"]["replanned"] > 0 and run["recovery"]["same_answer"] for run in runs
        ),
        "decode_over_first": {r["cap_gib"]: _seconds(first, 2) / _seconds(r, 2) for r in runs},
        "encode_time_over_first": {r["cap_gib"]: _seconds(r, 0) / _seconds(first, 0) for r in runs},
        "peak_over_plan": {
            run["cap_gib"]: [p["measured_bytes"] / p["planned_bytes"] for p in _phases(run)]
            for run in runs
        },
    }


def _phases(run: dict[str, Any]) -> list[dict[str, Any]]:
    phases: list[dict[str, Any]] = run["bench"]["phases"]
    return phases


def _seconds(run: dict[str, Any], phase: int) -> float:
    return float(_phases(run)[phase]["seconds"])


def measure_cap(options: argparse.Namespace) -> dict[str, Any]:
    """Measure one cap: speed, peaks, the bits of the logits, and recovery from out of memory."""
    compute = choose_compute(options.device, "auto")
    cap = int(options.one * GIB)
    spare = 0
    if compute.device.type == "cuda":
        total = torch.cuda.get_device_properties(compute.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, cap / total), compute.device)
        spare = RESERVE_BYTES
    budget = DeviceBudget(
        device=str(compute.device), device_bytes=cap - spare, host_bytes=HOST_BYTES
    )
    subject = synthetic_subject(options.layers, keep=True)
    result = None
    for event in measure(subject, compute, budget, tokens=options.tokens, rounds=2):
        result = event
    assert isinstance(result, BenchResult)
    print(as_text(result), file=sys.stderr)
    _forget()
    other_program = (
        OtherProgram(cap) if compute.device.type == "cpu" else GpuProgram(compute.device)
    )
    model = open_again(subject, compute, budget, other_program.arena)
    logits = hash_logits(model)
    undisturbed = answer(model, options.tokens)
    recovery = run_out_of_memory(model, other_program, options.tokens)
    return {
        "cap_gib": options.one,
        "bench": as_dict(result),
        "scores": logits,
        "recovery": recovery | {"same_answer": recovery.pop("text") == undisturbed},
        "recovered_scores": hash_logits(model),
    }


def _forget() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def open_again(
    subject: BenchedModel, compute: Compute, budget: DeviceBudget, arena: Arena
) -> Model:
    """Open the same weights again."""
    weights = (subject.catalog, subject.reader)
    return open_model(
        subject.folder, compute=compute, budgets=[budget], weights=weights, arenas=[arena]
    )


def hash_logits(model: Model) -> str:
    """Return a hash of the logits of a short prompt with a picture."""
    vision = model.config.vision
    generator = torch.Generator().manual_seed(5)
    size = (1, vision.in_channels, vision.image_size, vision.image_size)
    features = model.encode_image(torch.randn(size, generator=generator))
    types = torch.tensor([[0] + [1] * vision.image_tokens + [0] * 3])
    ids = torch.where(types == 1, model.config.pad_token_id, 17)
    cache = model.runtime.new_cache()
    cache.release()
    logits = last_logits(model, ids, types, features)
    return hashlib.sha256(logits.float().cpu().numpy().tobytes()).hexdigest()


def last_logits(
    model: Model, ids: torch.Tensor, types: torch.Tensor, features: torch.Tensor
) -> torch.Tensor:
    """Return the logits of the last position; those of all positions would take a GiB."""
    from cogvlm2_lite.engine.runtime import run
    from cogvlm2_lite.events import Cancel

    chunk = model._chunk(ids, types, None, None)
    cache = model.runtime.new_cache()
    try:
        hidden = run(model.runtime.prefill(chunk, features, cache, Cancel()))
        return model.runtime.compute_logits(hidden[:, -1:])
    finally:
        cache.release()


def ask(model: Model, tokens: int) -> Iterator[Event]:
    """Ask about a picture that is not cached."""
    model.engine.pictures.clear()
    for slot in model.engine.slots:
        slot.clear()
    pixels = np.random.default_rng(9).integers(0, 256, (1344, 1344, 3), dtype=np.uint8)
    sampling = Sampling(max_new_tokens=tokens, repetition_guard=False)
    return model.answer(QUESTION, Image.fromarray(pixels), sampling=sampling)


def answer(model: Model, tokens: int) -> str:
    """Return the answer when memory does not run out."""
    *_, last = ask(model, tokens)
    assert isinstance(last, Finished)
    return last.text


class OtherProgram:
    """Another program that uses the same memory, simulated for the rehearsal.

    arena  of the model; rejects what the other program holds, whatever the model's budget says
    """

    def __init__(self, total_bytes: int) -> None:
        other_program = self

        class Shared(Arena):
            def take(self, nbytes: int) -> None:
                if nbytes > 0 and self.held_bytes + nbytes > total_bytes - other_program.held_bytes:
                    raise OutOfBudgetError("another program uses it")
                super().take(nbytes)

        self.arena: Arena = Shared()
        self._total_bytes = total_bytes
        self.held_bytes = 0

    def take_all(self) -> None:
        """Take all memory that is free now."""
        self.held_bytes = self._total_bytes - self.arena.held_bytes

    def leave(self) -> None:
        """Release everything."""
        self.held_bytes = 0


class GpuProgram(OtherProgram):
    """The same on a GPU: the memory is really allocated, in this process and under its cap.

    arena  of the model, an ordinary one
    """

    def __init__(self, device: torch.device) -> None:
        self.arena = Arena()
        self._device = device
        self._pieces: list[torch.Tensor] = []
        self.held_bytes = 0

    def take_all(self) -> None:
        """Take all memory that is free now, including gaps between small tensors."""
        torch.cuda.empty_cache()
        for size in (GIB, 64 * MIB, 4 * MIB, MIB // 4, 16 * 1024, 512):
            while True:
                try:
                    piece = torch.empty(size, dtype=torch.uint8, device=self._device)
                except torch.OutOfMemoryError:
                    break
                self._pieces.append(piece)
        self.held_bytes = sum(piece.nbytes for piece in self._pieces)

    def leave(self) -> None:
        """Release everything."""
        self._pieces.clear()
        self.held_bytes = 0
        torch.cuda.empty_cache()


def run_out_of_memory(model: Model, other_program: OtherProgram, tokens: int) -> dict[str, Any]:
    """Let another program take all free memory during an answer.

    It does so before the first token is produced. Not even the scratch of a step is left, so a new
    plan must be made. Returns how many were made, and the answer.
    """
    budgets = [model.plan.devices[0].budget.device_bytes]
    held, text, failed = 0, "", ""
    try:
        for event in ask(model, tokens):
            if isinstance(event, Prefilled):
                other_program.take_all()
                held = other_program.held_bytes
            if isinstance(event, Replanned):
                budgets += event.budget_bytes
            if isinstance(event, Finished):
                text = event.text
    except (DoesNotFitError, *OUT_OF_MEMORY) as error:  # no recovery; the verdict reports it
        failed = str(error)
    finally:
        other_program.leave()
    return {
        "neighbour_bytes": held,
        "budget_bytes": budgets,
        "replanned": len(budgets) - 1,
        "failed": failed,
        "text": text,
    }


if __name__ == "__main__":
    sys.exit(main())
