"""A loaded model: its parts, the residency of its weights, and the loops over its blocks."""

from __future__ import annotations

import time
import weakref
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from cogvlm2_lite.architectures.architecture import ModelConfig, Part, Phase, expected_tensors
from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.engine.adapters import Adapters
from cogvlm2_lite.engine.assembly import assemble
from cogvlm2_lite.engine.chunk import Chunk
from cogvlm2_lite.engine.cuda_graph import GraphCache
from cogvlm2_lite.events import Cancel, Progress
from cogvlm2_lite.kv_kind import KVKind
from cogvlm2_lite.memory.arena import Arena
from cogvlm2_lite.memory.inventory import unit_key
from cogvlm2_lite.memory.plan import RESERVE_BYTES, MemoryPlan
from cogvlm2_lite.memory.residency import Loader, Residency
from cogvlm2_lite.model.attention import visible_keys
from cogvlm2_lite.model.decoder import Routing, Step, place_features
from cogvlm2_lite.model.kv_cache import KVCache, Place
from cogvlm2_lite.model.rotary import RopeMode, Rotation
from cogvlm2_lite.model.token_attention import key_bias
from cogvlm2_lite.weights.adapter import Adapter

_ALL_LANGUAGE = Routing(vision=None)
_REPORT_S = 0.25
"""A decode step that takes longer reports its progress so often."""

Result = TypeVar("Result")
Steps = Generator[Progress, None, Result]
"""Work that yields its progress while it runs and returns a result."""


class Cancelled(Exception):  # noqa: N818 - a signal, not an error
    """Raised inside the engine to leave a phase after Cancel.set(); never seen by callers."""


def run(steps: Steps[Result]) -> Result:
    """Run the work to its end, ignore its progress, and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: Result = done.value
            return result


@dataclass(frozen=True, kw_only=True)
class Token:
    """A generated token that a decode step must put into a conversation's cache.

    position  its RoPE position
    adapter   name of the adapter that acts; None: none
    draft     tokens that may follow it; they are computed in the same step
    chances   for each of them, how probably the answer takes it and all before it
    ahead     tokens of the same step in the cache before this one
    """

    token: int
    position: int
    cache: KVCache
    adapter: str | None = None
    draft: tuple[int, ...] = ()
    chances: tuple[float, ...] = ()
    ahead: int = 0

    @property
    def rows(self) -> list[Token]:
        """The token and its draft, as single tokens."""
        return [
            Token(
                token=token,
                position=self.position + number,
                cache=self.cache,
                adapter=self.adapter,
                ahead=number,
            )
            for number, token in enumerate((self.token, *self.draft))
        ]

    def cut(self, drafts: int) -> Token:
        """Return the same with at most so many draft tokens."""
        return replace(self, draft=self.draft[:drafts], chances=self.chances[:drafts])


class _Pace:
    """Decides when a decode step reports its progress: fast ones never do."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    @property
    def due(self) -> bool:
        now = time.perf_counter()
        if now - self._last < _REPORT_S:
            return False
        self._last = now
        return True


