"""Step "profile": which kernels run in decode steps, in the vision tower and in prefill."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from benchmarks.gpu.model import (
    Steps,
    load,
    open_random,
    without_graphs,
)
from benchmarks.gpu.work import Run
from cogvlm2_lite.engine.model import Model
from cogvlm2_lite.engine.runtime import run as run_steps
from cogvlm2_lite.events import Cancel

_STEPS = 3
_ROWS = 40


def measure(run: Run) -> None:
    """Profile the phases; the tables go into profile.txt, too."""
    model, _ = open_random(run)
    load(model)
    texts: list[str] = []
    _add(run, texts, "decode", lambda: _decode_rows(run, model), _STEPS)
    vision = model.config.vision
    pixels = torch.zeros((1, vision.in_channels, vision.image_size, vision.image_size))
    features = model.encode_image(pixels)
    layers = vision.num_hidden_layers
    _add(run, texts, "encode", lambda: profiled(run, lambda: model.encode_image(pixels)), layers)
    types = torch.tensor([[0] + [1] * vision.image_tokens + [0] * 3])
    ids = torch.where(types == 1, model.config.pad_token_id, 17)
    chunk = model._chunk(ids, types, None, None)

    def prefill() -> None:
        cache = model.runtime.new_cache()
        run_steps(model.runtime.prefill(chunk, features, cache, Cancel()))
        cache.release()

    prefill()
    layers = model.config.num_hidden_layers
    _add(run, texts, "prefill", lambda: profiled(run, prefill), layers)


def decode_kernels(run: Run, model: Model) -> dict[str, Any]:
    """Return the kernels of a decode step."""
    return _summary(_decode_rows(run, model), _STEPS)


def _decode_rows(run: Run, model: Model) -> list[dict[str, Any]]:
    """Return the kernels of some decode steps that are launched one by one."""
    steps = Steps(model, 40)
    with without_graphs(model):
        for _ in range(3):
            steps.step()
        rows = profiled(run, lambda: [steps.step() for _ in range(_STEPS)])
    steps.close()
    return rows


def _add(
    run: Run, texts: list[str], name: str, profile: Callable[[], list[dict[str, Any]]], parts: int
) -> None:
    """Add the table of a phase.

    parts  steps or layers in it; the table has the numbers of one
    """

    def found() -> dict[str, Any]:
        rows = profile()
        texts.append(as_text(name, rows, parts))
        (run.out / "profile.txt").write_text("\n".join(texts), encoding="utf-8")
        return _summary(rows, parts)

    run.attempt(name, found)


def _summary(rows: list[dict[str, Any]], parts: int) -> dict[str, Any]:
    return {
        "kernels": sum(row["calls"] for row in rows) / parts,
        "gpu_us": sum(row["us"] for row in rows) / parts,
        "parts": parts,
        "top": rows[:12],
    }


def profiled(run: Run, work: Callable[[], object]) -> list[dict[str, Any]]:
    """Return each kernel that ran, with its calls and microseconds; the longest first."""
    if run.machine is not None:
        return _emulated(run.machine, work)
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    return kernels_of(profiler.key_averages())


def kernels_of(events: Iterable[Any]) -> list[dict[str, Any]]:
    """Return the rows of the profiler's events that took time on the GPU."""
    rows = [
        {"kernel": event.key, "calls": event.count, "us": float(event.self_device_time_total)}
        for event in events
        if event.self_device_time_total > 0
    ]
    return sorted(rows, key=lambda row: -row["us"])


def _emulated(machine: Any, work: Callable[[], object]) -> list[dict[str, Any]]:
    """Return the operations of the emulated GPU, which have no time."""
    before = machine.launches.copy()
    work()
    counts = machine.launches - before
    return [{"kernel": name, "calls": n, "us": 0.0} for name, n in counts.most_common()]


def as_text(name: str, rows: list[dict[str, Any]], parts: int) -> str:
    """Return the table of a phase."""
    calls, us = (sum(row[key] for row in rows) / parts for key in ("calls", "us"))
    lines = [f"{name}: {calls:.0f} kernels, {us:.0f} us for each of {parts}"]
    lines += [
        f"{row['us'] / parts:10.1f} us {row['calls'] / parts:8.1f} calls  {row['kernel'][:110]}"
        for row in rows[:_ROWS]
    ]
    return "\n".join(lines) + "\n"
