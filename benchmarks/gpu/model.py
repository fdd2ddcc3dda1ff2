"""The 19B model with random weights, and answers whose time, memory and bits are measured."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.gpu.work import Run
from cogvlm2_lite.architectures.architecture import ModelConfig, Part, Phase
from cogvlm2_lite.bench.synthetic import NoiseReader, released_config, synthetic_catalog
from cogvlm2_lite.config import parse_config
from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.model import Model, open_model
from cogvlm2_lite.engine.runtime import run as run_steps
from cogvlm2_lite.events import (
    Cancel,
    Event,
    Finished,
    ImageEncoded,
    Prefilled,
    Progress,
    Replanned,
    TextDelta,
)
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.kv_kind import KVKind
from cogvlm2_lite.memory.budget import gpu_budgets, read_allowance
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.units import GIB
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.footprint import held_bytes

QUESTION = "Describe this picture. " * 4
HOST_BYTES = 64 * GIB
"""RAM that the plan may use for streamed weights. They are views of a small file, and a rented
machine may report less RAM than it has."""

PHASES = {
    "encode": (Phase.ENCODE,),
    "prefill": (Phase.PREFILL_IMAGE, Phase.PREFILL_TEXT),
    "decode": (Phase.DECODE,),
}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is measured.

    tokens      of an answer whose speed is measured
    bits        tokens of an answer whose bits are compared
    text        tokens of the long question
    context     tokens of the longest prompt, picture included
    questions   asked one after another
    noise       bytes of random codes
    """

    tokens: int = 32
    bits: int = 6
    text: int = 1000
    context: int = 8000
    questions: int = 40
    noise: int = 1 << 30


TINY = Sizes(tokens=4, bits=2, text=25, context=50, questions=3, noise=1 << 20)


def sizes(run: Run) -> Sizes:
    """Return the sizes of a step."""
    return TINY if run.rehearse else Sizes()


def config_of(run: Run) -> ModelConfig:
    """Return the released model's config, or a tiny one in a rehearsal."""
    return parse_config(tiny_config(1, 2)) if run.rehearse else released_config(None, None)


def tiny_config(vision_layers: int, decoder_layers: int) -> dict[str, Any]:
    """Return a narrow config.json like the demo model's, with so many layers.

    Its vocabulary is larger than the tokenizer's, as with the released shapes.
    """
    text = (checkpoint_folder() / "config.json").read_text(encoding="utf-8")
    raw: dict[str, Any] = json.loads(text)
    widths = {"hidden_size": 64, "intermediate_size": 64}
    raw |= {**widths, "num_hidden_layers": decoder_layers, "vocab_size": 1024}
    raw["vision_config"] |= {**widths, "num_hidden_layers": vision_layers}
    return raw


