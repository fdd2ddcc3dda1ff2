"""The released model in 4 bits on an emulated GPU, with its real shapes and no memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from cogvlm2_lite.architectures.architecture import Role
from cogvlm2_lite.backends.device import Gpu
from cogvlm2_lite.bench.synthetic import released_config, synthetic_catalog
from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.choose import TokenChooser
from cogvlm2_lite.engine.chunk import Chunk
from cogvlm2_lite.engine.model import Model, open_model
from cogvlm2_lite.engine.runtime import run
from cogvlm2_lite.events import Cancel
from cogvlm2_lite.memory import residency
from cogvlm2_lite.memory.budget import Allowance, gpu_budgets
from cogvlm2_lite.memory.work import PREFILL_CHUNK
from cogvlm2_lite.model import token_attention
from cogvlm2_lite.model.kv_cache import KVCache
from cogvlm2_lite.model.rotary import inverse_frequencies
from cogvlm2_lite.model.token_attention import TokenAttentionChoice, split_keys
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.weights.catalog import Catalog, StoredTensor
from cogvlm2_lite.weights.kernels import choice
from cogvlm2_lite.weights.kernels.nf4 import NF4_LEVELS, dynamic_map
from tests.emulated_cuda.install import emulated_cuda
from tests.emulated_cuda.machine import Machine

HOST_BYTES = 64 << 30
_TYPES = {"BF16": torch.bfloat16, "F32": torch.float32, "U8": torch.uint8, "I8": torch.int8}


class ZeroReader:
    """Reads the weights of a synthetic catalog: all share one block of zeros, never written."""

    def __init__(self, catalog: Catalog) -> None:
        pieces = (p for stored in catalog.tensors.values() for p in stored.pieces.values())
        self._zeros = torch.zeros(max(piece.nbytes for piece in pieces), dtype=torch.uint8)
        self._known: dict[str, dict[str, Tensor]] = {}
        self._levels = {"quant_map": torch.tensor(NF4_LEVELS), "nested_quant_map": dynamic_map()}

    def read(self, stored: StoredTensor) -> dict[str, Tensor]:
        """Return all pieces of a tensor; see WeightLoader's reader."""
        name = stored.spec.name
        if name not in self._known:
            self._known[name] = self._read(stored)
        return self._known[name]

    def _read(self, stored: StoredTensor) -> dict[str, Tensor]:
        if stored.spec.role is Role.FREQUENCIES:
            return {"weight": inverse_frequencies(2 * stored.spec.numel).to(torch.bfloat16)}
        found = {
            role: self._zeros[: piece.nbytes].view(_TYPES[piece.dtype]).view(piece.shape)
            for role, piece in stored.pieces.items()
        }
        found.pop("quant_state", None)
        return {role: self._levels.get(role, piece) for role, piece in found.items()}


class _AtOnce:
    """An executor that runs work immediately: the earliest that another thread could."""

    def __init__(self, **_: Any) -> None: ...

    def submit(self, work: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args))
        except Exception as error:  # noqa: BLE001 - handed over, as an executor does
            future.set_exception(error)
        return future


class Session:
    """Questions to the model, one after another; each phase is traced under its name.

    machine  the emulated computer, with the trace
    model    the product's model
    """

    def __init__(self, machine: Machine, model: Model) -> None:
        self.machine, self.model = machine, model
        self.config = model.config

    def load(self) -> None:
        """Load what decoding keeps, as before the first question."""
        self.machine.trace.begin("load")
        for _ in self.model.runtime.residency.preload():
            pass

    def picture(self, cache: KVCache, name: str = "") -> None:
        """Encode a picture, and prefill it into an empty cache."""
        trace, runtime, vision = self.machine.trace, self.model.runtime, self.config.vision
        trace.begin(f"{name}encode")
        pixels = torch.zeros(1, vision.in_channels, vision.image_size, vision.image_size)
        features = run(runtime.encode(pixels, Cancel()))
        trace.begin(f"{name}picture")
        run(runtime.prefill(_picture_chunk(vision.image_tokens), features, cache, Cancel()))

    def text(self, cache: KVCache, tokens: int, name: str = "") -> int:
        """Prefill a text behind what the cache has; return the first token of the answer."""
        trace, runtime = self.machine.trace, self.model.runtime
        trace.begin(f"{name}text")
        for start in range(0, tokens, PREFILL_CHUNK):
            chunk = _text_chunk(min(PREFILL_CHUNK, tokens - start), start)
            hidden = run(runtime.prefill(chunk, None, cache, Cancel()))
        logits = runtime.compute_logits(hidden[:, -1:])[0, -1]
        del hidden
        return self._chooser().choose(logits)

    def decode(self, cache: KVCache, steps: int, name: str = "") -> None:
        """Generate tokens; the first step is a phase of its own, as it may capture a graph."""
        trace, runtime, chooser = self.machine.trace, self.model.runtime, self._chooser()
        for step in range(steps):
            if step < 2:
                trace.begin(f"{name}{'first step' if step == 0 else 'decode'}")
            chooser.choose(runtime.decode_one_token(40, cache.length, cache))

    def _chooser(self) -> TokenChooser:
        return TokenChooser(Sampling(), [1, 2, 3], self.model.compute.device)


def _picture_chunk(image_tokens: int) -> Chunk:
    tokens = 1 + image_tokens
    image = torch.ones(1, tokens, dtype=torch.bool)
    image[0, 0] = False
    vision = image.clone()
    vision[0, -1] = False  # the last one goes to the language expert
    positions = torch.full((1, tokens), 2)
    positions[0, 0] = 0
    return Chunk(
        input_ids=torch.zeros(1, tokens, dtype=torch.int64),
        image_mask=image,
        vision_mask=vision,
        position_ids=positions,
        highest=4,
        has_image=True,
    )


def _text_chunk(tokens: int, start: int) -> Chunk:
    none = torch.zeros(1, tokens, dtype=torch.bool)
    return Chunk(
        input_ids=torch.zeros(1, tokens, dtype=torch.int64),
        image_mask=none,
        vision_mask=none,
        position_ids=torch.arange(start, start + tokens)[None],
        highest=start + tokens - 1,
        has_image=False,
    )


@contextmanager
def session(
    vram_gib: float, *, graphs: bool = True, dtype: str = "auto", **options: Any
) -> Iterator[Session]:
    """Open the model on an emulated GPU with this much free memory, as `--vram auto` does.

    graphs   whether decode steps may become CUDA graphs
    options  as for open_model
    """
    catalog = synthetic_catalog(released_config(None, None))
    total = int(vram_gib * (1 << 30))
    # There are no numbers here to test it with.
    split = TokenAttentionChoice(name="split keys", reason="", attend=split_keys)
    with (
        patch.object(residency, "ThreadPoolExecutor", _AtOnce),
        patch.object(token_attention, "_checked_split", lambda *_: split),
        patch.object(choice, "rows_together", lambda *_: 3),
        emulated_cuda(shapes_only=True, total_bytes=total) as machine,
        torch.no_grad(),
    ):
        gpu = Gpu(kind="cuda", index=0, name="Emulated GPU", free_bytes=total, total_bytes=total)
        model = open_model(
            checkpoint_folder(),
            compute=choose_compute("cuda", dtype),
            budgets=gpu_budgets([gpu], Allowance(), HOST_BYTES),
            weights=(catalog, ZeroReader(catalog)),
            **options,
        )
        if not graphs:
            assert model.runtime.graphs is not None
            model.runtime.graphs.trouble = "not wanted in this test"
        yield Session(machine, model)
