"""Compare the plan's estimate of activations with the real tensors of each phase.

    python -m benchmarks.memory_estimate

The released model's widths, one layer of each kind (all layers use the same memory in turn), random
weights, on the CPU. Every tensor that torch makes is counted from its creation to its release.
Writes benchmarks/results/memory_estimate.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import describe_machine  # noqa: E402
from cogvlm2_lite.architectures.architecture import Phase  # noqa: E402
from cogvlm2_lite.bench.synthetic import (  # noqa: E402
    NoiseReader,
    released_config,
    synthetic_catalog,
)
from cogvlm2_lite.demo.shipped import checkpoint_folder  # noqa: E402
from cogvlm2_lite.devices import choose_compute  # noqa: E402
from cogvlm2_lite.engine.chunk import Chunk  # noqa: E402
from cogvlm2_lite.engine.model import Model, open_model  # noqa: E402
from cogvlm2_lite.engine.runtime import run  # noqa: E402
from cogvlm2_lite.events import Cancel  # noqa: E402
from cogvlm2_lite.memory.inventory import sizes_of_quantized  # noqa: E402
from cogvlm2_lite.memory.plan import (  # noqa: E402
    DeviceBudget,
    PhasePlan,
    Workload,
    plan_memory,
)
from cogvlm2_lite.memory.work import PREFILL_CHUNK, scratch_bytes  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "memory_estimate.json"


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that are made in the `with` block, while they exist."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._lock = threading.Lock()
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = {_key(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and _key(tensor) not in given:
                self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage, key = tensor.untyped_storage(), _key(tensor)
        if key in self._seen:
            return
        size = storage.nbytes()

        def ended(_: object) -> None:
            with self._lock:
                self.live -= size
                self._seen.pop(key, None)

        self._seen[key] = weakref.ref(storage, ended)
        with self._lock:
            self.live += size
            self.peak = max(self.peak, self.live)


def _key(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key


def peak_of(work: Callable[[], object]) -> int:
    """Return the peak of the bytes of all tensors during some work."""
    with LiveBytes() as live:
        work()
    return live.peak


def text_chunk(tokens: int, image_tokens: int) -> Chunk:
    """Return a chunk of [bos, picture] or of text."""
    image = torch.zeros(1, tokens, dtype=torch.bool)
    image[0, 1 : 1 + image_tokens] = True
    vision = image.clone()
    if image_tokens:
        vision[0, image_tokens] = False  # the last one, eoi, goes through the language expert
    return Chunk(
        input_ids=torch.full((1, tokens), 7),
        image_mask=image,
        vision_mask=vision,
        position_ids=torch.arange(tokens).unsqueeze(0),
        highest=tokens - 1,
        has_image=bool(image_tokens),
    )


def measure(model: Model) -> dict[str, dict[str, float]]:
    """Return the estimate and the measured bytes of each phase."""
    config, runtime, vision = model.config, model.runtime, model.config.vision
    pixels = torch.randn(1, vision.in_channels, vision.image_size, vision.image_size)
    features = torch.randn(1, vision.image_tokens, config.hidden_size).to(runtime.dtype)
    cache = runtime.new_cache()
    cache.reserve(config.max_position_embeddings)
    picture = text_chunk(1 + vision.image_tokens, vision.image_tokens)
    text = text_chunk(PREFILL_CHUNK, 0)

    def prefill(chunk: Chunk, seen: Tensor | None) -> None:
        hidden = run(runtime.prefill(chunk, seen, cache, Cancel()))
        runtime.compute_logits(hidden[:, -1:])

    def last_text() -> None:
        cache.length = config.max_position_embeddings - PREFILL_CHUNK
        prefill(text, None)
        cache.length -= 1

    works = {
        Phase.ENCODE: lambda: run(runtime.encode(pixels, Cancel())),
        Phase.PREFILL_IMAGE: lambda: prefill(picture, features),
        Phase.PREFILL_TEXT: lambda: last_text(),
        Phase.DECODE: lambda: runtime.decode_one_token(7, cache.length, cache),
    }
    full = full_peaks()
    found = {}
    kept = 0
    for phase, work in works.items():
        _load(model, phase)
        measured = peak_of(work)
        if phase is Phase.PREFILL_IMAGE:
            measured += features.nbytes  # made before this phase; in memory during it
        if phase is Phase.DECODE:
            measured += kept  # the buffers that prefill left
        kept = sum(loader.scratch.nbytes for loader in runtime.residency._loaders)  # type: ignore[attr-defined]
        planned = scratch_bytes(
            phase, config, itemsize=runtime.dtype.itemsize, tokens=PREFILL_CHUNK
        )
        whole = full[phase.value] - planned + measured
        found[phase.value] = {
            "planned_bytes": planned,
            "measured_bytes": measured,
            "scratch_error": planned / measured - 1,
            "peak_error": full[phase.value] / whole - 1,
        }
        print(f"{phase.value:22} planned {planned:>13,} measured {measured:>13,}", flush=True)
    return found


def full_peaks() -> dict[str, int]:
    """Return the planned peak of each phase of the 19B model in NF4, with weights and cache."""
    config = released_config(None, None)
    budget = DeviceBudget(device="cpu", in_ram=True, device_bytes=64 << 30)
    workload = Workload(context=config.max_position_embeddings)
    plan = plan_memory(config, sizes_of_quantized(config), [budget], workload)
    return {p.phase.value: _needed(p) for p in plan.devices[0].phases}


def _needed(plan: PhasePlan) -> int:
    """Return the peak without weights kept only for other phases; the error is relative to it."""
    kept = sum(u.nbytes for u in plan.resident if u.part not in plan.parts)
    return plan.peak_bytes - kept


def _load(model: Model, phase: Phase) -> None:
    """Load a phase's weights, so that they are not counted, and drop the kernels' buffers."""
    residency = model.runtime.residency
    with residency.phase(phase):
        for plan in residency._phases[phase]:
            residency._load(tuple(unit.key for unit in plan.resident))
    for loader in residency._loaders:
        loader.scratch._buffers.clear()  # type: ignore[attr-defined]


def main() -> None:
    """Measure and write the result."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    catalog = synthetic_catalog(released_config(1, 1))
    model = open_model(
        checkpoint_folder(),
        compute=choose_compute("cpu", "bfloat16"),
        budgets=[DeviceBudget(device="cpu", in_ram=True, device_bytes=8 << 30)],
        weights=(catalog, NoiseReader(keep=False)),
    )
    report = {"machine": describe_machine(), "phases": measure(model)}
    RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
