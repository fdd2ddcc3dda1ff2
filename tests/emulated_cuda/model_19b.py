"""The released model in 4 bits on an emulated GPU, with its real shapes and no memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from PIL import Image
from torch import Tensor

from cogvlm2_lite.architectures.architecture import Phase, Role
from cogvlm2_lite.backends.device import Gpu
from cogvlm2_lite.bench.synthetic import released_config, synthetic_catalog
from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.choose import TokenChooser
from cogvlm2_lite.engine.chunk import Chunk
from cogvlm2_lite.engine.model import Model, open_model
from cogvlm2_lite.engine.runtime import run
from cogvlm2_lite.events import Cancel, Finished
from cogvlm2_lite.memory import residency
from cogvlm2_lite.memory.budget import Allowance, gpu_budgets
from cogvlm2_lite.memory.residency import HasSlots, Residency
from cogvlm2_lite.memory.work import PREFILL_CHUNK
from cogvlm2_lite.model import token_attention
from cogvlm2_lite.model.kv_cache import KVCache
from cogvlm2_lite.model.rotary import inverse_frequencies
from cogvlm2_lite.model.token_attention import TokenAttentionChoice, split_keys
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.weights.catalog import Catalog, StoredTensor
from cogvlm2_lite.weights.kernels import choice
from cogvlm2_lite.weights.kernels.nf4 import NF4_LEVELS, dynamic_map
from cogvlm2_lite.weights.kernels.scratch import Scratch
from tests.emulated_cuda.install import emulated_cuda
from tests.emulated_cuda.machine import Machine
from tests.emulated_cuda.trace import Event, Kind, Trace

HOST_BYTES = 64 << 30
_LABELS: tuple[tuple[Any, str, str], ...] = (
    (Residency, "follow", "weights"),
    (Residency, "_fill", "weights"),
    (Scratch, "take", ""),
    (KVCache, "__init__", "cache"),
    (KVCache, "reserve", "cache"),
)
"""Methods, and what the memory is for that they allocate."""

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

    def ask(self, name: str, tokens: int, *, picture: int | None = None, answer: int = 3) -> None:
        """Ask as the product does, with a text of this many tokens, and a picture by its number.

        The phase that begins in the trace has the name.
        """
        image = None if picture is None else Image.new("RGB", (64, 64), (picture, 0, 0))
        settings = Sampling(max_new_tokens=answer, repetition_guard=False)
        self.machine.trace.begin(name)
        *_, last = self.model.answer(self.words(tokens), image, sampling=settings, template="base")
        assert isinstance(last, Finished)
        # Every token of an answer is 0, a stand-in.
        assert last.completion_tokens == answer, last
        assert last.prompt_tokens - last.image_tokens == tokens, last

    def words(self, tokens: int) -> str:
        """Return a question that makes the text of a prompt have this many tokens."""
        return " a" * (tokens - 1)

    def repeat(self, recorded: Sequence[Event]) -> None:
        """Repeat the computations of another session: their allocations, with our own weights.

        What is computed depends on no budget, only when which weights are loaded does. So the
        product's residency goes through the same steps here, and between them the allocations of
        the other session are made again.
        """
        runtime, trace = self.model.runtime, self.machine.trace
        pieces, repeated = runtime.parts.pieces, set[int]()
        first = next(i for i, event in enumerate(recorded) if event.kind is Kind.PHASE)
        with ExitStack() as current:
            for event in recorded[first:]:  # before it, the other session was opened
                if event.kind is Kind.STEP:
                    current.close()
                    current.enter_context(
                        runtime.residency.at(Phase(event.phase), pieces[event.number])
                    )
                elif event.kind is Kind.PLAN:
                    current.close()
                    current.enter_context(runtime.residency.phase(Phase(event.phase)))
                elif event.kind is Kind.ALLOCATE:
                    if event.label != "weights":
                        repeated.add(event.number)
                        trace.repeat(event)
                elif event.kind is not Kind.FREE or event.number in repeated:
                    trace.repeat(event)

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


def _labelling(trace: Trace, label: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose allocations have a label in the trace."""

    def labelled(*args: Any, **kwargs: Any) -> Any:
        with trace.labelled(label):
            return work(*args, **kwargs)

    return labelled


def _marking(trace: Trace, pieces: Sequence[HasSlots]) -> Callable[..., Iterator[Any]]:
    """Return Residency.walk with a mark in the trace where each piece has its weights."""
    walk = Residency.walk
    numbers = {id(piece): number for number, piece in enumerate(pieces)}

    def marked(self: Residency, chosen: Sequence[Any], *, backward: bool = False) -> Iterator[Any]:
        for piece in walk(self, chosen, backward=backward):
            phase = self.current_phase
            assert phase is not None
            trace.step(phase.value, numbers[id(piece)])
            yield piece

    return marked


def _announcing(trace: Trace) -> Callable[..., Any]:
    """Return Residency.phase with a mark in the trace where a phase begins."""
    enter = Residency.phase

    @contextmanager
    def announced(self: Residency, phase: Phase) -> Iterator[None]:
        with enter(self, phase):
            trace.plan(phase.value)
            yield

    return announced


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
        ExitStack() as stack,
    ):
        for owner, name, label in _LABELS:
            work = _labelling(machine.trace, label, getattr(owner, name))
            stack.enter_context(patch.object(owner, name, work))
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
        marked = _marking(machine.trace, model.runtime.parts.pieces)
        stack.enter_context(patch.object(Residency, "walk", marked))
        stack.enter_context(patch.object(Residency, "phase", _announcing(machine.trace)))
        yield Session(machine, model)
