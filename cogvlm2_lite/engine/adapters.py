"""The adapters of a loaded model: which one acts on which rows, and what depends on it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from cogvlm2_lite.engine.chunk import Chunk
from cogvlm2_lite.model.decoder import RoutedAdapter, Routing
from cogvlm2_lite.weights.adapter import Adapter
from cogvlm2_lite.weights.adapter_choice import unknown_adapter
from cogvlm2_lite.weights.adapter_names import BEHIND_PICTURE
from cogvlm2_lite.weights.slots import Adapted


@dataclass(frozen=True, kw_only=True)
class AdapterKey:
    """What tells apart keys and values that differ only by the adapter that acted.

    prefix  those of [bos, picture]; "": as without an adapter
    whole   those of all tokens; "": without an adapter
    """

    prefix: str = ""
    whole: str = ""

    def of_picture(self, picture: str) -> str:
        """Return the key of a picture's prefix; it is the sha256 itself if no adapter matters."""
        return f"{picture} {self.prefix}" if self.prefix else picture


NO_ADAPTER = AdapterKey()


class Adapters:
    """Adapters by name; one or none acts on a conversation, and `None` is the base model."""

    def __init__(self, adapters: Sequence[Adapter] = ()) -> None:
        self._adapters = {adapter.name: adapter for adapter in adapters}
        self._keys = {adapter.name: _key(adapter) for adapter in adapters}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._adapters)

    @property
    def first(self) -> str | None:
        """The adapter that is used by default, or None without adapters."""
        return next(iter(self._adapters), None)

    def check(self, name: str | None) -> None:
        """Raise UsageError if there is no such adapter."""
        if name is not None and name not in self._adapters:
            raise unknown_adapter(name, self.names)

    def key(self, name: str | None) -> AdapterKey:
        """Return what keys and values depend on."""
        return NO_ADAPTER if name is None else self._keys[name]

    def template(self, name: str | None) -> str | None:
        """Return the prompt template that an adapter learnt; None: not known."""
        return None if name is None else self._adapters[name].template

    def on_picture(self, name: str | None) -> Adapted | None:
        """Return the adapter for the vision tower and the projector."""
        if name is None or self._adapters[name].acts_on == BEHIND_PICTURE:
            return None
        return Adapted(name=name)

    def on_chunk(self, name: str | None, chunk: Chunk, routing: Routing) -> RoutedAdapter | None:
        """Return the adapter for the decoder, with the rows of a chunk on which it acts.

        routing  that of the chunk, in host memory
        """
        if name is None or self._adapters[name].acts_on != BEHIND_PICTURE:
            return self.on_token(name)
        return RoutedAdapter.where(name, behind_picture(chunk), routing)

    def on_token(self, name: str | None) -> RoutedAdapter | None:
        """Return the adapter for a generated token."""
        return None if name is None else RoutedAdapter.everywhere(name)


def behind_picture(chunk: Chunk) -> Tensor:
    """Return which tokens are neither bos nor an image token nor before one, [batch, tokens]."""
    before = chunk.image_mask.flip(1).cumsum(1).flip(1) > 0  # an image token is here or later
    return ~before & (chunk.position_ids > 0)


def _key(adapter: Adapter) -> AdapterKey:
    # The scales are not in the tensors' file: another alpha is another adapter.
    scales = [f"{name} {pair.scale!r}" for name, pair in sorted(adapter.pairs.items())]
    text = "\n".join((adapter.sha256, adapter.acts_on, *scales))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return AdapterKey(prefix="" if adapter.acts_on == BEHIND_PICTURE else digest, whole=digest)
