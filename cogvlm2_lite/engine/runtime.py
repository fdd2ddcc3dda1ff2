"""A loaded model: its mathematics, its weights' residency, and the loops over its blocks."""

from __future__ import annotations

import weakref
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from cogvlm2_lite.architectures.architecture import ModelConfig, Part, Phase, expected_tensors
from cogvlm2_lite.backends.base import Recorder
from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.engine.chunk import Chunk
from cogvlm2_lite.engine.cuda_graph import Replayer
from cogvlm2_lite.events import Cancel, Progress
from cogvlm2_lite.memory.arena import Arena
from cogvlm2_lite.memory.inventory import unit_key
from cogvlm2_lite.memory.plan import MemoryPlan
from cogvlm2_lite.memory.residency import HasSlots, Loader, Residency
from cogvlm2_lite.model.attention import visible_keys
from cogvlm2_lite.model.decoder import Decoder, DecoderBlock, Routing, Step, place_features
from cogvlm2_lite.model.full_attention import choose_full_attention
from cogvlm2_lite.model.kv_cache import KVCache, KVKind, Place
from cogvlm2_lite.model.projector import Projector
from cogvlm2_lite.model.rotary import RopeMode, Rotary, Rotation
from cogvlm2_lite.model.token_attention import choose_token_attention
from cogvlm2_lite.model.vision import VisionTower

_ALL_LANGUAGE = Routing(vision=None)

Result = TypeVar("Result")
Steps = Generator[Progress, None, Result]
"""Work that tells its progress while it runs and returns a result."""


class Cancelled(Exception):  # noqa: N818 - a signal, not an error
    """Unwinds a phase after Cancel.set(). Never leaves the engine."""


