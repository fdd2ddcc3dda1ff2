"""Run many samples through the model layer by layer.

Weights are larger than activations, so the loops are interchanged: one stage's weights are loaded
once, and the activations of all samples go through it before the next stage's weights are loaded. A
39 GB checkpoint that streams from disk is then read once for all samples, not once for each.

`LayerMajorWalk` is this loop for evaluation, for calibration and for the search for a byte budget:

    for number in walk.forward:
        with walk.visit(number) as stage:  # the weights are here inside the body, and only inside
            for key in stage.keys:
                stage.advance(key)

A training step walks the same stages backward (`walk.backward`, `walk.visit_backward`). It runs
each block again from the inputs that the forward walk stored, this time with gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from cogvlm2_lite.architectures.architecture import Phase
from cogvlm2_lite.engine.activations import Activations, Key, MemoryActivations
from cogvlm2_lite.engine.chunk import Chunk
from cogvlm2_lite.engine.runtime import Runtime, Steps, check_cancel
from cogvlm2_lite.events import Cancel
from cogvlm2_lite.inputs.image import OpenedImage, pixel_values
from cogvlm2_lite.memory.residency import HasSlots
from cogvlm2_lite.model.decoder import DecoderBlock, Step, place_features
from cogvlm2_lite.model.kv_cache import KVCache
from cogvlm2_lite.model.projector import Projector
from cogvlm2_lite.model.vision import VisionBlock


class LoadWeights(Protocol):
    """Loads the weights of a piece; they are released when the context ends."""

    def __call__(
        self, piece: HasSlots, *, backward: bool = False
    ) -> AbstractContextManager[object]: ...


def same_sample(sample: int) -> int | None:
    """Return the sample itself: most stages start from their own sample's activation."""
    return sample


@dataclass(frozen=True, kw_only=True)
class LayerStage:
    """One piece of the model, and what it does to the activation of a sample.

    name    shown as progress
    piece   the piece of the model whose weights it needs
    keys    the activations that go through it, in order
    run     computes one output; the first stage gets no input
    source  maps a sample's number to the sample whose activation of the previous stage is its
            input. Several samples may start from one picture; None: no input
    """

    name: str
    piece: HasSlots
    keys: Sequence[Key]
    run: Callable[[Key, Tensor | None], Tensor]
    source: Callable[[int], int | None] = same_sample


class StageVisit:
    """A stage while its weights are in memory, with the inputs that are stored for it."""

    def __init__(self, number: int, stage: LayerStage, activations: Activations) -> None:
        self.number, self.stage = number, stage
        self._activations = activations

    @property
    def keys(self) -> Sequence[Key]:
        """The activations that go through the stage, in order."""
        return self.stage.keys

    def input(self, key: Key, part: int | None = None) -> Tensor | None:
        """Return the stored input of a key; None if the stage has no input.

        part  which of the sample's activations of the previous stage; None: the same as in the key
        """
        source = None if self.number == 0 else self.stage.source(key[0])
        if source is None:
            return None
        return self._activations.read(self.number, (source, key[1] if part is None else part))

    def output(self, key: Key, part: int | None = None) -> Tensor:
        """Return the stage's output for a key; `part` as for `input`."""
        return self.stage.run(key, self.input(key, part))

    def advance(self, key: Key, part: int | None = None) -> None:
        """Compute an output and store it as an input of the next stage."""
        self._activations.write(self.number + 1, key, self.output(key, part))


class LayerMajorWalk:
    """Walks over the stages of a model, with the activations of all samples in a store.

    stages       in the order of a forward pass
    load_weights loads the weights of a stage and releases them
    activations  knows how many stages are finished; the walk continues from there
    """

    def __init__(
        self, stages: Sequence[LayerStage], load_weights: LoadWeights, activations: Activations
    ) -> None:
        self.stages = stages
        self.activations = activations
        self._load_weights = load_weights

    @property
    def forward(self) -> range:
        """The stages that are not finished, first to last."""
        return range(self.activations.done, len(self.stages))

    @property
    def backward(self) -> range:
        """The finished stages, last to first; their inputs must have been kept."""
        return range(self.activations.done - 1, -1, -1)

    @contextmanager
    def visit(self, number: int) -> Iterator[StageVisit]:
        """Load a stage's weights for the body; the stage counts as finished after it."""
        stage = self.stages[number]
        with self._load_weights(stage.piece):
            yield StageVisit(number, stage, self.activations)
        self.activations.finish(number + 1)

    @contextmanager
    def visit_backward(self, number: int) -> Iterator[StageVisit]:
        """Load a finished stage's weights for the body; its inputs are deleted afterwards."""
        stage = self.stages[number]
        with self._load_weights(stage.piece, backward=True):
            yield StageVisit(number, stage, self.activations)
        self.activations.forget(number)


# --- evaluation -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PrefixGroup:
    """Sequences that share a prefix; each is computed as if it were alone.

    prefix    bos and the picture; None without a picture: then the suffixes begin with bos
    features  [1, image tokens, hidden] of the picture
    suffixes  a question and its answer each; their positions follow those of the prefix
    """

    prefix: Chunk | None
    features: Tensor | None
    suffixes: Sequence[Chunk]

    @property
    def shared(self) -> int:
        """Tokens of the prefix."""
        return 0 if self.prefix is None else self.prefix.tokens

    @property
    def chunks(self) -> list[tuple[int, Chunk]]:
        """The prefix as part 0 if there is one, and the suffixes as parts 1, 2, ..."""
        prefix = [] if self.prefix is None else [(_PREFIX, self.prefix)]
        return [*prefix, *enumerate(self.suffixes, 1)]


_PREFIX = 0
"""The part of a group's key for the prefix; the suffixes are 1, 2, ..."""


