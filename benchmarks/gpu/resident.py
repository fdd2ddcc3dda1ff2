"""Steps with the 19B shapes and as much resident as the card has room for.

resident   speed of the phases, with and without CUDA graphs, and the bits of several answers
questions  many questions one after another: the cost of CUDA graphs, and whether memory grows
settings   a short answer without the environment variables that imitate a consumer card
own        products and a short answer with our own CUDA kernels
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.gpu.model import (
    Steps,
    ask,
    describe_plan,
    load,
    long_text,
    open_random,
    picture,
    planned_bytes,
    resident_values,
    sizes,
    token_bytes,
    without_graphs,
)
from benchmarks.gpu.work import Run
from cogvlm2_lite.backends.base import CaptureGraph, Graph, NewCapture
from cogvlm2_lite.backends.cuda import CudaBackend
from cogvlm2_lite.backends.registry import replaced
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.model import Model
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.weights.kernels.choice import GPU_KERNELS, choose_kernels

_STEPS = 12


def measure(run: Run) -> None:
    """Measure the model with everything that fits."""
    size = sizes(run)
    began = time.perf_counter()
    model, catalog = open_random(run)
    run.put(open_s=time.perf_counter() - began, plan=describe_plan(model), load_s=load(model))
    first = ask(model, image=picture(1), tokens=size.bits, bits=True, watch=True)
    run.put(bits=first.bits, planned=planned_bytes(model), peaks=first.as_dict()["laps"])
    fast = ask(model, image=picture(2), tokens=size.tokens)
    run.put(answer=fast.as_dict(), decode_tokens_per_s=fast.tokens_per_s)
    read = token_bytes(model, catalog, fast.prompt_tokens + fast.tokens // 2)
    run.put(bytes_per_token=read, decode_bytes_per_s=read * fast.tokens_per_s)
    with without_graphs(model):
        eager = ask(model, image=picture(2), tokens=size.tokens)
    run.put(eager_tokens_per_s=eager.tokens_per_s)
    graphs = model.runtime.graphs
    run.put(graphs=graphs.describe() if graphs else "none", replays=graphs.replays if graphs else 0)
    again = ask(model, image=picture(1), tokens=size.bits, bits=True)
    if again.bits != first.bits:
        run.wrong("the same question has another answer the second time")
    run.attempt("steps", lambda: one_by_one(model))
    run.attempt("long_answers", lambda: long_answers(model, run))


def long_answers(model: Model, run: Run) -> dict[str, Any]:
    """Return the bits and seconds of a long question, and of one that fills the context."""
    size, found = sizes(run), {}
    for name, tokens, image in (
        ("text", size.text, None),
        ("context", size.context - model.config.vision.image_tokens, picture(3)),
    ):
        asked = ask(model, long_text(model, tokens), image, tokens=size.bits, bits=True, watch=True)
        found[name] = {
            "bits": asked.bits,
            "prompt_tokens": asked.prompt_tokens,
            "laps": {name: asdict(lap) for name, lap in asked.laps.items()},
            "planned": planned_bytes(model),
            "replans": asked.replans,
        }
    return found


def one_by_one(model: Model) -> dict[str, Any]:
    """Return the host's time to start a decode step, and the time until it is computed."""
    found: dict[str, Any] = {}
    for name in ("graph", "eager"):
        steps = Steps(model, 40)
        if name == "eager":
            with without_graphs(model):
                found[name] = _times(steps)
        else:
            found[name] = _times(steps)
        steps.close()
    return found


def _times(steps: Steps) -> dict[str, float]:
    host, total = [], []
    for _ in range(_STEPS):
        torch.cuda.synchronize()
        began = time.perf_counter()
        steps.step()
        host.append(time.perf_counter() - began)
        torch.cuda.synchronize()
        total.append(time.perf_counter() - began)
    # The first steps load weights and capture the graph.
    return {
        "host_ms": 1e3 * median(host[_STEPS // 2 :]),
        "step_ms": 1e3 * median(total[_STEPS // 2 :]),
    }


class TimedCapture(CudaBackend):
    """The backend of a GPU, with the time of each capture of a CUDA graph."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def graph_capture(self, device: torch.device) -> NewCapture | None:
        """Return what makes the backend's own captures, timed."""
        new_capture = super().graph_capture(device)
        if new_capture is None:
            return None

        def timed(capture: CaptureGraph, work: Callable[[], Tensor]) -> Graph:
            torch.cuda.synchronize()
            began = time.perf_counter()
            graph = capture(work)
            torch.cuda.synchronize()
            self.seconds.append(time.perf_counter() - began)
            return graph

        return lambda: partial(timed, new_capture())


def questions(run: Run) -> None:
    """Ask questions of different lengths, one after another."""
    backend = TimedCapture()
    rows: list[dict[str, float]] = []
    with replaced(backend):
        model, _ = open_random(run)
        load(model)
        for number in range(sizes(run).questions):
            text = long_text(model, 20 + 37 * (number % 10))
            began = time.perf_counter()
            asked = ask(model, text, tokens=6)
            rows.append(
                {
                    "seconds": time.perf_counter() - began,
                    "prompt_tokens": asked.prompt_tokens,
                    "allocated_bytes": torch.cuda.memory_allocated(),
                    "reserved_bytes": torch.cuda.memory_reserved(),
                    "free_bytes": torch.cuda.mem_get_info()[0],
                    "captures": len(backend.seconds),
                }
            )
            if number % 5 == 4 or number < 2:
                run.put(rows=rows)
            if run.left_s < 6:
                break
    middle = rows[len(rows) // 2]
    run.put(
        rows=rows,
        captures=len(backend.seconds),
        capture_ms=1e3 * median(backend.seconds or [0.0]),
        growth_bytes={
            name: rows[-1][name] - middle[name] for name in ("allocated_bytes", "reserved_bytes")
        },
        device_growth_bytes=middle["free_bytes"] - rows[-1]["free_bytes"],
    )


def settings(run: Run) -> Model:
    """Measure a short answer with torch's own settings of the card; return the model."""
    model, _ = open_random(run)
    load(model)
    first = ask(model, image=picture(1), tokens=sizes(run).bits, bits=True)
    # Other implementations of attention and cuBLAS may have other last bits: no error.
    run.put(same_bits=first.bits == resident_values(run).get("bits"))
    fast = ask(model, image=picture(2), tokens=sizes(run).tokens)
    run.put(
        bits=first.bits,
        answer=fast.as_dict(),
        decode_tokens_per_s=fast.tokens_per_s,
        reserved_bytes=torch.cuda.memory_reserved(),
    )
    return model


def own(run: Run) -> None:
    """Measure our own CUDA kernels, which are used only if asked for."""
    from benchmarks.gpu.micro import gemm
    from benchmarks.gpu.profile import decode_kernels

    compute = choose_compute("cuda:0", "auto")
    with patch.dict(os.environ, {GPU_KERNELS: "own"}):
        try:
            chosen = choose_kernels(compute.device, compute.dtype)
        except UsageError as error:
            run.put(available=False, reason=str(error))
            return
        run.put(available=True, reason=chosen.reason)
        gemm(run)
        model = settings(run)
        run.attempt("steps", lambda: one_by_one(model))
        run.attempt("profile", lambda: decode_kernels(run, model))
