"""The key/value cache: what the decoder remembers of the tokens it has seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cogvlm2_lite.config import ModelConfig

Account = Callable[[int, int], None]
"""Told (layer, bytes) of a change of the cache's size."""


def _no_account(layer: int, nbytes: int) -> None:
    """Count nothing."""


@dataclass(frozen=True, kw_only=True)
class KVPrefix:
    """A copy of the first tokens of a cache.

    keys, values  [layers, batch, kv_heads, tokens, head_dim], keys after rotation
    """

    keys: Tensor
    values: Tensor

    @property
    def tokens(self) -> int:
        return self.keys.shape[3]

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes


class KVCache:
    """Keys and values of all layers in buffers that grow in steps.

    keys, values  one buffer per layer, [batch, kv_heads, capacity, head_dim]
    length        tokens that are in the cache; positions in the buffers, not RoPE positions
    account       told of every change of the buffers' bytes before it happens; refuses by raising
    """

    GROWTH = 256
    """Tokens by which the buffers grow: 32 MiB at a time for the 19B model."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        batch: int,
        dtype: torch.dtype,
        devices: Sequence[torch.device],
        account: Account | None = None,
    ) -> None:
        """Make an empty cache; `devices` has one entry per layer."""
        self._heads, self._head_dim = config.num_multi_query_heads, config.head_dim
        self._batch, self._dtype, self._devices = batch, dtype, devices
        self._account = account or _no_account
        self.length = 0
        self.keys = [self._buffer(layer, 0) for layer in range(len(devices))]
        self.values = [self._buffer(layer, 0) for layer in range(len(devices))]

    def _buffer(self, layer: int, capacity: int) -> Tensor:
        shape = (self._batch, self._heads, capacity, self._head_dim)
        return torch.empty(shape, dtype=self._dtype, device=self._devices[layer])

    @property
    def capacity(self) -> int:
        return min(buffer.shape[2] for buffer in (*self.keys, *self.values))

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in (*self.keys, *self.values))

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` in all, rounded up to a growth step; keeps what is there."""
        if tokens <= self.capacity:
            return
        capacity = -(-tokens // self.GROWTH) * self.GROWTH
        # Buffer by buffer: when memory runs out in between, the next try goes on from there.
        for buffers in (self.keys, self.values):
            for layer, old in enumerate(buffers):
                if old.shape[2] < capacity:
                    self._account(layer, self._bytes(capacity) - old.nbytes)
                    try:
                        grown = self._buffer(layer, capacity)
                    except BaseException:
                        self._account(layer, old.nbytes - self._bytes(capacity))
                        raise
                    grown[:, :, : self.length] = old[:, :, : self.length]
                    buffers[layer] = grown

    def _bytes(self, capacity: int) -> int:
        return self._batch * self._heads * capacity * self._head_dim * self._dtype.itemsize

    def release(self) -> None:
        """Forget everything and give the buffers back."""
        self.length = 0
        for buffers in (self.keys, self.values):
            for layer, old in enumerate(buffers):
                buffers[layer] = self._buffer(layer, 0)
                self._account(layer, -old.nbytes)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write new tokens behind `length` and give views of everything up to them.

        keys, values  [batch, kv_heads, tokens, head_dim]
        Returns       [batch, kv_heads, length + tokens, head_dim] each

        `length` stays as it is until `advance`, so every layer of a step writes the same place.
        """
        end = self.length + keys.shape[2]
        self.keys[layer][:, :, self.length : end] = keys
        self.values[layer][:, :, self.length : end] = values
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def advance(self, tokens: int) -> None:
        """Count the tokens of a finished step."""
        self.length += tokens

    def truncate(self, length: int) -> None:
        """Forget every token from `length` on."""
        assert 0 <= length <= self.length
        self.length = length

    @property
    def dtype(self) -> torch.dtype:
        """Type of the cached numbers."""
        return self._dtype

    def prefix_shape(self, tokens: int) -> tuple[int, ...]:
        """Give the shape of a copied prefix, [layers, batch, kv_heads, tokens, head_dim]."""
        return (len(self.keys), self._batch, self._heads, tokens, self._head_dim)

    def prefix(self, tokens: int, device: torch.device) -> KVPrefix:
        """Copy the first `tokens` to a device."""
        return KVPrefix(
            keys=torch.stack([k[:, :, :tokens].to(device) for k in self.keys]),
            values=torch.stack([v[:, :, :tokens].to(device) for v in self.values]),
        )

    def restore(self, prefix: KVPrefix) -> None:
        """Start anew from a copied prefix."""
        self.length = 0
        self.reserve(prefix.tokens)
        for layer in range(len(self.keys)):
            self.append(layer, prefix.keys[layer], prefix.values[layer])
        self.length = prefix.tokens