def run(steps: Steps[Result]) -> Result:
    """Do the work without looking at its progress."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: Result = done.value
            return result


@dataclass(frozen=True, kw_only=True)
class Talk:
    """Texts that stand behind the same beginning, each as if it were alone.

    start     bos and the picture; None without a picture, then the ends begin with bos
    features  [1, image tokens, hidden] of the picture
    ends      question and answer each; their positions go on from the start
    """

    start: Chunk | None
    features: Tensor | None
    ends: Sequence[Chunk]

    @property
    def shared(self) -> int:
        """Tokens of the beginning."""
        return 0 if self.start is None else self.start.tokens


@dataclass(frozen=True, kw_only=True)
class Token:
    """A produced token on its way into a conversation's cache.

    position  its RoPE position
    """

    token: int
    position: int
    cache: KVCache


@dataclass(kw_only=True)
class _Run:
    """Tokens on their way through the blocks; they wait in host memory."""

    hidden: Tensor | None = None
    step: Step | None = None

    def through(self, block: DecoderBlock, home: torch.device) -> None:
        """Go through one block, if there are any tokens."""
        if self.hidden is not None and self.step is not None:
            self.hidden = block(self.hidden.to(home), self.step.on(home)).cpu()


class Runtime:
    """Runs the three phases.

    `encode` and `prefill` give way after every block, and leave nothing but their own state behind
    there: other answers may be decoded in between.

    loaders  one per device of the plan
    devices  the torch devices of the plan, in its order
    kv       how keys and values are stored
    arenas   that account for the devices' bytes; None: new ones
    record   how decode steps are recorded to be replayed; None: as the back end of the first
             device does, which may be not at all
    """

    def __init__(
        self,
        config: ModelConfig,
        loaders: Sequence[Loader],
        plan: MemoryPlan,
        *,
        devices: Sequence[torch.device],
        dtype: torch.dtype,
        rope: RopeMode,
        kv: KVKind = KVKind.FULL,
        arenas: Sequence[Arena] | None = None,
        record: Recorder | None = None,
    ) -> None:
        self.config = config
        self.dtype = dtype
        self._kv = kv
        self._devices = tuple(devices)
        self.attention = choose_full_attention(devices[0], dtype)
        self.tower = VisionTower(config.vision, self.attention.attend)
        self.projector = Projector(config)
        self.token_attention = choose_token_attention(devices[0], dtype, config.head_dim)
        self.decoder = Decoder(config, self.token_attention.attend)
        self.rotary = Rotary(config, rope, dtype=dtype, device=devices[0])
        self.arenas = tuple(arenas or (Arena() for _ in devices))
        keys = {spec.name: unit_key(spec) for spec in expected_tensors(config).values()}
        pieces: list[HasSlots] = [
            self.tower.embedding,
            *self.tower.blocks,
            self.projector,
            self.decoder.embedding,
            self.rotary,
            *self.decoder.blocks,
            self.decoder.head,
        ]
        self.residency = Residency(loaders, keys, pieces, plan, self.arenas)
        record = record or backend_of(devices[0]).recorder(devices[0])
        self.replayer = None if record is None else Replayer(record)
        self._inputs: weakref.WeakKeyDictionary[KVCache, DecodeInputs] = weakref.WeakKeyDictionary()
        self.follow(plan)

    def follow(self, plan: MemoryPlan) -> None:
        """Take a plan for the same devices; the spread of the blocks over them must be the same."""
        self.plan = plan
        self.residency.follow(plan)
        self._vision_home = self._homes(Part.VISION)
        self._decoder_home = self._homes(Part.LANGUAGE_EXPERT)

    def _homes(self, part: Part) -> list[torch.device]:
        return [self._devices[index] for index in self._indices(part)]

    def _indices(self, part: Part) -> list[int]:
        """Number the device of each block."""
        return [i for i, device in enumerate(self.plan.devices) for _ in device.blocks[part]]

    def new_cache(self, batch: int = 1) -> KVCache:
        """Give an empty key/value cache, each layer on the device of its block."""
        homes = self._decoder_home
        arenas = [self.arenas[index] for index in self._indices(Part.LANGUAGE_EXPERT)]

        def account(layer: int, nbytes: int) -> None:
            arenas[layer].take(nbytes)

        return KVCache(
            self.config,
            batch=batch,
            dtype=self.dtype,
            devices=homes,
            kind=self._kv,
            limit=self.plan.context,
            account=account,
        )

    def encode(self, pixel_values: Tensor, cancel: Cancel) -> Steps[Tensor]:
        """Encode pictures; yields Progress per block and returns the features.

        pixel_values  [batch, channels, height, width], normalised
        Returns       [batch, image tokens with boi and eoi, hidden]
        """
        residency, homes = self.residency, self._vision_home
        hidden = pixel_values.to(homes[0], self.dtype)
        with residency.phase(Phase.ENCODE):
            for embedding in residency.walk([self.tower.embedding]):
                hidden = embedding(hidden)
        for done, block in enumerate(self.tower.blocks, 1):
            _check(cancel)
            with residency.at(Phase.ENCODE, block):
                hidden = block(hidden.to(homes[done - 1]))
            yield self._progress("encode", done, len(homes))
        with residency.at(Phase.ENCODE, self.projector):
            return self.projector(hidden.to(self._devices[-1]))

    def prefill(
        self, chunk: Chunk, features: Tensor | None, cache: KVCache, cancel: Cancel
    ) -> Steps[Tensor]:
        """Run a chunk behind what the cache holds; yields Progress per block.

        features  [images, image tokens, hidden] for the chunk's image tokens, or None
        Returns   [batch, tokens, hidden], before the final norm
        """
        residency, homes = self.residency, self._decoder_home
        phase = Phase.PREFILL_IMAGE if chunk.has_image else Phase.PREFILL_TEXT
        with residency.phase(phase):
            step = self._step(chunk, cache)
            hidden = self._embed(chunk.input_ids)
            if features is not None:
                places = chunk.image_mask.to(homes[0])
                hidden = place_features(hidden, features.to(homes[0]), places)
        for done, block in enumerate(self.decoder.blocks, 1):
            _check(cancel)
            home = homes[done - 1]
            with residency.at(phase, block):
                hidden = block(hidden.to(home), step.on(home))
            yield self._progress("prefill", done, len(homes))
        cache.advance(chunk.tokens)
        return hidden

    def encode_each(self, pictures: Iterable[Tensor], cancel: Cancel) -> Steps[list[Tensor]]:
        """Encode pictures one after another, bringing each block in once for all of them.

        pictures  [1, channels, height, width] each, normalised
        Returns   [1, image tokens with boi and eoi, hidden] each, in host memory, where they also
                  wait between blocks
        """
        residency, homes = self.residency, self._vision_home
        with residency.phase(Phase.ENCODE):
            for embedding in residency.walk([self.tower.embedding]):
                waiting = [embedding(p.to(homes[0], self.dtype)).cpu() for p in pictures]
            for done, block in enumerate(residency.walk(self.tower.blocks), 1):
                for number, hidden in enumerate(waiting):
                    waiting[number] = block(hidden.to(homes[done - 1])).cpu()
                    _check(cancel)
                yield self._progress("encode", done, len(homes))
            for projector in residency.walk([self.projector]):
                waiting = [projector(hidden.to(self._devices[-1])).cpu() for hidden in waiting]
        return waiting

    def prefill_each(self, talks: Sequence[Talk], cancel: Cancel) -> Steps[list[list[Tensor]]]:
        """Run talks one after another, bringing each block in once for all of them.

        A beginning is computed once for all ends behind it. One cache is enough: a layer is done
        with a talk before it sees the next.

        Returns  of each talk, of each end: [1, tokens, hidden], before the final norm, in host
                 memory
        """
        residency, homes = self.residency, self._decoder_home
        pictured = any(talk.start is not None for talk in talks)
        cache = self.new_cache()
        try:
            with residency.phase(Phase.PREFILL_IMAGE if pictured else Phase.PREFILL_TEXT):
                runs = [self._begin(talk, cache) for talk in talks]
                for done, block in enumerate(residency.walk(self.decoder.blocks), 1):
                    home = homes[done - 1]
                    for talk, (start, *ends) in zip(talks, runs, strict=True):
                        cache.truncate(0)
                        start.through(block, home)
                        cache.advance(talk.shared)
                        for end in ends:
                            end.through(block, home)
                        _check(cancel)
                    yield self._progress("prefill", done, len(homes))
        finally:
            cache.release()
        return [[end.hidden for end in ends if end.hidden is not None] for _, *ends in runs]

    def _begin(self, talk: Talk, cache: KVCache) -> list[_Run]:
        """Embed a talk's beginning (perhaps empty) and its ends."""
        runs, home = [_Run()], self._decoder_home[0]
        cache.truncate(0)
        for chunk in (talk.start, *talk.ends):
            if chunk is None:
                continue
            # The plan has room for the positions and mask of one chunk, not of all that wait.
            step = self._step(chunk, cache).on(torch.device("cpu"))
            hidden = self._embed(chunk.input_ids)
            if chunk is not talk.start:
                runs.append(_Run(hidden=hidden.cpu(), step=step))
                continue
            assert talk.features is not None
            places = chunk.image_mask.to(home)
            hidden = place_features(hidden, talk.features.to(home), places)
            runs[0] = _Run(hidden=hidden.cpu(), step=step)
            cache.advance(chunk.tokens)
        return runs

    def score(self, hidden: Tensor) -> Tensor:
        """Score the vocabulary, [batch, tokens, hidden] -> [batch, tokens, vocab] float32."""
        with self.residency.phase(Phase.DECODE):
            return self._score(hidden)

    def decode_one_token(self, token: int, position: int, cache: KVCache) -> Tensor:
        """Run one produced token, a language token always; gives scores [vocab] float32."""
        (scores,) = self.decode_each([Token(token=token, position=position, cache=cache)])
        return scores

    def decode_each(self, tokens: Sequence[Token]) -> list[Tensor]:
        """Run one produced token of each of several conversations; returns scores [vocab] of each.

        One pass over the weights serves all of them, also as a CUDA graph: a graph belongs to the
        conversations whose caches it reads, and a new one is recorded when others take part. Each
        gets the scores that it gets alone, to the bit: `DecoderBlock.each` promises it for an
        ordinary step, and a graph is kept only if it repeats an ordinary step to the bit. No cache
        counts its token before all are done.
        """
        for token in tokens:
            token.cache.reserve(token.cache.length + 1)
        with self.residency.phase(Phase.DECODE):
            if len(tokens) == 1:
                scores = [self._decode_one(tokens[0])]
            else:
                scores = self._decode_together(tokens)
        for token in tokens:
            token.cache.advance(1)
        return scores

    @property
    def _replays(self) -> bool:
        """Whether no weight and no cache buffer moves while decoding, and that is made use of."""
        device = self.plan.devices[0]
        moves = len(self.plan.devices) > 1 or device.phase(Phase.DECODE).streamed
        return self.replayer is not None and not moves

    def _decode_one(self, token: Token) -> Tensor:
        hidden, place = self._input(token)
        work = partial(self._decode, hidden, token, place)
        if self.replayer is None or place is None or not self._replays:
            return work()
        key = (token.cache.version, place.window, self.residency.version)
        return self.replayer.run(token.cache, key, work)

    def _input(self, token: Token) -> tuple[Tensor, Place | None]:
        """Give a token's row of the embedding [1, 1, hidden], and where it goes in its cache.

        Where steps may be replayed, both are at fixed addresses. They are also where this plan
        replays none: the arithmetic is the same for every plan, so that streaming changes no bit.
        """
        ids = torch.tensor([[token.token]])
        if self.replayer is None:
            return self._embed(ids), None
        inputs = self._inputs.get(token.cache)
        if inputs is None:
            inputs = DecodeInputs(self.config, self.dtype, self._devices[0])
            self._inputs[token.cache] = inputs
        inputs.write(self._rows(ids), token.position, token.cache.length)
        return inputs.hidden, Place(slot=inputs.slot, window=token.cache.window())

    def _decode(self, hidden: Tensor, token: Token, place: Place | None) -> Tensor:
        """Run all blocks for one language token, hidden [1, 1, hidden]; gives scores [vocab]."""
        step, homes = self._token_step(token, place), self._decoder_home
        for home, block in zip(homes, self.residency.walk(self.decoder.blocks), strict=True):
            hidden = block(hidden.to(home), step.on(home))
        return self._score(hidden)[0, -1]

    def _decode_together(self, tokens: Sequence[Token]) -> list[Tensor]:
        """Run all blocks for a token of each, block by block; returns scores [vocab] of each."""
        inputs = [self._input(token) for token in tokens]
        work = partial(self._decode_each, inputs, tokens)
        if self.replayer is None or not self._replays:
            return list(work())
        caches = tuple(
            (weakref.ref(token.cache), token.cache.version, place and place.window)
            for token, (_, place) in zip(tokens, inputs, strict=True)
        )
        # The residency stands for whichever conversations are decoded together now.
        return list(self.replayer.run(self.residency, (caches, self.residency.version), work))

    def _decode_each(
        self, inputs: Sequence[tuple[Tensor, Place | None]], tokens: Sequence[Token]
    ) -> Tensor:
        """Run all blocks for language tokens, hidden [1, 1, hidden] each.

        Returns [tokens, vocab] float32 scores.
        """
        steps = [self._token_step(t, place) for t, (_, place) in zip(tokens, inputs, strict=True)]
        xs, homes = [hidden for hidden, _ in inputs], self._decoder_home
        for home, block in zip(homes, self.residency.walk(self.decoder.blocks), strict=True):
            xs = block.each([x.to(home) for x in xs], [step.on(home) for step in steps])
        for head in self.residency.walk([self.decoder.head]):
            scores = head.each([x.to(self._devices[-1]) for x in xs])
        return torch.cat([each[0, -1:] for each in scores])

    def _token_step(self, token: Token, place: Place | None) -> Step:
        where, mask = torch.tensor([[token.position]]), None
        if place is not None:
            where = self._inputs[token.cache].position
            keys = torch.arange(place.window, device=place.slot.device)
            mask = (keys <= place.slot)[None, None, None]
        return Step(
            routing=_ALL_LANGUAGE,
            rotations=self._rotations(where, token.position),
            mask=mask,
            causal=False,
            cache=token.cache,
            place=place,
        )

    @property
    def held_bytes(self) -> int:
        """What weights, cache and scratch take on all devices now."""
        return sum(arena.held_bytes for arena in self.arenas)

    def _progress(self, phase: str, done: int, total: int) -> Progress:
        return Progress(phase=phase, done=done, total=total, held_bytes=self.held_bytes)

    def _embed(self, input_ids: Tensor) -> Tensor:
        return self._rows(input_ids).to(self._decoder_home[0])

    def _rows(self, input_ids: Tensor) -> Tensor:
        """Read rows of the embedding, in the compute dtype, in host memory."""
        for embedding in self.residency.walk([self.decoder.embedding]):
            rows = embedding(input_ids)
        return rows.to(self.dtype)

    def _score(self, hidden: Tensor) -> Tensor:
        for head in self.residency.walk([self.decoder.head]):
            scores = head(hidden.to(self._devices[-1]))
        return scores

    def _rotations(self, positions: Tensor, highest: int) -> list[Rotation]:
        for rotary in self.residency.walk([self.rotary]):
            rotations = rotary.rotations(positions.to(self._devices[0]), highest)
        return rotations

    def _step(self, chunk: Chunk, cache: KVCache) -> Step:
        device = self._devices[0]
        keys = cache.length + chunk.tokens
        cache.reserve(keys)
        # A chunk behind others needs a mask: torch's causal flag assumes as many keys as queries.
        first = cache.length == 0 and chunk.key_mask is None
        mask = None
        if not first:
            mask = visible_keys(chunk.tokens, keys, _on(chunk.key_mask, device), device)
        return Step(
            routing=Routing.of(chunk.vision_mask).to(device) if chunk.has_image else _ALL_LANGUAGE,
            rotations=self._rotations(chunk.position_ids, chunk.highest),
            mask=mask,
            causal=first,
            cache=cache,
        )


class DecodeInputs:
    """What a decode step reads, at fixed addresses on a device, written without waiting for it.

    hidden    [1, 1, hidden] the token's row of the embedding, compute dtype
    position  [1, 1] int64
    slot      [1] int64, the token's place in the cache
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        self.hidden = torch.zeros((1, 1, config.hidden_size), dtype=dtype, device=device)
        self.position = torch.zeros((1, 1), dtype=torch.int64, device=device)
        self.slot = torch.zeros(1, dtype=torch.int64, device=device)

    def write(self, hidden: Tensor, position: int, slot: int) -> None:
        """Set all of them; hidden is in host memory."""
        for target, value in (
            (self.hidden, hidden),
            (self.position, torch.tensor([[position]])),
            (self.slot, torch.tensor([slot])),
        ):
            target.copy_(backend_of(target.device).staged(value), non_blocking=True)


def _on(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    return None if tensor is None else tensor.to(device)


def _check(cancel: Cancel) -> None:
    if cancel.is_set:
        raise Cancelled
