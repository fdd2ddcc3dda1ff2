"""Runs decoder and vision layers of ours on random NF4 weights; see `beside_peers`.

    python -m benchmarks.peers.ours

Each line of the input, "PHASE LAYERS THREADS", is answered with the CPU seconds and the seconds of
the clock.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

from benchmarks.synthetic_decoder import CPU, synthetic_decoder
from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.bench.synthetic import NoiseReader, released_config, synthetic_catalog
from cogvlm2_lite.engine.chunk import Chunk
from cogvlm2_lite.engine.runtime import Runtime, Token, run
from cogvlm2_lite.events import Cancel
from cogvlm2_lite.memory.plan import Workload
from cogvlm2_lite.model.full_attention import choose_full_attention
from cogvlm2_lite.model.vision import VisionTower
from cogvlm2_lite.units import GIB
from cogvlm2_lite.weights.kernels.choice import choose_kernels
from cogvlm2_lite.weights.loader import WeightLoader

PROMPT, SHORT, STEPS, ROWS = 512, 8, 8, 8


class Ours:
    """Runtimes of some decoder layers, everything resident, and a layer of the tower."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._runtimes: dict[int, Runtime] = {}
        self._tower: Callable[[int], None] | None = None

    def measure(self, phase: str, layers: int, threads: int) -> tuple[float, float]:
        """Return the CPU seconds and the seconds of the clock of one measurement."""
        torch.set_num_threads(threads)
        if phase == "encode":
            return self._encode(layers)
        if layers not in self._runtimes:
            workload = Workload(context=2 * PROMPT, with_picture=False, parallel=ROWS)
            self._runtimes[layers], _ = synthetic_decoder(
                layers, workload, nbytes=8 * GIB, dtype=self._dtype
            )
        runtime = self._runtimes[layers]
        if phase == "prefill":
            return self._prefill(runtime)
        caches = [runtime.new_cache() for _ in range(ROWS if phase == "rows" else 1)]
        try:
            for position in range(SHORT):
                runtime.decode_each([Token(token=7, position=position, cache=c) for c in caches])
            cpu, wall = time.process_time(), time.perf_counter()
            for position in range(SHORT, SHORT + STEPS):
                runtime.decode_each([Token(token=7, position=position, cache=c) for c in caches])
            return (time.process_time() - cpu) / STEPS, (time.perf_counter() - wall) / STEPS
        finally:
            for cache in caches:
                cache.release()

    def _prefill(self, runtime: Runtime) -> tuple[float, float]:
        cache = runtime.new_cache()
        ids = torch.arange(PROMPT)[None]
        none = torch.zeros(1, PROMPT, dtype=torch.bool)
        chunk = Chunk(
            input_ids=ids,
            image_mask=none,
            vision_mask=none,
            position_ids=ids,
            highest=PROMPT - 1,
            key_mask=None,
            has_image=False,
        )
        try:
            cpu, wall = time.process_time(), time.perf_counter()
            run(runtime.prefill(chunk, None, cache, Cancel()))
            return time.process_time() - cpu, time.perf_counter() - wall
        finally:
            cache.release()

    def _encode(self, layers: int) -> tuple[float, float]:
        if self._tower is None:
            self._tower = self._vision_layer()
        cpu, wall = time.process_time(), time.perf_counter()
        self._tower(layers)
        return time.process_time() - cpu, time.perf_counter() - wall

    def _vision_layer(self) -> Callable[[int], None]:
        config = released_config(1, 1)
        loader = WeightLoader(
            synthetic_catalog(config, lm_head_nf4=True),
            device=CPU,
            dtype=self._dtype,
            kernels=choose_kernels(CPU, self._dtype),
            reader=NoiseReader(keep=False),
        )
        vision = config.vision
        block = VisionTower(vision, choose_full_attention(CPU, self._dtype).attend).blocks[0]
        for slot in block.slots():
            loader.fill(slot)
        tokens = torch.randn(1, vision.num_positions, vision.hidden_size).to(self._dtype)

        def work(layers: int) -> None:
            x = tokens
            with torch.inference_mode():
                for _ in range(layers):
                    x = block(x)

        return work


def main() -> None:
    """Answer line by line."""
    dtype = getattr(torch, backend_of(CPU).choose_dtype(CPU)[0])
    ours = Ours(dtype)
    print("ready", choose_kernels(CPU, dtype).reason, flush=True)
    for line in sys.stdin:
        phase, *numbers = line.split()
        layers, threads = map(int, numbers)
        print(*ours.measure(phase, layers, threads), flush=True)


if __name__ == "__main__":
    main()
