"""One piece of the model in a training step: forward, and backward from its stored input.

A block has two halves. The first one mixes rows: attention. The second one, the MLP, works row by
row, so its gradients are computed for a part of the rows at a time, and its memory does not grow
with the length of a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cogvlm2_lite.finetune.pairs import NAME, GradientSums
from cogvlm2_lite.finetune.talks import Pack, Span
from cogvlm2_lite.memory.training import MLP_ROWS
from cogvlm2_lite.model.attention import grouped_attention
from cogvlm2_lite.model.decoder import DecoderBlock, Expert, RoutedAdapter, Routing
from cogvlm2_lite.model.projector import Projector
from cogvlm2_lite.model.rotary import Rotary, Rotation
from cogvlm2_lite.model.vision import VisionBlock
from cogvlm2_lite.weights.slots import Adapted

Rows = Tensor | slice
"""Row numbers, int64, or a range of rows."""


@dataclass(frozen=True, kw_only=True)
class Halves:
    """A piece of the model as two halves.

    mix    the first half, [1, tokens, width] -> [1, rows, width]
    parts  yields rows, at most a number of them together, and the second half for them
    adds   the second half's result is added to its input; otherwise it replaces it
    """

    mix: Callable[[Tensor], Tensor]
    parts: Callable[[Tensor, int | None], Iterator[tuple[Rows, Callable[[Tensor], Tensor]]]]
    adds: bool = True

    def forward(self, x: Tensor) -> Tensor:
        """Return the output; both halves add to their input."""
        out = self.mix(x)
        for rows, run in self.parts(out, None):
            out[:, rows] += run(out[:, rows])
        return out

    def backward(self, x: Tensor, gradient: Tensor, sums: GradientSums, *, deeper: bool) -> Tensor:
        """Return the gradient at the input, and add those of the trained matrices.

        x         the stored input
        gradient  at the output
        deeper    whether the input's gradient is needed; if not, the result has no meaning
        """
        start = x.detach().requires_grad_(deeper)
        mixed = self.mix(start)
        middle = mixed.detach()
        back = gradient.clone() if self.adds else torch.zeros_like(middle)
        for rows, run in self.parts(middle, MLP_ROWS):
            part = middle[:, rows].detach().requires_grad_()
            torch.autograd.backward(run(part), gradient[:, rows])
            sums.add()
            assert part.grad is not None
            back[:, rows] += part.grad
        if mixed.requires_grad:
            torch.autograd.backward(mixed, back)
            sums.add()
        return back if start.grad is None else start.grad


# --- the decoder ----------------------------------------------------------------------------------


class KeyValues:
    """Keys and values of a prefix in host memory, by layer."""

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def nbytes(self) -> int:
        return sum(k.nbytes + v.nbytes for k, v in self._layers.values())

    @staticmethod
    def of(tensors: Sequence[Tensor]) -> KeyValues:
        """Return what has these tensors, as `tensors` returns them."""
        made = KeyValues()
        made._layers = dict(enumerate(zip(tensors[::2], tensors[1::2], strict=True)))
        return made

    @property
    def tensors(self) -> list[Tensor]:
        """Keys and values of each layer in turn."""
        return [each for layer in sorted(self._layers) for each in self._layers[layer]]

    def put(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Store the keys and values of a layer, [1, kv_heads, tokens, head_dim] each."""
        self._layers[layer] = (keys.detach().cpu().contiguous(), values.detach().cpu().contiguous())

    def on(self, layer: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the keys and values of a layer on a device."""
        keys, values = self._layers[layer]
        return keys.to(device), values.to(device)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tail:
    """What the last block computes: only rows whose output is wanted.

    rows   their numbers in the pack
    spans  for each span its own rows
    """

    rows: Tensor
    spans: tuple[Tensor, ...]


class PackStep:
    """What the blocks share for a pack. Its tensors are in host memory until a block needs them.

    last      number of the last block
    prefixes  keys and values of prefixes that are not in the pack, by key
    adapted   the adapter that acts; None: no adapter
    acts      [1, rows] bool, the rows on which it does; None: on all of them
    record    gets the keys and values of all rows; None: they are not stored
    """

    def __init__(
        self,
        pack: Pack,
        rotary: Rotary,
        last: int,
        *,
        prefixes: Mapping[str, KeyValues],
        adapted: Adapted | None,
        acts: Tensor | None = None,
        record: KeyValues | None = None,
    ) -> None:
        self.pack, self._last = pack, last
        self._prefixes, self._record = prefixes, record
        chunk = pack.chunk
        vision = bool(chunk.vision_mask.any())
        self._routing = Routing.of(chunk.vision_mask) if vision else Routing(vision=None)
        self._rotations = _in_host_memory(rotary.rotations(chunk.position_ids, chunk.highest))
        wanted = pack.wanted
        self._tail = None if wanted is None else _tail(wanted, pack.spans)
        self._name, self._acts = None if adapted is None else adapted.name, acts
        self._adapted = self._routed(acts, self._routing)

    def _routed(self, acts: Tensor | None, routing: Routing) -> RoutedAdapter | None:
        if self._name is None:
            return None
        if acts is None:
            return RoutedAdapter.everywhere(self._name)
        return RoutedAdapter.where(self._name, acts, routing)

    def halves(self, block: DecoderBlock) -> Halves:
        """Return a block's halves for this pack."""
        device = block.attention_norm.weight.tensor.device
        tail = self._tail if block.layer == self._last else None
        routing, adapted = self._routing.to(device), _on(self._adapted, device)
        kept: Rows | None = None if tail is None else tail.rows.to(device)
        after, there, acts, behind = self._routing, routing, self._acts, adapted
        if tail is not None:
            # No row of an image is wanted behind the last block.
            after = there = Routing(vision=None)
            acts = None if acts is None else acts[:, tail.rows]
            behind = _on(self._routed(acts, after), device)
        language, vision = block.language, block.vision

        def mix(x: Tensor) -> Tensor:
            qkv = routing.apply(block.attention_norm(x), language.qkv, vision.qkv, adapted)
            mixed = self._attend(block, qkv, tail)
            if kept is not None:
                x = x[:, kept]
            if not mixed.shape[1]:
                return x
            return x + there.apply(mixed, language.dense, vision.dense, behind)

        def parts(h: Tensor, most: int | None) -> Iterator[tuple[Rows, Callable[[Tensor], Tensor]]]:
            for expert, rows in _by_expert(block, after, h.shape[1], most):
                yield _rows_on(rows, device), _mlp(block, expert, self._part(acts, rows, device))

        return Halves(mix=mix, parts=parts)

    def _part(self, acts: Tensor | None, rows: Rows, device: torch.device) -> Adapted | None:
        """Return the adapter for some rows, which are in host memory."""
        if self._name is None or acts is None:
            return None if self._name is None else Adapted(name=self._name)
        part = Adapted.where(self._name, acts[:, rows])
        return None if part is None else part.to(device)

    def _attend(self, block: DecoderBlock, qkv: Tensor, tail: _Tail | None) -> Tensor:
        """[1, rows, qkv rows] -> [1, rows, hidden]; with a tail only the wanted rows."""
        layer, device = block.layer, qkv.device
        q, k, v = block.rotated_heads(qkv, self._rotations[layer].to(device))
        if self._record is not None:
            self._record.put(layer, k, v)
        found = []
        for number, span in enumerate(self.pack.spans):
            if tail is not None and not len(tail.spans[number]):
                continue
            own = slice(span.start, span.end)
            keys, values, mask = k[:, :, own], v[:, :, own], None
            if span.follows:
                before = self._before(span, k, v, layer)
                mask = span.mask(before[0].shape[2]).to(device)
                keys, values = (
                    torch.cat(each, dim=2) for each in zip(before, (keys, values), strict=True)
                )
            out = grouped_attention(
                q[:, :, own],
                keys,
                values,
                mask,
                causal=mask is None,
                single=block.operations.token_attention,
            )
            found.append(out if tail is None else out[:, tail.spans[number].to(device)])
        return torch.cat(found, dim=1) if found else qkv.new_empty(1, 0, 0)

    def _before(self, span: Span, k: Tensor, v: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        if span.inside is not None:
            rows = slice(*span.inside)
            return k[:, :, rows], v[:, :, rows]
        assert span.stored is not None
        return self._prefixes[span.stored].on(layer, k.device)


def _in_host_memory(rotations: Sequence[Rotation]) -> list[Rotation]:
    moved: dict[int, Rotation] = {}
    for each in rotations:
        if id(each) not in moved:
            moved[id(each)] = each.to(torch.device("cpu"))
    return [moved[id(each)] for each in rotations]


def _tail(wanted: Tensor, spans: tuple[Span, ...]) -> _Tail:
    own = (wanted[(wanted >= s.start) & (wanted < s.end)] - s.start for s in spans)
    return _Tail(rows=wanted, spans=tuple(own))


def _on(adapted: RoutedAdapter | None, device: torch.device) -> RoutedAdapter | None:
    return None if adapted is None else adapted.to(device)


def _rows_on(rows: Rows, device: torch.device) -> Rows:
    return rows if isinstance(rows, slice) else rows.to(device)


def _by_expert(
    block: DecoderBlock, routing: Routing, tokens: int, most: int | None
) -> Iterator[tuple[Expert, Rows]]:
    """Yield the experts and their rows, at most some rows at a time."""
    if routing.vision is None or routing.language is None:
        step = most or max(1, tokens)
        for start in range(0, tokens, step):
            yield block.language, slice(start, min(start + step, tokens))
        return
    for expert, rows in ((block.language, routing.language), (block.vision, routing.vision)):
        for part in torch.split(rows, most or max(1, len(rows))):
            if len(part):
                yield expert, part


def _mlp(
    block: DecoderBlock, expert: Expert, adapted: Adapted | None
) -> Callable[[Tensor], Tensor]:
    return lambda h: expert.mlp(block.mlp_norm(h), adapted)


# --- the vision tower -----------------------------------------------------------------------------


def vision_halves(block: VisionBlock) -> Halves:
    """Return the halves of a block of the vision tower. Its norms come last."""
    adapted = Adapted(name=NAME)

    def mix(x: Tensor) -> Tensor:
        mixed = block.attend(block.qkv(x, adapted))
        return x + block.attention_norm(block.dense(mixed, adapted))

    def second(h: Tensor) -> Tensor:
        return block.mlp_norm(block.fc2(F.gelu(block.fc1(h, adapted)), adapted))

    return Halves(mix=mix, parts=lambda h, most: _in_slices(h, most, second))


def projector_halves(projector: Projector) -> Halves:
    """Return the halves of the projector, without boi and eoi, which are not trained."""
    adapted = Adapted(name=NAME)
    return Halves(
        mix=projector.downsample,
        parts=lambda h, most: _in_slices(h, most, lambda part: projector.project(part, adapted)),
        adds=False,
    )


def _in_slices(
    h: Tensor, most: int | None, run: Callable[[Tensor], Tensor]
) -> Iterator[tuple[Rows, Callable[[Tensor], Tensor]]]:
    step = most or h.shape[1]
    for start in range(0, h.shape[1], step):
        yield slice(start, min(start + step, h.shape[1])), run