def encode_each(
    runtime: Runtime,
    pictures: Sequence[OpenedImage],
    cancel: Cancel,
    adapter: str | None = None,
) -> Steps[list[Tensor]]:
    """Encode pictures layer by layer; yields Progress per block.

    adapter  name of the adapter that acts; None: none
    Returns  [1, image tokens with boi and eoi, hidden] each, in host memory, where activations are
             also kept between blocks
    """
    parts, devices = runtime.parts, runtime.vision_devices
    keys = [(number, 0) for number in range(len(pictures))]
    adapted = runtime.adapters.on_picture(adapter)

    def embed(key: Key, _: Tensor | None) -> Tensor:
        pixels = torch.from_numpy(pixel_values(pictures[key[0]], runtime.config.vision))
        return parts.tower.embedding(pixels.to(devices[0], runtime.dtype))

    def through(piece: VisionBlock | Projector, device: torch.device) -> LayerStage:
        def run(_: Key, hidden: Tensor | None) -> Tensor:
            assert hidden is not None
            return piece(hidden.to(device), adapted)

        return LayerStage(name="encode", piece=piece, keys=keys, run=run)

    stages = [
        LayerStage(name="patch embedding", piece=parts.tower.embedding, keys=keys, run=embed),
        *map(through, parts.tower.blocks, devices),
        through(parts.projector, runtime.last_device),
    ]
    waiting = yield from _in_host_memory(runtime, Phase.ENCODE, stages, len(devices), cancel)
    return [waiting.read(len(stages), key) for key in keys]


def prefill_each(
    runtime: Runtime, groups: Sequence[PrefixGroup], cancel: Cancel, adapter: str | None = None
) -> Steps[list[list[Tensor]]]:
    """Run sequences layer by layer; yields Progress per block.

    A prefix is computed once for all its suffixes. One cache is enough: a layer finishes a group
    before it starts the next.

    adapter  name of the adapter that acts; None: none
    Returns  for each group and each of its suffixes [1, tokens, hidden], before the final norm, in
             host memory
    """
    pictured = any(group.prefix is not None for group in groups)
    phase = Phase.PREFILL_IMAGE if pictured else Phase.PREFILL_TEXT
    cache = runtime.new_cache()
    try:
        with runtime.residency.phase(phase):
            steps = _steps(runtime, groups, cache, adapter)
        stages = _decoder_stages(runtime, groups, steps, cache)
        waiting = yield from _in_host_memory(runtime, phase, stages, len(stages) - 1, cancel)
    finally:
        cache.release()
    return [
        [waiting.read(len(stages), (number, part)) for part, _ in group.chunks if part != _PREFIX]
        for number, group in enumerate(groups)
    ]


def _in_host_memory(
    runtime: Runtime, phase: Phase, stages: Sequence[LayerStage], blocks: int, cancel: Cancel
) -> Steps[MemoryActivations]:
    """Run all samples through the stages of a phase; yields Progress for each of the blocks.

    Stage 0 embeds; the blocks follow it.
    """
    waiting = MemoryActivations(read_once=True)
    walk = LayerMajorWalk(stages, partial(runtime.residency.at, phase), waiting)
    for number in walk.forward:
        with walk.visit(number) as stage:
            for key in stage.keys:
                stage.advance(key)
                check_cancel(cancel)
        if 1 <= number <= blocks:
            yield runtime.progress(stages[number].name, number, blocks)
    return waiting


def _steps(
    runtime: Runtime, groups: Sequence[PrefixGroup], cache: KVCache, adapter: str | None
) -> dict[Key, Step]:
    """Return what the layers share for each chunk, in host memory.

    On the device the plan has room for the positions and mask of one chunk, not of all.
    """
    steps = {}
    for number, group in enumerate(groups):
        for part, chunk in group.chunks:
            with _behind_prefix(cache, group, part):
                step = runtime.step_of(chunk, cache, adapter)
                steps[number, part] = step.on(torch.device("cpu"))
    return steps


@contextmanager
def _behind_prefix(cache: KVCache, group: PrefixGroup, part: int) -> Iterator[None]:
    """Cut the cache to what precedes a part of a group: nothing, or the prefix.

    The prefix of a group comes first; its keys and values are kept for the suffixes.
    """
    cache.truncate(0 if part == _PREFIX else group.shared)
    yield
    if part == _PREFIX:
        cache.advance(group.shared)


def _decoder_stages(
    runtime: Runtime, groups: Sequence[PrefixGroup], steps: Mapping[Key, Step], cache: KVCache
) -> list[LayerStage]:
    """Return the stages from token ids to the last block."""
    decoder, devices = runtime.parts.decoder, runtime.decoder_devices
    chunks = {
        (number, part): chunk for number, group in enumerate(groups) for part, chunk in group.chunks
    }
    keys = list(chunks)

    def embed(key: Key, _: Tensor | None) -> Tensor:
        group, chunk = groups[key[0]], chunks[key]
        hidden = decoder.embedding(chunk.input_ids).to(runtime.dtype).to(devices[0])
        if key[1] != _PREFIX:
            return hidden
        assert group.features is not None
        return place_features(
            hidden, group.features.to(devices[0]), chunk.image_mask.to(devices[0])
        )

    def through(block: DecoderBlock, device: torch.device) -> LayerStage:
        def run(key: Key, hidden: Tensor | None) -> Tensor:
            assert hidden is not None
            with _behind_prefix(cache, groups[key[0]], key[1]):
                return block(hidden.to(device), steps[key].on(device))

        return LayerStage(name="prefill", piece=block, keys=keys, run=run)

    embedding = LayerStage(name="words", piece=decoder.embedding, keys=keys, run=embed)
    return [embedding, *map(through, decoder.blocks, devices)]
