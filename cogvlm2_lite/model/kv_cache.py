"""The key/value cache of the decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.backends.registry import backend_of
from cogvlm2_lite.kv_kind import KVKind
from cogvlm2_lite.model.hadamard import hadamard

Account = Callable[[int, int], None]
"""Called with (layer, change in bytes) when the size of the cache changes."""


def _no_account(layer: int, nbytes: int) -> None:
    """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class KVPrefix:
    """A copy of the first tokens of a cache, in its stored form.

    keys, values  the stored tensors of all layers, [layers, batch, kv_heads, tokens, ...] each:
                  numbers in the compute dtype, or codes and their scales
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @property
    def tokens(self) -> int:
        return self.keys[0].shape[3]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))


@dataclass(frozen=True, kw_only=True)
class Place:
    """The index of one token in the cache, as a tensor, so that a CUDA graph can use it.

    slot    [1] int64 on the layer's device: the index after the cache's tokens
    window  number of tokens that are read, including some that are not written yet; a mask must
            hide those
    """

    slot: Tensor
    window: int

    def to(self, device: torch.device) -> Place:
        """Return the same place on a device."""
        return Place(slot=self.slot.to(device), window=self.window)


class _Rows:
    """Keys, or values, of one layer: [batch, kv_heads, capacity, head_dim]."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        kind: KVKind,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Create empty rows; shape is (batch, kv_heads, head_dim)."""
        self._shape = shape
        self._kind = kind
        self._dtype = dtype
        head_dim = shape[2]
        self._groups, self._size = kind.groups(head_dim)
        self._layout = {
            KVKind.FULL: [(head_dim, dtype)],
            KVKind.INT8: [(head_dim, torch.int8), (1, torch.float32)],
            KVKind.INT4: [
                (self._groups * self._size // 2, torch.uint8),
                (self._groups, torch.float16),
            ],
        }[kind]
        self._device = device
        self.stored = self._make(0)

    def _make(self, capacity: int) -> list[Tensor]:
        batch, heads, _ = self._shape
        return [
            # Zeros: entries that are not written yet may be read, and are hidden by a mask (Place).
            torch.zeros((batch, heads, capacity, width), dtype=dtype, device=self._device)
            for width, dtype in self._layout
        ]

    @property
    def capacity(self) -> int:
        return self.stored[0].shape[2]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.stored)

    def bytes_of(self, tokens: int) -> int:
        """Return the bytes of a number of tokens."""
        batch, heads, _ = self._shape
        return batch * heads * tokens * sum(w * dtype.itemsize for w, dtype in self._layout)

    def grow(self, capacity: int, keep: int) -> None:
        """Allocate larger buffers and copy the first `keep` tokens of the old ones."""
        grown = self._make(capacity)
        for new, old in zip(grown, self.stored, strict=True):
            new[:, :, :keep] = old[:, :, :keep]
        self.stored = grown

    def clear(self) -> None:
        """Free the buffers."""
        self.stored = self._make(0)

    def write(self, start: int, x: Tensor) -> None:
        """Store x [batch, kv_heads, tokens, head_dim] from token `start` on."""
        end = start + x.shape[2]
        for stored, part in zip(self.stored, self._parts(x), strict=True):
            stored[:, :, start:end] = part

    def put(self, slot: Tensor, x: Tensor) -> None:
        """Store one token x [batch, kv_heads, 1, head_dim] at slot [1]."""
        for stored, part in zip(self.stored, self._parts(x), strict=True):
            stored.index_copy_(2, slot, part)

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the stored form of x."""
        if self._kind is KVKind.FULL:
            return (x.to(self._dtype),)
        if self._kind is KVKind.INT4:
            return self._four_bits(hadamard(x.to(torch.float32)))
        # One scale per token and head, so that tokens can be appended without touching others.
        wide = x.to(torch.float32)
        scale = (wide.abs().amax(-1, keepdim=True) / 127).clamp_min(1e-12)
        return (wide / scale).round().to(torch.int8), scale

    def _four_bits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the codes of x, two per byte, and the scales of its groups.

        Codes go from -8 to 7. The scale makes the largest number of a group -8, whatever its sign:
        the error is a tenth smaller than with codes from -7 to 7. A byte has the code of a number
        of the group's first half in its lower bits, and one of the second half in the others.
        """
        count, size = self._groups, self._size
        x = F.pad(x, (0, count * size - x.shape[-1])).view(*x.shape[:3], count, size)
        low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
        most = torch.finfo(torch.float16).max
        scales = (torch.where(high > -low, high, low) / -8).clamp(-most, most).to(torch.float16)
        # A group whose scale is 0 has the codes 0.
        wide = scales.to(torch.float32)
        codes = (x / torch.where(wide == 0, torch.inf, wide)).round().clamp(-8, 7).to(torch.int8)
        first, second = (half.view(torch.uint8) for half in codes.chunk(2, dim=-1))
        return ((first & 15) | (second << 4)).flatten(-2), scales.squeeze(-1)

    def read(self, end: int) -> Tensor:
        """Return the first `end` tokens, [batch, kv_heads, end, head_dim], compute dtype.

        Rows of KVKind.INT4 stay rotated.
        """
        if self._kind is KVKind.FULL:
            return self.stored[0][:, :, :end]
        codes, scales = (tensor[:, :, :end] for tensor in self.stored)
        if self._kind is KVKind.INT4:
            return self._from_four_bits(codes, scales)
        # The product is computed in float32, and a GPU's kernel rounds it to the type of `out`: it
        # moves 3 bytes per number, where a product and a conversion would move 11.
        out = torch.empty(codes.shape, dtype=self._dtype, device=self._device)
        return torch.mul(codes, scales, out=out)

    def _from_four_bits(self, codes: Tensor, scales: Tensor) -> Tensor:
        """Return the numbers of codes and scales, see `_four_bits`."""
        count, size = self._groups, self._size
        shape = (*codes.shape[:3], count, 2, size // 2)
        out = torch.empty(shape, dtype=self._dtype, device=self._device)
        pairs = codes.view(*codes.shape[:3], count, size // 2)
        wide = scales.to(torch.float32).unsqueeze(-1)
        # The shift of a signed byte to the right keeps the sign.
        torch.mul((pairs << 4).view(torch.int8) >> 4, wide, out=out[..., 0, :])
        torch.mul(pairs.view(torch.int8) >> 4, wide, out=out[..., 1, :])
        return out.flatten(3)[..., : self._shape[2]]


_LAYERS_AT_A_TIME = 4
"""Layers that leave a GPU together, with one wait: 19 MiB of a picture of the 19B model."""


def _gathered(parts: Sequence[Tensor], device: torch.device) -> Tensor:
    """Return a copy of tensors of one shape [...] on a device, [parts, ...]."""
    found = torch.empty((len(parts), *parts[0].shape), dtype=parts[0].dtype, device=device)
    fetch = backend_of(parts[0].device).fetch
    for begin in range(0, len(parts), _LAYERS_AT_A_TIME):
        for number, part in enumerate(fetch(parts[begin : begin + _LAYERS_AT_A_TIME]), begin):
            found[number] = part
    return found


class KVCache:
    """Keys and values of all layers, in buffers that grow in steps or are fixed.

    kind     how keys and values are stored
    length   tokens in the cache; indices in the buffers, not RoPE positions
    fixed    whether the buffers have `limit` tokens from the beginning, and stay when the content
             is released: CUDA graphs contain their addresses, and the plan of a GPU has room for
             them in all phases
    version  changes whenever buffers are replaced
    account  called before every change of the buffers' bytes; may raise to reject it
    """

    kind = KVKind.FULL
    GROWTH = 256
    """Tokens by which the buffers grow: 32 MiB at a time for the 19B model."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        batch: int,
        dtype: torch.dtype,
        devices: Sequence[torch.device],
        kind: KVKind = KVKind.FULL,
        limit: int | None = None,
        fixed: bool = False,
        account: Account | None = None,
    ) -> None:
        """Create an empty cache; its buffers are allocated when tokens come.

        devices  one per layer
        limit    planned tokens; growth steps are cut at it
        """
        assert limit is not None or not fixed, "fixed buffers need a limit"
        shape = (batch, config.num_multi_query_heads, config.head_dim)
        self._keys = [_Rows(shape, kind, dtype, device) for device in devices]
        self._values = [_Rows(shape, kind, dtype, device) for device in devices]
        self.kind = kind
        self._limit = limit
        self.fixed = fixed
        self._account = account or _no_account
        self.length = 0
        self.version = 0

    @property
    def _rows(self) -> list[tuple[int, _Rows]]:
        return [*enumerate(self._keys), *enumerate(self._values)]

    @property
    def capacity(self) -> int:
        return min(rows.capacity for _, rows in self._rows)

    @property
    def nbytes(self) -> int:
        return sum(rows.nbytes for _, rows in self._rows)

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` in total, keep the content.

        The room is rounded up to a growth step, or to the limit if the buffers are fixed.
        """
        if tokens <= self.capacity:
            return
        self.version += 1
        capacity = -(-tokens // self.GROWTH) * self.GROWTH
        if self._limit is not None:
            capacity = max(tokens, self._limit if self.fixed else min(capacity, self._limit))
        # Buffer by buffer: if memory runs out in between, the next call continues from there.
        for layer, rows in self._rows:
            if rows.capacity < capacity:
                more = rows.bytes_of(capacity) - rows.nbytes
                self._account(layer, more)
                try:
                    rows.grow(capacity, self.length)
                except BaseException:
                    self._account(layer, -more)
                    raise

    def release(self) -> None:
        """Discard all tokens, and free the buffers unless they are fixed."""
        self.length = 0
        if not self.fixed:
            self.free()

    def free(self) -> None:
        """Discard all tokens and free the buffers."""
        self.length = 0
        self.version += 1
        for layer, rows in self._rows:
            held = rows.nbytes
            rows.clear()
            self._account(layer, -held)

    def window(self, ahead: int = 0) -> int:
        """Return the number of tokens that a `Place` for the next token reads: a full growth step.

        ahead  tokens of the same step before it

        It depends on the token's index alone, because the number of tokens read may change the last
        bit.
        """
        index = self.length + ahead
        return min(self.capacity, (index // self.GROWTH + 1) * self.GROWTH)

    def append(
        self,
        layer: int,
        keys: Tensor,
        values: Tensor,
        place: Place | None = None,
        ahead: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Write new tokens after the first `length`; return all keys and values up to them.

        keys, values  [batch, kv_heads, tokens, head_dim], keys after rotation
        place         index of a single token, used instead of `length`
        ahead         tokens of the same step that are in the buffers after `length` already
        Returns       [batch, kv_heads, length + ahead + tokens, head_dim] each; with a place the
                      first `window` tokens; see `rotate`

        `length` does not change until `advance`, so all layers of a step write the same indices.
        """
        if place is not None:
            self._keys[layer].put(place.slot, keys)
            self._values[layer].put(place.slot, values)
            return self._keys[layer].read(place.window), self._values[layer].read(place.window)
        end = self._write(layer, keys, values, ahead)
        return self._keys[layer].read(end), self._values[layer].read(end)

    def append_stored(
        self, layer: int, keys: Tensor, values: Tensor, ahead: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Do the same as `append` without a place; return what the C kernel for attention reads.

        Returns  the first length + ahead + tokens tokens in the compute dtype, or 8-bit codes and
                 scales
        """
        end = self._write(layer, keys, values, ahead)
        if self.kind is KVKind.INT4:
            return [self._keys[layer].read(end)], [self._values[layer].read(end)]
        found, others = ([t[:, :, :end] for t in stored] for stored in self.stored(layer))
        return found, others

    def _write(self, layer: int, keys: Tensor, values: Tensor, ahead: int) -> int:
        """Write new tokens; return how many there are then."""
        start = self.length + ahead
        self._keys[layer].write(start, keys)
        self._values[layer].write(start, values)
        return start + keys.shape[2]

    def stored(self, layer: int) -> tuple[list[Tensor], list[Tensor]]:
        """Return a layer's buffers of keys and of values: numbers, or codes and scales."""
        return self._keys[layer].stored, self._values[layer].stored

    def layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return a layer's keys and values, [batch, kv_heads, length, head_dim] each."""
        keys, values = (rows[layer].read(self.length) for rows in (self._keys, self._values))
        return self.rotate(keys), self.rotate(values)

    def rotate(self, x: Tensor) -> Tensor:
        """Return queries as the keys are returned, or results for the values as they came in.

        x  [..., head_dim]

        Keys and values of KVKind.INT4 are rotated (hadamard.py) before they are stored, and stay so
        when they are read. Products with rotated queries are those without rotation, and it is
        faster to rotate the results of a few tokens than the values of all. The rotation is its own
        inverse. Other kinds are not rotated.
        """
        return hadamard(x) if self.kind is KVKind.INT4 else x

    def advance(self, tokens: int) -> None:
        """Count the tokens of a finished step."""
        self.length += tokens

    def truncate(self, length: int) -> None:
        """Discard the tokens from `length` on."""
        assert 0 <= length <= self.length
        self.length = length

    def prefix_bytes(self, tokens: int) -> int:
        """Return the bytes of a copy of that many tokens."""
        return sum(rows.bytes_of(tokens) for _, rows in self._rows)

    def prefix(self, tokens: int, device: torch.device) -> KVPrefix:
        """Return a copy of the first `tokens` on a device, in their stored form."""

        def copy(layers: list[_Rows]) -> tuple[Tensor, ...]:
            parts = zip(*(rows.stored for rows in layers), strict=True)
            return tuple(
                _gathered([part[:, :, :tokens] for part in group], device) for group in parts
            )

        return KVPrefix(keys=copy(self._keys), values=copy(self._values))

    def fits(self, prefix: KVPrefix, tokens: int) -> bool:
        """Return whether a prefix of `tokens` tokens has the shapes and types of this cache."""
        empty = self.prefix(0, torch.device("cpu"))

        def same(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> bool:
            return len(ours) == len(theirs) and all(
                a.dtype == b.dtype and (*a.shape[:3], tokens, *a.shape[4:]) == tuple(b.shape)
                for a, b in zip(ours, theirs, strict=True)
            )

        return same(empty.keys, prefix.keys) and same(empty.values, prefix.values)

    def restore(self, prefix: KVPrefix) -> None:
        """Replace the content by a copied prefix."""
        self.length = 0
        self.reserve(prefix.tokens)
        for rows, parts in ((self._keys, prefix.keys), (self._values, prefix.values)):
            for layer, target in enumerate(rows):
                for stored, part in zip(target.stored, parts, strict=True):
                    stored[:, :, : prefix.tokens] = part[layer]
        self.length = prefix.tokens