class Runtime:
    """Runs the three phases.

    `encode` and `prefill` yield after every block and depend on no state of the runtime there, so
    other answers may be decoded in between.

    loaders  one per device of the plan
    devices  the torch devices of the plan, in its order
    kv       how keys and values are stored
    coarse_pictures  multiply inputs of 8 bits where only pictures go (ModelParts.round_pictures)
    arenas   account for the bytes of the devices; None: new ones
    adapters one or none of them acts in a step; the loaders must have them too
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
        coarse_pictures: bool = False,
        arenas: Sequence[Arena] | None = None,
        adapters: Sequence[Adapter] = (),
    ) -> None:
        self.config = config
        self.adapters = Adapters(adapters)
        self.dtype = dtype
        self._kv = kv
        self._devices = tuple(devices)
        self.parts = assemble(config, device=devices[0], dtype=dtype, rope=rope)
        self.coarse_pictures = coarse_pictures
        if coarse_pictures:
            self.parts.round_pictures()
        self.arenas = tuple(arenas or (Arena() for _ in devices))
        for device, planned in zip(devices, plan.devices, strict=True):
            limit = planned.budget.device_bytes + RESERVE_BYTES
            backend_of(device).limit_memory(device, limit)
        keys = {spec.name: unit_key(spec) for spec in expected_tensors(config).values()}
        self.residency = Residency(
            loaders,
            keys,
            self.parts.pieces,
            plan,
            self.arenas,
            loads_ahead=backend_of(devices[0]).loads_ahead,
        )
        new_capture = backend_of(devices[0]).graph_capture(devices[0])
        self.graphs = None if new_capture is None else GraphCache(new_capture)
        self._inputs: weakref.WeakKeyDictionary[KVCache, list[DecodeInputs]] = (
            weakref.WeakKeyDictionary()
        )
        self.follow(plan)

    def follow(self, plan: MemoryPlan) -> None:
        """Switch to a plan for the same devices, with the same blocks on each of them."""
        self.plan = plan
        if self.graphs is not None:
            self.graphs.forget_all()  # before anything else needs memory
        self.residency.follow(plan)
        self.vision_devices = self._devices_of(Part.VISION)
        self.decoder_devices = self._devices_of(Part.LANGUAGE_EXPERT)

    @property
    def last_device(self) -> torch.device:
        """The device of the projector and of the output head."""
        return self._devices[-1]

    def _devices_of(self, part: Part) -> list[torch.device]:
        return [self._devices[index] for index in self._indices(part)]

    def _indices(self, part: Part) -> list[int]:
        """Return the number of each block's device."""
        return [i for i, device in enumerate(self.plan.devices) for _ in device.blocks[part]]

    def new_cache(self, batch: int = 1, *, lasting: bool = False) -> KVCache:
        """Return an empty key/value cache, each layer on the device of its block.

        lasting  it is one of those that the plan has room for, and serves one conversation after
                 another. On a GPU its buffers are then allocated once.
        """
        devices = self.decoder_devices
        arenas = [self.arenas[index] for index in self._indices(Part.LANGUAGE_EXPERT)]

        def account(layer: int, nbytes: int) -> None:
            arenas[layer].take(nbytes)

        return KVCache(
            self.config,
            batch=batch,
            dtype=self.dtype,
            devices=devices,
            kind=self._kv,
            limit=self.plan.context,
            fixed=lasting and not self.plan.devices[0].budget.in_ram,
            account=account,
        )

    def free_cache(self, cache: KVCache) -> None:
        """Discard a cache's tokens, and free its buffers and graphs also if they are fixed."""
        cache.free()
        if self.graphs is not None:
            self.graphs.forget(cache)

    def encode(
        self, pixel_values: Tensor, cancel: Cancel, adapter: str | None = None
    ) -> Steps[Tensor]:
        """Encode pictures; yields Progress per block and returns the features.

        pixel_values  [batch, channels, height, width], normalised
        adapter       name of the adapter that acts; None: none
        Returns       [batch, image tokens with boi and eoi, hidden]
        """
        residency, devices = self.residency, self.vision_devices
        hidden = pixel_values.to(devices[0], self.dtype)
        adapted = self.adapters.on_picture(adapter)
        with residency.phase(Phase.ENCODE):
            for embedding in residency.walk([self.parts.tower.embedding]):
                hidden = embedding(hidden)
        keep_pace = backend_of(devices[0]).keep_pace()
        for done, block in enumerate(self.parts.tower.blocks, 1):
            check_cancel(cancel)
            with residency.at(Phase.ENCODE, block):
                hidden = block(hidden.to(devices[done - 1]), adapted)
            keep_pace(devices[done - 1])
            yield self.progress("encode", done, len(devices))
        with residency.at(Phase.ENCODE, self.parts.projector):
            return self.parts.projector(hidden.to(self.last_device), adapted)

    def prefill(
        self,
        chunk: Chunk,
        features: Tensor | None,
        cache: KVCache,
        cancel: Cancel,
        adapter: str | None = None,
    ) -> Steps[Tensor]:
        """Run a chunk after the tokens in the cache; yields Progress per block.

        features  [images, image tokens, hidden] for the chunk's image tokens, or None
        adapter   name of the adapter that acts; None: none
        Returns   [batch, tokens, hidden], before the final norm
        """
        residency, devices = self.residency, self.decoder_devices
        phase = Phase.PREFILL_IMAGE if chunk.has_image else Phase.PREFILL_TEXT
        with residency.phase(phase):
            step = self.step_of(chunk, cache, adapter)
            hidden = self._embed(chunk.input_ids)
            if features is not None:
                places = chunk.image_mask.to(devices[0])
                hidden = place_features(hidden, features.to(devices[0]), places)
        keep_pace = backend_of(devices[0]).keep_pace()
        for done, block in enumerate(self.parts.decoder.blocks, 1):
            check_cancel(cancel)
            device = devices[done - 1]
            with residency.at(phase, block):
                hidden = block(hidden.to(device), step.on(device))
            keep_pace(device)
            yield self.progress("prefill", done, len(devices))
        cache.advance(chunk.tokens)
        return hidden

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """Return logits, [batch, tokens, hidden] -> [batch, tokens, vocab] float32."""
        with self.residency.phase(Phase.DECODE):
            return self._logits(hidden)

    def logits_of_rows(self, hidden: Tensor) -> list[Tensor]:
        """Return the logits [vocab] float32 of each row of hidden [1, rows, hidden].

        Each is computed as for a single token, so a row needs no more memory than a decode step.
        """
        rows = [row[None, None] for row in hidden[0].to(self.last_device)]
        with self.residency.phase(Phase.DECODE):
            for head in self.residency.walk([self.parts.decoder.head]):
                logits = head.each(rows)
        return [each[0, -1] for each in logits]

    def decode_one_token(self, token: int, position: int, cache: KVCache) -> Tensor:
        """Run one generated token, always a language token; return logits [vocab] float32."""
        (logits,) = self.decode_each([Token(token=token, position=position, cache=cache)])
        return logits

    def decode_each(self, tokens: Sequence[Token]) -> list[Tensor]:
        """Do the same as `decode_steps` without its progress, and without drafts."""
        return [logits for (logits,) in run(self.decode_steps([t.cut(0) for t in tokens]))]

    def decode_steps(self, tokens: Sequence[Token]) -> Steps[list[list[Tensor]]]:
        """Run one generated token of each of several conversations, and its draft.

        Returns logits [vocab] for each conversation: those after its token, and after each token of
        the draft. Yields Progress if that takes long. Unlike in other phases, nothing else may run
        between.

        One pass over the weights serves all of them, also as a CUDA graph: a graph belongs to the
        conversations whose caches it reads, and a new one is captured when others take part. Each
        gets the same logits as alone, bit for bit: `DecoderBlock.each` guarantees it for an
        ordinary step, and a graph is kept only if it reproduces an ordinary step bit for bit. No
        cache counts its token before all are done. A draft is in the cache behind the tokens that
        are counted: whoever takes one of its tokens, in order, calls `KVCache.advance`.
        """
        for token in tokens:
            token.cache.reserve(token.cache.length + 1 + len(token.draft))
        with self.residency.phase(Phase.DECODE):
            if any(token.draft for token in tokens):
                logits = yield from self._decode_with_drafts(tokens)
            elif len(tokens) == 1:
                logits = [[(yield from self._decode_one(tokens[0]))]]
            else:
                logits = [[row] for row in (yield from self._decode_together(tokens))]
        for token in tokens:
            token.cache.advance(1)
        return logits

    @property
    def _uses_graphs(self) -> bool:
        """Whether graphs are used: all weights are there, and no address changes in a step."""
        on_one = len(self.plan.devices) == 1
        return self.graphs is not None and on_one and self.residency.is_ready

    @property
    def takes_drafts(self) -> bool:
        """Whether decode steps may have drafts.

        Not where CUDA graphs are used: a step with a draft would launch its kernels one by one.
        Not in float16 where a token reads places of the cache that are not written yet, and that a
        mask hides: a draft that the answer does not take may leave an infinity there.
        """
        if self.graphs is None:
            return True
        streams = any(device.phase(Phase.DECODE).streamed for device in self.plan.devices)
        return self.dtype != torch.float16 and (streams or len(self.plan.devices) > 1)

    def _decode_one(self, token: Token) -> Steps[Tensor]:
        hidden, place = self._input(token)
        work = partial(self._decode, hidden, token, place)
        if self.graphs is None or place is None or not self._uses_graphs:
            return (yield from work())
        key = (token.cache.version, place.window, token.adapter)
        layout = self.residency.version
        return self.graphs.run(token.cache, key, lambda: run(work()), layout=layout)

    def _input(self, token: Token) -> tuple[Tensor, Place | None]:
        """Return a token's row of the embedding [1, 1, hidden], and its place in the cache.

        On a device that can capture graphs, both have fixed addresses, even if this plan uses no
        graphs: the arithmetic is the same for every plan, so streaming changes no bit.
        """
        ids = torch.tensor([[token.token]])
        if self.graphs is None:
            return self._embed(ids), None
        all_inputs = self._inputs.setdefault(token.cache, [])
        while len(all_inputs) <= token.ahead:
            all_inputs.append(DecodeInputs(self.config, self.dtype, self._devices[0]))
        inputs, ahead = all_inputs[token.ahead], token.ahead
        inputs.write(self._rows(ids), token.position, token.cache.length + ahead)
        return inputs.hidden, Place(slot=inputs.slot, window=token.cache.window(ahead))

    def _decode(self, hidden: Tensor, token: Token, place: Place | None) -> Steps[Tensor]:
        """Run all blocks for one language token, hidden [1, 1, hidden]; return logits [vocab]."""
        step, devices, pace = self._token_step(token, place), self.decoder_devices, _Pace()
        blocks = self.residency.walk(self.parts.decoder.blocks)
        for done, (device, block) in enumerate(zip(devices, blocks, strict=True), 1):
            hidden = block(hidden.to(device), step.on(device))
            if pace.due:
                yield self.progress("decode", done, len(devices))
        return self._logits(hidden)[0, -1]

    def _decode_together(self, tokens: Sequence[Token]) -> Steps[list[Tensor]]:
        """Run all blocks for one token of each conversation; return logits [vocab] of each."""
        inputs = [self._input(token) for token in tokens]
        if self.graphs is None or not self._uses_graphs:
            return (yield from self._decode_each(inputs, tokens))

        def work() -> Tensor:
            return torch.stack(run(self._decode_each(inputs, tokens)))

        caches = tuple(
            (weakref.ref(token.cache), token.cache.version, place and place.window, token.adapter)
            for token, (_, place) in zip(tokens, inputs, strict=True)
        )
        # The residency is the owner: joint steps of any conversations never run at a time.
        layout = self.residency.version
        return list(self.graphs.run(self.residency, caches, work, layout=layout))

    def _decode_with_drafts(self, tokens: Sequence[Token]) -> Steps[list[list[Tensor]]]:
        """Run all blocks for tokens and drafts, without a graph; return logits of each, as above.

        The bits are those of steps for one token after another: each row sees the keys up to its
        own, and the projections' rows do not depend on each other.
        """
        rows = [row for token in tokens for row in token.rows]
        found = yield from self._decode_each([self._input(row) for row in rows], rows)
        logits = iter(found)
        return [[next(logits) for _ in (token.token, *token.draft)] for token in tokens]

    def _decode_each(
        self, inputs: Sequence[tuple[Tensor, Place | None]], tokens: Sequence[Token]
    ) -> Steps[list[Tensor]]:
        """Run all blocks for language tokens, hidden [1, 1, hidden] each.

        Returns the logits [vocab] float32 of each.
        """
        steps = [self._token_step(t, place) for t, (_, place) in zip(tokens, inputs, strict=True)]
        xs, devices, pace = [hidden for hidden, _ in inputs], self.decoder_devices, _Pace()
        blocks = self.residency.walk(self.parts.decoder.blocks)
        for done, (device, block) in enumerate(zip(devices, blocks, strict=True), 1):
            xs = block.each([x.to(device) for x in xs], [step.on(device) for step in steps])
            if pace.due:
                yield self.progress("decode", done, len(devices))
        for head in self.residency.walk([self.parts.decoder.head]):
            logits = head.each([x.to(self.last_device) for x in xs])
        return [each[0, -1] for each in logits]

    def _token_step(self, token: Token, place: Place | None) -> Step:
        where, mask = torch.tensor([[token.position]]), None
        if place is not None:
            where = self._inputs[token.cache][token.ahead].position
            mask = key_bias(place.slot, place.window, self.dtype)
        return Step(
            routing=_ALL_LANGUAGE,
            rotations=self._rotations(where, token.position),
            mask=mask,
            causal=False,
            cache=token.cache,
            place=place,
            adapted=self.adapters.on_token(token.adapter),
            ahead=token.ahead,
        )

    @property
    def held_bytes(self) -> int:
        """Bytes of weights, caches and scratch on all devices now."""
        return sum(arena.held_bytes for arena in self.arenas)

    def progress(self, phase: str, done: int, total: int) -> Progress:
        """Return the progress of a phase, with the bytes that are held now."""
        return Progress(phase=phase, done=done, total=total, held_bytes=self.held_bytes)

    def _embed(self, input_ids: Tensor) -> Tensor:
        return self._rows(input_ids).to(self.decoder_devices[0])

    def _rows(self, input_ids: Tensor) -> Tensor:
        """Read rows of the embedding, in the compute dtype, in host memory."""
        for embedding in self.residency.walk([self.parts.decoder.embedding]):
            rows = embedding(input_ids)
        return rows.to(self.dtype)

    def _logits(self, hidden: Tensor) -> Tensor:
        for head in self.residency.walk([self.parts.decoder.head]):
            logits = head(hidden.to(self.last_device))
        return logits

    def _rotations(self, positions: Tensor, highest: int) -> list[Rotation]:
        for rotary in self.residency.walk([self.parts.rotary]):
            rotations = rotary.rotations(positions.to(self._devices[0]), highest)
        return rotations

    def step_of(self, chunk: Chunk, cache: KVCache, adapter: str | None = None) -> Step:
        """Return what the layers share for a chunk after the tokens in the cache; reserves room.

        Must be called inside a phase of the residency.
        """
        device = self._devices[0]
        keys = cache.length + chunk.tokens
        cache.reserve(keys)
        # A chunk after others needs a mask: torch's causal flag assumes as many keys as queries.
        first = cache.length == 0 and chunk.key_mask is None
        routing = Routing.of(chunk.vision_mask) if chunk.has_image else _ALL_LANGUAGE
        adapted = self.adapters.on_chunk(adapter, chunk, routing)
        mask = None
        if not first:
            mask = visible_keys(chunk.tokens, keys, _on(chunk.key_mask, device), device)
        return Step(
            routing=routing.to(device),
            rotations=self._rotations(chunk.position_ids, chunk.highest),
            mask=mask,
            causal=chunk.key_mask is None,
            cache=cache,
            adapted=None if adapted is None else adapted.to(device),
        )


class DecodeInputs:
    """The inputs of a decode step, at fixed addresses on a device, written asynchronously.

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


def check_cancel(cancel: Cancel) -> None:
    """Raise Cancelled if the work was cancelled."""
    if cancel.is_set:
        raise Cancelled
