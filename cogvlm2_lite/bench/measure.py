"""Measures one answer of the engine, phase by phase."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cogvlm2_lite.architectures.architecture import ModelConfig, Part, Phase, expected_tensors
from cogvlm2_lite.bench.peak import PeakMemory
from cogvlm2_lite.bench.probe import MachineLimits, probe
from cogvlm2_lite.bench.synthetic import NoiseReader, released_config, synthetic_catalog
from cogvlm2_lite.config import read_config
from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.devices import Compute
from cogvlm2_lite.engine.model import Model, open_model
from cogvlm2_lite.events import (
    Event,
    Finished,
    ImageEncoded,
    Prefilled,
    Progress,
)
from cogvlm2_lite.memory.plan import DeviceBudget
from cogvlm2_lite.memory.work import decoder_flops, encode_flops
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.weights.adapter import Adapter
from cogvlm2_lite.weights.adapter_choice import AdapterChoice
from cogvlm2_lite.weights.adapter_sum import read_adapters
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.footprint import held_bytes, packed_copy_bytes
from cogvlm2_lite.weights.identity import identify_base
from cogvlm2_lite.weights.kernels.choice import choose_kernels
from cogvlm2_lite.weights.loader import PieceReader
from cogvlm2_lite.weights.reader import Reader

QUESTION = "Describe this picture. " * 4
_PHASES = {
    "encode": (Phase.ENCODE,),
    "prefill": (Phase.PREFILL_IMAGE, Phase.PREFILL_TEXT),
    "decode": (Phase.DECODE,),
}


@dataclass(frozen=True, kw_only=True)
class PhaseResult:
    """One phase of an answer.

    seconds           of wall time
    cpu_s             of processor time, all threads together
    tokens            that went through: image tokens, prompt tokens, produced tokens
    flops             2 per multiply-add
    bytes_read        minimum that must be read from memory: weights once per picture, prompt or
                      token, and for decoding the key/value cache
    full_seconds      `seconds` extrapolated to all layers of the released model
    planned_bytes     peak of the plan; on a CPU including the picture that is kept
    accounted_bytes   peak of the bytes in the arena's account
    measured_bytes    peak of allocated (GPU) or resident (CPU) bytes, without those before loading
    """

    name: str
    seconds: float
    cpu_s: float
    tokens: int
    flops: int
    bytes_read: int
    full_seconds: float
    planned_bytes: int
    accounted_bytes: int
    measured_bytes: int

    @property
    def tokens_per_s(self) -> float:
        """The rate, extrapolated to all layers of the released model."""
        return self.tokens / self.full_seconds

    @property
    def flops_per_s(self) -> float:
        return self.flops / self.seconds

    @property
    def bytes_per_s(self) -> float:
        return self.bytes_read / self.seconds


@dataclass(frozen=True, kw_only=True)
class AdapterCost:
    """What the adapter costs, with which the result was measured.

    held_bytes   of its matrices in memory
    token_bytes  of those that each generated token reads
    base         the phases without the adapter, in the same model
    """

    name: str
    held_bytes: int
    token_bytes: int
    base: tuple[PhaseResult, ...]

    @property
    def share_of_token(self) -> float:
        """The bytes that it adds to a token, as a share of those without it."""
        decode = self.base[-1]
        return self.token_bytes * decode.tokens / decode.bytes_read


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """The result of one run.

    layers       (vision, decoder) layers that were measured
    full_layers  layers of the whole model
    load_s       time to load and pack what decoding needs, before the first question
    rounds       number of answers; the last one counts, and a single one includes loading weights
    steps        how decode steps are launched on a GPU; "" on a CPU
    adapter      what an adapter costs that was measured, too; None: none was
    """

    what: str
    device: str
    dtype: str
    kernels: str
    attention: str
    threads: int
    layers: tuple[int, int]
    full_layers: tuple[int, int]
    budget_bytes: int
    streamed_bytes: int
    load_s: float
    rounds: int
    steps: str
    answer: str
    limits: MachineLimits
    phases: tuple[PhaseResult, ...]
    adapter: AdapterCost | None = None

    @property
    def is_extrapolated(self) -> bool:
        return self.layers != self.full_layers


@dataclass(frozen=True, kw_only=True)
class BenchedModel:
    """The model to measure, and the number of layers of the whole model.

    adapter  acts on the answers that are measured; None: none does
    """

    name: str
    folder: Path
    catalog: Catalog
    reader: PieceReader
    full_layers: tuple[int, int]
    adapter: Adapter | None = None

    @property
    def config(self) -> ModelConfig:
        return self.catalog.config


def synthetic_subject(layers: int | None, *, keep: bool) -> BenchedModel:
    """Return a synthetic model with the released shapes.

    layers  of each kind; None: all
    keep    as for NoiseReader
    """
    catalog = synthetic_catalog(released_config(layers, layers))
    full = layers_of(released_config(None, None))
    return BenchedModel(
        name="synthetic 19B, NF4",
        folder=checkpoint_folder(),  # for its tokenizer
        catalog=catalog,
        reader=NoiseReader(keep=keep),
        full_layers=full,
    )


def folder_subject(
    folder: Path, *, name: str, adapters: Sequence[AdapterChoice] = (), any_base: bool = False
) -> BenchedModel:
    """Return the model of a folder.

    name      its name in the result
    adapters  of one name, so that they are added up
    any_base  accept an adapter that was trained on another model of the same shape

    Raises AdapterError as `read_adapters` does.
    """
    catalog = Catalog.open(folder, read_config(folder))
    adapter = None
    if adapters:
        base = identify_base(catalog, folder)
        (adapter,) = read_adapters(adapters, catalog.config, base=base, any_base=any_base)
    full = layers_of(catalog.config)
    return BenchedModel(
        name=name,
        folder=folder,
        catalog=catalog,
        reader=Reader(catalog),
        full_layers=full,
        adapter=adapter,
    )


def layers_of(config: ModelConfig) -> tuple[int, int]:
    """Return the number of vision and of decoder layers."""
    return config.vision.num_hidden_layers, config.num_hidden_layers


def measure(
    subject: BenchedModel,
    compute: Compute,
    budget: DeviceBudget,
    *,
    tokens: int,
    rounds: int,
    context: int | None = None,
    limits: MachineLimits | None = None,
) -> Iterator[Progress | BenchResult]:
    """Ask about a picture and measure; yields progress, and finally the result.

    With an adapter it asks without it first, as often.

    rounds  number of answers, each about another picture; the last one counts
    limits  the best rates of the device; None: they are measured first
    """
    limits = limits or probe(compute.device, compute.dtype)
    peak = PeakMemory(compute.device)
    model = open_model(
        subject.folder,
        compute=compute,
        budgets=[budget],
        context=context,
        weights=(subject.catalog, subject.reader),
        adapters=[] if subject.adapter is None else [subject.adapter],
        speculation=False,  # random weights repeat themselves, which would count as speed
    )
    began = time.perf_counter()
    yield from model.warm_up()
    load_s = time.perf_counter() - began
    cost = None
    if subject.adapter is not None:
        model.adapter = None
        stopwatch = yield from _rounds(model, peak, tokens=tokens, rounds=rounds)
        cost = _cost(subject.adapter, model, tuple(_results(subject, model, stopwatch)))
        model.adapter = subject.adapter.name
    stopwatch = yield from _rounds(model, peak, tokens=tokens, rounds=rounds)
    yield BenchResult(
        what=subject.name,
        device=str(compute.device),
        dtype=str(compute.dtype).removeprefix("torch."),
        kernels=choose_kernels(compute.device, compute.dtype).name,
        attention=model.runtime.parts.full_attention.name,
        threads=torch.get_num_threads(),
        layers=layers_of(subject.config),
        full_layers=subject.full_layers,
        budget_bytes=budget.device_bytes,
        streamed_bytes=model.runtime.residency.streamed_bytes,
        load_s=load_s,
        rounds=rounds,
        steps=_describe_steps(model),
        answer=stopwatch.text,
        limits=limits,
        phases=tuple(_results(subject, model, stopwatch)),
        adapter=cost,
    )


def _rounds(
    model: Model, peak: PeakMemory, *, tokens: int, rounds: int
) -> Generator[Progress, None, _Stopwatch]:
    """Ask in rounds; return the stopwatch of the last one."""
    for number in range(rounds):
        model.engine.pictures.clear()
        stopwatch = _Stopwatch(model, peak)
        yield from stopwatch.watch(_ask(model, number, tokens))
    return stopwatch


def _cost(adapter: Adapter, model: Model, base: tuple[PhaseResult, ...]) -> AdapterCost:
    itemsize = model.compute.dtype.itemsize
    numbers = _low_rank(adapter, model.config)
    return AdapterCost(
        name=adapter.name,
        held_bytes=numbers.total() * itemsize,
        token_bytes=numbers[Part.LANGUAGE_EXPERT] * itemsize,
        base=base,
    )


def _low_rank(adapter: Adapter | None, config: ModelConfig) -> Counter[Part]:
    """Return how many numbers an adapter has for each part of the model."""
    parts = {spec.name: spec.part for spec in expected_tensors(config).values()}
    found: Counter[Part] = Counter()
    for matrix, pair in {} if adapter is None else adapter.pairs.items():
        found[parts[matrix]] += pair.numel
    return found


def _describe_steps(model: Model) -> str:
    graphs = model.runtime.graphs
    if graphs is None:
        return ""
    if graphs.replays or graphs.trouble:
        return graphs.describe()
    streams = bool(model.plan.devices[0].phase(Phase.DECODE).streamed)
    why = "weights are streamed" if streams else "there were too few for a CUDA graph"
    return f"launched one by one, because {why}"


def _ask(model: Model, number: int, tokens: int) -> Iterator[Event]:
    pixels = np.random.default_rng(number).integers(0, 256, (1344, 1344, 3), dtype=np.uint8)
    sampling = Sampling(max_new_tokens=tokens, repetition_guard=False)
    return model.answer(QUESTION, Image.fromarray(pixels), sampling=sampling)


@dataclass(frozen=True, kw_only=True)
class _Lap:
    seconds: float
    cpu_s: float
    block_s: float
    accounted_bytes: int
    measured_bytes: int


class _Stopwatch:
    """Measures each phase, and each block in it, from the events of an answer."""

    def __init__(self, model: Model, peak: PeakMemory) -> None:
        self._device, self._backend = model.compute.device, model.compute.backend
        self._arena, self._peak = model.runtime.arenas[0], peak
        self.laps: dict[str, _Lap] = {}
        self.finished: Finished | None = None
        self.text = ""
        self._begin()

    def watch(self, events: Iterator[Event]) -> Iterator[Progress]:
        """Measure while passing on the progress events."""
        self._begin()
        for event in events:
            self._peak.look()
            if isinstance(event, Progress):
                if event.phase != "decode":  # whose progress does not come after every block
                    self._block()
                yield event
            elif isinstance(event, ImageEncoded):
                self._end("encode")
            elif isinstance(event, Prefilled):
                self._end("prefill")
            elif isinstance(event, Finished):
                self._end("decode")
                self.finished, self.text = event, event.text

    def _begin(self) -> None:
        self._began = self._last = self._now()
        self._cpu = time.process_time()
        self._blocks: list[float] = []
        self._arena.reset_peak()
        self._peak.reset()

    def _block(self) -> None:
        now = self._now()
        self._blocks.append(now - self._last)
        self._last = now

    def _end(self, name: str) -> None:
        self.laps[name] = _Lap(
            seconds=self._now() - self._began,
            cpu_s=time.process_time() - self._cpu,
            block_s=sum(self._blocks),
            accounted_bytes=self._arena.peak_bytes,
            measured_bytes=self._peak.nbytes,
        )
        self._begin()

    def _now(self) -> float:
        self._backend.synchronize(self._device)
        return time.perf_counter()


def _results(subject: BenchedModel, model: Model, stopwatch: _Stopwatch) -> Iterator[PhaseResult]:
    """Yield the result of each phase, from laps, operations, bytes and the plan."""
    finished, laps = stopwatch.finished, stopwatch.laps
    assert finished is not None
    config = subject.config
    packs = choose_kernels(model.compute.device, model.compute.dtype).packs
    steps = max(1, finished.completion_tokens - 1)
    text, image = finished.prompt_tokens - finished.image_tokens, finished.image_tokens
    context = finished.prompt_tokens + steps // 2
    held = _bytes_of(subject.catalog, model.compute.dtype.itemsize, packs=False)
    once = _bytes_of(subject.catalog, model.compute.dtype.itemsize, packs=packs)
    cache = model.runtime.config.kv_bytes_per_token * model.compute.dtype.itemsize // 2
    # From prefill on, the encoded picture is kept in addition to the memory of the phases.
    kept = model.engine.pictures.nbytes if model.plan.devices[0].budget.in_ram else 0
    language = once[Part.LANGUAGE_EXPERT] + once[Part.NORMS] + once[Part.LM_HEAD]
    acting = None if model.adapter is None else subject.adapter
    added = _low_rank(acting, config)
    for part, numbers in added.items():
        held[part] += numbers * model.compute.dtype.itemsize
    seen = added[Part.VISION] + added[Part.PROJECTOR]
    read = added[Part.LANGUAGE_EXPERT]
    language += read * model.compute.dtype.itemsize
    figures = {
        "encode": (
            image,
            encode_flops(config) + 2 * seen * image,
            held[Part.VISION] + held[Part.PROJECTOR],
        ),
        "prefill": (
            finished.prompt_tokens,
            decoder_flops(config, tokens=image, keys=image // 2)
            + decoder_flops(config, tokens=text, keys=image, scored=0)
            + 2 * (added[Part.VISION_EXPERT] * image + read * text),
            held[Part.VISION_EXPERT] + 2 * held[Part.LANGUAGE_EXPERT] + held[Part.LM_HEAD],
        ),
        "decode": (
            steps,
            steps * (decoder_flops(config, tokens=1, keys=context) + 2 * read),
            steps * (language + cache * context),
        ),
    }
    for name, (tokens, flops, nbytes) in figures.items():
        lap = laps[name]
        head_s = _head_seconds(model, steps) if name == "decode" else 0.0
        yield PhaseResult(
            name=name,
            seconds=lap.seconds,
            cpu_s=lap.cpu_s,
            tokens=tokens,
            flops=flops,
            bytes_read=nbytes,
            full_seconds=_with_all_layers(subject, name, lap, head_s),
            planned_bytes=max(
                device.phase(phase).peak_bytes
                for device in model.plan.devices
                for phase in _PHASES[name]
            )
            + (0 if name == "encode" else kept),
            accounted_bytes=lap.accounted_bytes,
            measured_bytes=lap.measured_bytes,
        )


def _bytes_of(catalog: Catalog, itemsize: int, *, packs: bool) -> dict[Part, int]:
    """Return the bytes that products read: the packed copy of a matrix if it has one."""
    sums = dict.fromkeys(Part, 0)
    for stored in catalog.tensors.values():
        copy = 0
        if packs and stored.quant is not None:
            copy = packed_copy_bytes(stored.spec, stored.quant.group)
        sums[stored.spec.part] += copy or held_bytes(stored, itemsize=itemsize, packs=False)
    return sums


def _with_all_layers(subject: BenchedModel, name: str, lap: _Lap, head_s: float) -> float:
    """Return the time with all layers, as if each took as long as a measured one."""
    (vision, decoder), (all_vision, all_decoder) = layers_of(subject.config), subject.full_layers
    measured, full = (vision, all_vision) if name == "encode" else (decoder, all_decoder)
    blocks_s = max(0.0, lap.seconds - head_s) if name == "decode" else lap.block_s
    return lap.seconds + (full - measured) * blocks_s / measured


def _head_seconds(model: Model, steps: int) -> float:
    """Return the time of final norm and lm_head, which does not grow with the layers."""
    runtime = model.runtime
    hidden = torch.ones(1, 1, runtime.config.hidden_size, dtype=runtime.dtype)
    hidden = hidden.to(model.compute.device)
    times = []
    for _ in range(4):
        began = time.perf_counter()
        runtime.compute_logits(hidden).cpu()
        times.append(time.perf_counter() - began)
    return steps * sorted(times)[1]