def noise(run: Run) -> Tensor:
    """Return random bytes, mapped from a file that all steps share."""
    file, size = run.work / "noise.bin", sizes(run).noise
    if not file.exists():
        generator = torch.Generator().manual_seed(23)
        tile = torch.randint(0, 256, (min(size, 32 << 20),), dtype=torch.uint8, generator=generator)
        part = file.with_suffix(".part")
        with part.open("wb") as out:
            for _ in range(size // tile.numel()):
                out.write(tile.numpy().tobytes())
        part.replace(file)
    return torch.from_file(str(file), shared=False, size=size, dtype=torch.uint8)


def open_random(
    run: Run, *, kv: str = "full", parallel: int = 1, lm_head_nf4: bool = False
) -> tuple[Model, Catalog]:
    """Open the model with random weights, with the memory that is free on the first GPU.

    It is what `--vram auto` does with a folder.
    """
    compute = choose_compute("cuda:0", "auto")
    catalog = synthetic_catalog(config_of(run), lm_head_nf4=lm_head_nf4)
    model = open_model(
        checkpoint_folder(),  # for its tokenizer
        compute=compute,
        budgets=gpu_budgets(compute.gpus, read_allowance("auto", None), HOST_BYTES),
        kv=KVKind(kv),
        parallel=parallel,
        weights=(catalog, NoiseReader(keep=True, codes=noise(run))),
    )
    return model, catalog


def resident_values(run: Run) -> dict[str, Any]:
    """Return what step "resident" found, in this run or in an earlier one; {} if it did not run."""
    for file in (run.work / "resident.json", run.out / "gpu.json"):
        if not file.exists():
            continue
        saved = json.loads(file.read_text(encoding="utf-8"))
        for row in [saved, *saved.get("steps", ())]:
            if row.get("name", "resident") == "resident" and row.get("values"):
                return dict(row["values"])
    return {}


def check_bits(run: Run, what: str, ours: str, theirs: str | None) -> None:
    """Report an answer that differs from the one with all memory of the card."""
    if theirs and ours != theirs:
        run.wrong(f"{what}: other bits than with all memory of the card")


def load(model: Model) -> float:
    """Load what decoding needs; return the seconds."""
    began = time.perf_counter()
    for _ in model.warm_up():
        pass
    torch.cuda.synchronize()
    return time.perf_counter() - began


def describe_plan(model: Model) -> dict[str, Any]:
    """Return the plan of the first GPU."""
    plan = model.plan.devices[0]
    return {
        "budget_bytes": plan.budget.device_bytes,
        "origin": str(plan.budget.origin),
        "context": model.plan.context,
        "phases": {
            phase.phase.name: {
                "peak_bytes": phase.peak_bytes,
                "resident_bytes": phase.resident_bytes,
                "streamed_bytes": phase.streamed_bytes,
                "cache_bytes": phase.cache_bytes,
                "scratch_bytes": phase.scratch_bytes,
            }
            for phase in plan.phases
        },
    }


def token_bytes(model: Model, catalog: Catalog, keys: int) -> int:
    """Return the least bytes that a decode step reads: weights once, and the cache."""
    parts = (Part.LANGUAGE_EXPERT, Part.NORMS, Part.LM_HEAD)
    itemsize = model.compute.dtype.itemsize
    weights = sum(
        held_bytes(stored, itemsize=itemsize, packs=False)
        for stored in catalog.tensors.values()
        if stored.spec.part in parts
    )
    return weights + keys * model.config.kv_bytes_per_token * itemsize // 2


# --- answers --------------------------------------------------------------------------------------


def picture(number: int) -> Image.Image:
    """Return a picture of noise."""
    pixels = np.random.default_rng(number).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def long_text(model: Model, tokens: int) -> str:
    """Return a text of so many tokens, or a few less."""
    words = "What is the word on the sign? Which colours are there? How many letters? "
    each = len(model.engine.tokenizer.encode(words * 8)) / 8
    return words * max(1, int(tokens / each))


@dataclass(kw_only=True)
class Lap:
    """One phase of an answer.

    allocated_bytes, reserved_bytes  peaks of torch's allocator
    free_bytes                       the least that the card had free; after the phase, or after
                                     every block if memory was watched
    """

    seconds: float
    allocated_bytes: int
    reserved_bytes: int
    free_bytes: int


@dataclass(kw_only=True)
class Asked:
    """An answer.

    bits      hash of its tokens and their log probabilities; "" if only its speed was measured
    replans   how often a new plan was made because memory ran out
    """

    prompt_tokens: int = 0
    image_tokens: int = 0
    tokens: int = 0
    text: str = ""
    bits: str = ""
    replans: int = 0
    budgets: list[int] = field(default_factory=list)
    laps: dict[str, Lap] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    @property
    def tokens_per_s(self) -> float:
        """The rate of decoding; the first token belongs to prefill."""
        lap = self.laps.get("decode")
        return (self.tokens - 1) / lap.seconds if lap and lap.seconds > 0 else 0.0


def forget(model: Model) -> None:
    """Forget pictures and conversations, so that everything is computed again."""
    model.engine.pictures.clear()
    for slot in model.engine.slots:
        slot.clear()


def ask(
    model: Model,
    question: str = QUESTION,
    image: Image.Image | None = None,
    *,
    tokens: int,
    bits: bool = False,
    watch: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Asked:
    """Ask a question that was not asked before, and measure.

    bits      hash the tokens and their log probabilities
    watch     look at the free memory after every block, which takes time
    on_event  is called with every event
    """
    forget(model)
    sampling = Sampling(max_new_tokens=tokens, repetition_guard=False, logprobs=5 if bits else None)
    asked, watcher, digest = Asked(), _Watcher(), hashlib.sha256()
    with _texts_for_all_ids() if bits else _nothing():
        for event in model.answer(question, image, sampling=sampling):
            on_event(event)
            if watch and isinstance(event, Progress):
                watcher.look()
            if isinstance(event, ImageEncoded):
                asked.laps["encode"] = watcher.lap()
            elif isinstance(event, Prefilled):
                asked.laps["prefill"] = watcher.lap()
            elif isinstance(event, Replanned):
                asked.replans += 1
                asked.budgets += event.budget_bytes
            elif isinstance(event, TextDelta):
                values = [(t.chosen.logprob, [o.logprob for o in t.top]) for t in event.tokens]
                digest.update(repr(values).encode())
            elif isinstance(event, Finished):
                asked.laps["decode"] = watcher.lap()
                digest.update(repr(event.token_ids).encode())
                asked.prompt_tokens, asked.image_tokens = event.prompt_tokens, event.image_tokens
                asked.tokens, asked.text = event.completion_tokens, event.text[:200]
    asked.bits = digest.hexdigest()[:16] if bits else ""
    return asked


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _texts_for_all_ids() -> Iterator[None]:
    """Let ids that the small tokenizer does not know have a text, so that they are reported."""
    known = Tokenizer.token_bytes
    with patch.object(Tokenizer, "token_bytes", lambda self, token: known(self, token) or b"x"):
        yield


class _Watcher:
    """Measures phases, one after another."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self._least = torch.cuda.mem_get_info()[0]
        self._began = time.perf_counter()

    def look(self) -> None:
        self._least = min(self._least, torch.cuda.mem_get_info()[0])

    def lap(self) -> Lap:
        torch.cuda.synchronize()
        seconds = time.perf_counter() - self._began
        self.look()
        found = Lap(
            seconds=seconds,
            allocated_bytes=torch.cuda.max_memory_allocated(),
            reserved_bytes=torch.cuda.max_memory_reserved(),
            free_bytes=self._least,
        )
        self._start()
        return found


def planned_bytes(model: Model) -> dict[str, int]:
    """Return the planned peak of each phase of an answer."""
    plan = model.plan.devices[0]
    return {
        name: max(plan.phase(phase).peak_bytes for phase in phases)
        for name, phases in PHASES.items()
    }


# --- decode steps one by one ----------------------------------------------------------------------


class Steps:
    """Decode steps behind a prompt of text, without an answer around them."""

    def __init__(self, model: Model, prompt: int) -> None:
        self._model, self._position = model, prompt
        self.cache = model.runtime.new_cache()
        ids = torch.arange(prompt)[None] % 90 + 10
        chunk = model._chunk(ids, None, None, None)
        run_steps(model.runtime.prefill(chunk, None, self.cache, Cancel()))

    def step(self) -> Tensor:
        """Start one step; return its logits, which may not be computed yet."""
        logits = self._model.runtime.decode_one_token(17, self._position, self.cache)
        self._position += 1
        return logits

    def close(self) -> None:
        """Release the cache."""
        self.cache.release()


@contextmanager
def without_graphs(model: Model) -> Iterator[None]:
    """Launch the kernels of decode steps one by one in the body, with the same arithmetic."""
    graphs = model.runtime.graphs
    if graphs is None:
        yield
        return
    before, graphs.trouble = graphs.trouble, "measured without graphs"
    try:
        yield
    finally:
        graphs.trouble = before


def new_folder(run: Run, name: str) -> Path:
    """Return an empty folder for temporary files."""
    folder = run.work / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
