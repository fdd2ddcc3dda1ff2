"""The decoder: Llama layers in which every projection exists twice, once per expert."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.kv_kind import KVKind
from cogvlm2_lite.model.attention import grouped_attention
from cogvlm2_lite.model.gates import silu_gate, silu_gate_rows
from cogvlm2_lite.model.kv_cache import KVCache, Place
from cogvlm2_lite.model.norms import Normalize, RMSNorm
from cogvlm2_lite.model.operations import REFERENCE, Operations
from cogvlm2_lite.model.rotary import Rotation
from cogvlm2_lite.model.token_block import add_norm, attend_token, gated_each, takes_attention
from cogvlm2_lite.weights.kernels.interface import as_rows, as_single
from cogvlm2_lite.weights.slots import Adapted, Linear, Vector, WeightSlot


@dataclass(frozen=True, kw_only=True)
class Routing:
    """Which rows of the flattened [batch * tokens] go through which expert.

    vision    row numbers [n] int64, or None when no token needs the vision expert
    language  the other rows, [m] int64; unused without vision rows
    """

    vision: Tensor | None
    language: Tensor | None = None

    @staticmethod
    def of(vision_mask: Tensor) -> Routing:
        """Split the rows by a mask [batch, tokens] bool, True for the vision expert."""
        flat = vision_mask.flatten()
        return Routing(vision=flat.nonzero().squeeze(1), language=(~flat).nonzero().squeeze(1))

    def to(self, device: torch.device) -> Routing:
        """Return the same routing on a device."""
        if self.vision is None or self.language is None:
            return self
        return Routing(vision=self.vision.to(device), language=self.language.to(device))

    def apply(
        self, x: Tensor, language: Project, vision: Project, adapted: RoutedAdapter | None = None
    ) -> Tensor:
        """Return the rows of x [batch, tokens, width], each processed by its expert, in order."""
        adapted = adapted or RoutedAdapter()
        if self.vision is None or self.language is None:
            return language(x, adapted.every)
        # Gather each expert's rows, run both experts, scatter the results back: an expert never
        # computes rows of the other one.
        rows = x.flatten(0, 1)
        out_language = language(rows[self.language], adapted.language)
        out_vision = vision(rows[self.vision], adapted.vision)
        out = out_vision.new_empty((rows.shape[0], out_vision.shape[1]))
        out[self.vision] = out_vision
        out[self.language] = out_language
        return out.reshape(*x.shape[:2], -1)


Project = Callable[[Tensor, Adapted | None], Tensor]
"""Projects rows [..., width]; the second argument is the adapter that acts on them."""


@dataclass(frozen=True, kw_only=True)
class RoutedAdapter:
    """The adapter that acts on a run of tokens, for all rows and for those of each expert.

    None: no adapter acts on such a row
    """

    every: Adapted | None = None
    language: Adapted | None = None
    vision: Adapted | None = None

    @staticmethod
    def everywhere(name: str) -> RoutedAdapter:
        """Return the adapter for a run in which it acts on all rows."""
        adapted = Adapted(name=name)
        return RoutedAdapter(every=adapted, language=adapted, vision=adapted)

    @staticmethod
    def where(name: str, acts: Tensor, routing: Routing) -> RoutedAdapter:
        """Return the adapter for the rows where `acts` [batch, tokens] is true.

        Both tensors are in host memory, see Adapted.where.
        """
        flat, rows = acts.flatten(), (routing.language, routing.vision)
        language, vision = (None if r is None else Adapted.where(name, flat[r]) for r in rows)
        return RoutedAdapter(every=Adapted.where(name, flat), language=language, vision=vision)

    def to(self, device: torch.device) -> RoutedAdapter:
        """Return the same on a device."""
        every, language, vision = (
            None if adapted is None else adapted.to(device)
            for adapted in (self.every, self.language, self.vision)
        )
        return RoutedAdapter(every=every, language=language, vision=vision)


@dataclass(frozen=True, kw_only=True)
class Step:
    """What all layers share while one run of tokens goes through them.

    routing   expert of each token
    rotations one per layer; layers with equal frequencies share the object
    mask      [batch or 1, 1, tokens, keys], see grouped_attention; None: no mask
    causal    each token sees all tokens before it in the cache, and none is padding. There is a
              mask that says the same unless they are the first in the cache
    cache     stores the keys and values
    place     place of a single token in the cache, if the step may become a CUDA graph; None: the
              tokens are appended
    adapted   the adapter that acts; None: no adapter
    ahead     tokens of the same cache that come before this one in `DecoderBlock.each`: a token and
              its drafts have 0, 1, 2, ...
    """

    routing: Routing
    rotations: list[Rotation]
    mask: Tensor | None
    causal: bool
    cache: KVCache
    place: Place | None = None
    adapted: RoutedAdapter | None = None
    ahead: int = 0
    _elsewhere: dict[torch.device, Step] = field(default_factory=dict, init=False, repr=False)

    def on(self, device: torch.device) -> Step:
        """Return the step with its tensors on a device; the cache's layers stay on theirs.

        They are copied once per device and step.
        """
        if self.rotations[0].cos.device == device:
            return self
        if device not in self._elsewhere:
            self._elsewhere[device] = self._copy(device)
        return self._elsewhere[device]

    def _copy(self, device: torch.device) -> Step:
        moved: dict[int, Rotation] = {}
        for rotation in self.rotations:
            moved.setdefault(id(rotation), rotation.to(device))
        return Step(
            routing=self.routing.to(device),
            rotations=[moved[id(rotation)] for rotation in self.rotations],
            mask=None if self.mask is None else self.mask.to(device),
            causal=self.causal,
            cache=self.cache,
            place=None if self.place is None else self.place.to(device),
            adapted=None if self.adapted is None else self.adapted.to(device),
            ahead=self.ahead,
        )


class Expert:
    """One of the two sets of projections of a layer."""

    def __init__(self, config: ModelConfig, layer: int, name: str) -> None:
        base, hidden, inner = f"model.layers.{layer}", config.hidden_size, config.intermediate_size
        # Only the vision expert's fused projection has a bias.
        self.qkv = Linear(
            f"{base}.self_attn.{name}_expert_query_key_value.weight",
            hidden,
            config.qkv_rows,
            name == "vision",
        )
        self.dense = Linear(f"{base}.self_attn.{name}_expert_dense.weight", hidden, hidden)
        self.gate = Linear(f"{base}.mlp.{name}_mlp.gate_proj.weight", hidden, inner)
        self.up = Linear(f"{base}.mlp.{name}_mlp.up_proj.weight", hidden, inner)
        self.down = Linear(f"{base}.mlp.{name}_mlp.down_proj.weight", inner, hidden)

    def mlp(self, x: Tensor, adapted: Adapted | None = None) -> Tensor:
        """[..., hidden] -> [..., hidden]."""
        return self.down(silu_gate(self.gate(x, adapted), self.up(x, adapted)), adapted)

    def mlp_each(
        self, xs: Sequence[Tensor], adapted: Sequence[Adapted | None] | None = None
    ) -> list[Tensor]:
        """Return `mlp` of each x [1, 1, hidden], bit-identical to a call for it alone."""
        gates, ups = self.gate.each(xs, adapted), self.up.each(xs, adapted)
        return self.down.each(
            [silu_gate(gate, up) for gate, up in zip(gates, ups, strict=True)], adapted
        )

    def mlp_rows(self, x: Tensor, adapted: Sequence[Adapted | None]) -> Tensor:
        """Return `mlp` of each row of x [rows, hidden], bit-identical to a call for it alone."""
        gates, ups = _each_row(self.gate, x, adapted), _each_row(self.up, x, adapted)
        return _each_row(self.down, silu_gate_rows(gates, ups), adapted)

    def slots(self) -> Iterator[WeightSlot]:
        yield from (self.qkv, self.dense, self.gate, self.up, self.down)
        if self.qkv.bias:
            yield self.qkv.bias


def _each_row(linear: Linear, x: Tensor, adapted: Sequence[Adapted | None]) -> Tensor:
    """Return `linear` of each row of x [rows, features], bit-identical to a call for it alone."""
    return as_rows(linear.each(as_single(x), adapted))


class DecoderBlock:
    """One layer: shared norms and attention, routed projections."""

    def __init__(self, config: ModelConfig, layer: int, operations: Operations) -> None:
        base = f"model.layers.{layer}"
        self.layer = layer
        self.operations = operations
        self.sizes = [
            config.num_attention_heads * config.head_dim,
            config.num_multi_query_heads * config.head_dim,
            config.num_multi_query_heads * config.head_dim,
        ]
        self.head_dim = config.head_dim
        self.has_own_kernels = operations.own_kernels and takes_attention(
            heads=config.num_attention_heads,
            kv_heads=config.num_multi_query_heads,
            head_dim=config.head_dim,
        )
        sizes = config.hidden_size, config.rms_norm_eps, operations.rms_norm
        self.attention_norm = RMSNorm(f"{base}.input_layernorm", *sizes)
        self.mlp_norm = RMSNorm(f"{base}.post_attention_layernorm", *sizes)
        self.language = Expert(config, layer, "language")
        self.vision = Expert(config, layer, "vision")

    def __call__(self, x: Tensor, step: Step) -> Tensor:
        """[batch, tokens, hidden] -> the same; the cache gains this layer's keys and values."""
        if self._is_for_own_kernels([step]):
            return self._by_own_kernels([x], [step])[0]
        if self._is_for_rows([x], [step]):
            return self._by_rows([x], [step])[0]
        route, language, vision = step.routing.apply, self.language, self.vision
        adapted = step.adapted
        # x + dense(attention(qkv(norm(x)))), then x + mlp(norm(x)); each projection is routed.
        # The calls are nested so that no variable keeps an intermediate result alive.
        x = x + route(
            self.attend(route(self.attention_norm(x), language.qkv, vision.qkv, adapted), step),
            language.dense,
            vision.dense,
            adapted,
        )
        return x + route(self.mlp_norm(x), language.mlp, vision.mlp, adapted)

    def each(self, xs: Sequence[Tensor], steps: Sequence[Step]) -> list[Tensor]:
        """Run several language tokens, xs [1, 1, hidden] each, with one step for each of them.

        Tokens of one sequence stand next to each other in their order, and their steps have the
        same cache and `ahead` 0, 1, 2, ...; each sees the keys up to its own. The cache must have
        room for all of them.

        Each result is bit-identical to that of `__call__` for it alone, after the tokens before it:
        the projections guarantee it, and everything else runs one by one. The gain is that weights
        are read once.
        """
        if self._is_for_own_kernels(steps):
            return self._by_own_kernels(xs, steps)
        if self._is_for_rows(xs, steps):
            return self._by_rows(xs, steps)
        language = self.language
        adapted = [None if step.adapted is None else step.adapted.every for step in steps]
        qkvs = language.qkv.each([self.attention_norm(x) for x in xs], adapted)
        mixed = [self.attend(qkv, step) for qkv, step in zip(qkvs, steps, strict=True)]
        xs = [x + y for x, y in zip(xs, language.dense.each(mixed, adapted), strict=True)]
        added = language.mlp_each([self.mlp_norm(x) for x in xs], adapted)
        return [x + y for x, y in zip(xs, added, strict=True)]

    def _is_for_own_kernels(self, steps: Sequence[Step]) -> bool:
        return self.has_own_kernels and all(
            step.place is not None
            and step.adapted is None
            and step.cache.kind in (KVKind.FULL, KVKind.INT8)
            for step in steps
        )

    def _by_own_kernels(self, xs: Sequence[Tensor], steps: Sequence[Step]) -> list[Tensor]:
        """Do the same as `each` on our CUDA kernels, without adapters."""
        language, norm = self.language, self.mlp_norm
        qkvs = language.qkv.each([self.attention_norm(x) for x in xs])
        mixed = [
            attend_token(
                qkv, step.rotations[self.layer], *step.cache.stored(self.layer), step.place.slot
            )
            for qkv, step in zip(qkvs, steps, strict=True)
            if step.place is not None
        ]
        added = language.dense.each(mixed)
        pairs = [
            add_norm(x, y, norm.weight.tensor, norm.eps) for x, y in zip(xs, added, strict=True)
        ]
        normed = [row for _, row in pairs]
        gated = gated_each(normed, language.gate, language.up)
        out = language.mlp_each(normed) if gated is None else language.down.each(gated)
        return [x + y for (x, _), y in zip(pairs, out, strict=True)]

    def _is_for_rows(self, xs: Sequence[Tensor], steps: Sequence[Step]) -> bool:
        """Return whether the C kernel for attention takes all tokens."""
        return (
            self.operations.token_kernel is not None
            and all(x.is_cpu and x.shape[:2] == (1, 1) and not x.requires_grad for x in xs)
            and all(
                step.place is None and step.mask is None and step.routing.vision is None
                for step in steps
            )
        )

    def _by_rows(self, xs: Sequence[Tensor], steps: Sequence[Step]) -> list[Tensor]:
        """Do the same as `each` on the CPU, where a few tokens need as many calls as one.

        Norms, rotations and sums return the same bits for a row whatever the number of rows.
        """
        adapted = [None if step.adapted is None else step.adapted.every for step in steps]
        x, language = as_rows(xs), self.language
        mixed = self._attend_rows(_each_row(language.qkv, self.attention_norm(x), adapted), steps)
        x = x + _each_row(language.dense, mixed, adapted)
        return as_single(x + language.mlp_rows(self.mlp_norm(x), adapted))

    def _attend_rows(self, qkv: Tensor, steps: Sequence[Step]) -> Tensor:
        """[rows, qkv rows] -> [rows, hidden]; tokens of one sequence read its cache once."""
        kernel = self.operations.token_kernel
        assert kernel is not None
        rotation = Rotation.of_tokens([step.rotations[self.layer] for step in steps])
        q, k, v = self.rotated_heads(qkv.unsqueeze(0), rotation)
        # [1, heads, rows, head_dim] -> [rows, kv_heads, group, head_dim]
        grouped = q[0].transpose(0, 1).reshape(len(steps), k.shape[1], -1, self.head_dim)
        out, begin = [], 0
        for _, run in groupby(steps, key=lambda step: id(step.cache)):
            tokens = list(run)
            here = slice(begin, begin + len(tokens))
            keys, values = tokens[0].cache.append_stored(
                self.layer, k[:, :, here], v[:, :, here], tokens[0].ahead
            )
            cache = tokens[0].cache
            mixed = kernel.attend_tokens(
                cache.rotate(grouped[here]), [t[0] for t in keys], [t[0] for t in values]
            )
            out.append(cache.rotate(mixed))
            begin = here.stop
        return torch.cat(out).view(len(steps), -1)

    def attend(self, qkv: Tensor, step: Step) -> Tensor:
        """[batch, tokens, qkv rows] -> [batch, tokens, hidden]."""
        # Keys are cached after rotation: their positions never change.
        q, k, v = self.rotated_heads(qkv, step.rotations[self.layer])
        keys, values = step.cache.append(self.layer, k, v, step.place, step.ahead)
        operations = self.operations
        mixed = grouped_attention(
            step.cache.rotate(q),
            keys,
            values,
            step.mask,
            causal=step.causal,
            single=operations.token_attention,
            joint=operations.joint_attention,
            several=operations.several_attention,
        )
        heads = mixed.view(*mixed.shape[:2], -1, self.head_dim)
        return step.cache.rotate(heads).flatten(-2)

    def rotated_heads(self, qkv: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries and keys, rotated, and values, [batch, heads, tokens, head_dim] each.

        qkv  [batch, tokens, qkv rows]: all query heads, then all key heads, then all value heads;
             not interleaved
        """
        queries, keys, values = (size // self.head_dim for size in self.sizes)
        heads = qkv.view(*qkv.shape[:2], -1, self.head_dim).transpose(1, 2)
        # Together, because each operation costs a launch on a GPU.
        turned, v = torch.split(heads, [queries + keys, values], dim=1)
        q, k = torch.split(rotation.apply(turned), [queries, keys], dim=1)
        return q, k, v

    def slots(self) -> Iterator[WeightSlot]:
        yield from self.attention_norm.slots()
        yield from self.mlp_norm.slots()
        yield from self.language.slots()
        yield from self.vision.slots()


class TokenEmbedding:
    """The table that maps token ids to vectors.

    A step reads only the rows of its tokens, so the table stays in the mapped file, in host memory,
    in its stored type.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.table = Vector("model.embed_tokens.weight", (config.vocab_size, config.hidden_size))

    def __call__(self, input_ids: Tensor) -> Tensor:
        """[batch, tokens] -> [batch, tokens, hidden], in the table's type, on its device."""
        return F.embedding(input_ids, self.table.tensor)

    def slots(self) -> Iterator[WeightSlot]:
        yield self.table


class OutputHead:
    """The final norm and lm_head."""

    def __init__(self, config: ModelConfig, rms_norm: Normalize) -> None:
        self.norm = RMSNorm("model.norm", config.hidden_size, config.rms_norm_eps, rms_norm)
        self.lm_head = Linear("lm_head.weight", config.hidden_size, config.vocab_size)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return logits, [batch, tokens, hidden] -> [batch, tokens, vocab] float32.

        To get one token, pass only the last position: the logits of a picture's 2322 positions
        would take 1.11 GiB in float32, which makes the released code run out of memory.
        """
        return self.lm_head(self.norm(hidden)).to(torch.float32)

    def each(self, hidden: Sequence[Tensor]) -> list[Tensor]:
        """Return the logits of each [1, 1, hidden], bit-identical to a call for it alone."""
        if all(x.is_cpu for x in hidden):  # a GPU's norm of several rows may have other bits
            rows = as_single(self.norm(as_rows(hidden)))
        else:
            rows = [self.norm(x) for x in hidden]
        logits = self.lm_head.each(rows)
        return [each.to(torch.float32) for each in logits]

    def slots(self) -> Iterator[WeightSlot]:
        yield from self.norm.slots()
        yield self.lm_head


class Decoder:
    """Embedding, layers and output head."""

    def __init__(self, config: ModelConfig, operations: Operations = REFERENCE) -> None:
        self.embedding = TokenEmbedding(config)
        self.blocks = [DecoderBlock(config, i, operations) for i in range(config.num_hidden_layers)]
        self.head = OutputHead(config, operations.rms_norm)


def place_features(embedded: Tensor, features: Tensor, image_mask: Tensor) -> Tensor:
    """Replace the embeddings of image tokens by image features, in order; return `embedded`.

    embedded    [batch, tokens, hidden], changed in place
    features    [images, image tokens, hidden]
    image_mask  [batch, tokens] bool, True for image tokens; as many as there are features
    """
    embedded[image_mask] = features.to(embedded.dtype).flatten(0, 1)
    return embedded
