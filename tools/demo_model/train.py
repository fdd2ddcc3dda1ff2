"""Train the demo model from a seed; the stages are in recipe.py.

Two worker processes of one thread each take half of every batch and share their numbers in
memory. An interrupted run continues from its last saved step and gives the same result.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch starts its threads
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from tokenizers import Tokenizer
from torch import Tensor, multiprocessing
from torch.multiprocessing.spawn import spawn

from tools.demo_model.batches import Encoder, make_batch, make_encoder
from tools.demo_model.evaluate import evaluate, summarise
from tools.demo_model.export import export
from tools.demo_model.network import Dims, Weights, first_weight, weight_shapes
from tools.demo_model.objectives import reader_shapes, total_loss
from tools.demo_model.optimizer import Store, cut_pieces, make_store, update
from tools.demo_model.recipe import SEED, STAGES, WORKERS, Stage
from tools.demo_model.tokenizer import build_tokenizer

SAVE_EVERY = 200
LOG_EVERY = 25
WATCH_SEED = 4000
WATCH_IMAGES = 192


class Barrier(Protocol):
    """What the workers meet at."""

    def wait(self) -> int:
        """Block until every worker is here."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every worker knows."""

    run: Path
    dims: Dims
    store: Store
    barrier: Barrier
    seed: int


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The stage and the step to begin with."""

    stage: int = 0
    step: int = 0


def main() -> None:
    """Train, or go on training, and export the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("build/demo_model"), help="work folder")
    parser.add_argument("--out", type=Path, default=None, help="checkpoint folder to write")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    options.run.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    tokenizer.save(str(options.run / "tokenizer.json"))
    dims = Dims()
    store = make_store(weight_shapes(dims) | reader_shapes(dims), WORKERS)
    progress = _restore(options.run, store) or _start(store, options.seed)
    context = multiprocessing.get_context("spawn")
    job = Job(run=options.run, dims=dims, store=store, barrier=context.Barrier(WORKERS),
              seed=options.seed)  # fmt: skip
    spawn(_work, (job, progress), nprocs=WORKERS)  # type: ignore[no-untyped-call]
    out = options.out or options.run / "checkpoint"
    export(store.views(store.masters), dims, tokenizer, out)
    print(f"wrote {out}")


def _start(store: Store, seed: int) -> Progress:
    """Fill in the first weights."""
    generator = torch.Generator().manual_seed(seed)
    for name, master in store.views(store.masters).items():
        master.copy_(first_weight(name, tuple(master.shape), generator))
    store.weights.copy_(store.masters)
    return Progress()


def _saved(run: Path) -> Path:
    return run / "state.pt"


def _restore(run: Path, store: Store) -> Progress | None:
    """Continue a saved run, if there is one."""
    if not _saved(run).exists():
        return None
    state = torch.load(_saved(run), weights_only=True)
    store.masters.copy_(state["masters"])
    store.moments.copy_(state["moments"])
    store.weights.copy_(store.masters)
    return Progress(stage=state["stage"], step=state["step"])


def _save(run: Path, store: Store, progress: Progress) -> None:
    state = {"masters": store.masters, "moments": store.moments, "stage": progress.stage,
             "step": progress.step}  # fmt: skip
    torch.save(state, _saved(run).with_suffix(".new"))
    _saved(run).with_suffix(".new").replace(_saved(run))


def _work(rank: int, job: Job, progress: Progress) -> None:
    """One worker: its half of the pictures, its half of the updates."""
    torch.set_num_threads(1)
    encoder = make_encoder(Tokenizer.from_file(str(job.run / "tokenizer.json")))
    weights = {
        name: view.detach().requires_grad_()
        for name, view in job.store.views(job.store.weights).items()
    }
    for number in range(progress.stage, len(STAGES)):
        first = progress.step if number == progress.stage else 0
        _run_stage(rank, job, weights, encoder, number, first)


def _run_stage(
    rank: int, job: Job, weights: Weights, encoder: Encoder, number: int, first: int
) -> None:
    """Train one stage from step `first`; the moments start at zero."""
    stage, store = STAGES[number], job.store
    if rank == 0 and first == 0:
        store.moments.zero_()
    job.barrier.wait()
    names = [name for name in store.shapes if stage.text_tokens or _sees(name)]
    trained = {name: weights[name] for name in names}
    pieces = [
        piece for piece in cut_pieces(store.shapes, WORKERS)
        if piece.owner == rank and _contains(store, names, piece.start)
    ]  # fmt: skip
    grads = store.views(store.grads[rank])
    began, cpu_began = time.time(), time.process_time()
    for step in range(first, stage.steps):
        seed = (job.seed + number) * 10_000_000 + step * WORKERS + rank
        batch = make_batch(
            "train", seed, stage.images, stage.text_tokens, job.dims, encoder,
            stage.shares, stage.focus,
        )  # fmt: skip
        loss, notes = total_loss(weights, job.dims, batch, encoder.bos, stage.balance)
        found = torch.autograd.grad(loss, list(trained.values()), materialize_grads=True)
        for name, grad in zip(trained, found, strict=True):
            grads[name].copy_(grad)
        job.barrier.wait()
        with torch.no_grad():
            update(store, pieces, stage.rates(step), step + 1)
        job.barrier.wait()
        if rank == 0:
            done = Progress(stage=number, step=step + 1)
            _report(job, stage, done, notes, (time.time() - began, time.process_time() - cpu_began))
            if done.step % SAVE_EVERY == 0 or done.step == stage.steps:
                _save(job.run, store, done)
                if stage.text_tokens:
                    _watch(job, weights, encoder, done.step)
        del loss, found


def _sees(name: str) -> bool:
    """Whether a tensor belongs to the path from pixels to image tokens, or reads labels off it."""
    return name.startswith(("model.vision.", "reader.")) and not name.endswith((".boi", ".eoi"))


def _contains(store: Store, names: list[str], start: int) -> bool:
    """Whether the number at `start` belongs to one of the named tensors."""
    at = 0
    for name, view in store.views(store.masters).items():
        at += view.numel()
        if start < at:
            return name in names
    return False


def _report(
    job: Job, stage: Stage, done: Progress, notes: dict[str, Tensor], spent: tuple[float, float]
) -> None:
    """Append a line of numbers to the log."""
    if done.step % LOG_EVERY:
        return
    line = {"stage": stage.name, "step": done.step, "wall_s": round(spent[0]),
            "cpu_s": round(spent[1])}  # fmt: skip
    _append(job.run, line | {name: round(float(value), 3) for name, value in notes.items()})


def _watch(job: Job, weights: Weights, encoder: Encoder, step: int) -> None:
    """Score a fixed held-out set; it is watched only, nothing is chosen by it."""
    scores = evaluate(weights, job.dims, encoder, WATCH_SEED, WATCH_IMAGES)
    table: dict[str, object] = {score.task: round(score.exact_match, 2) for score in scores}
    _append(job.run, {"step": step, "exact_match": round(summarise(scores).exact_match, 4)} | table)


def _append(run: Path, line: dict[str, object]) -> None:
    with (run / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(line, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
