"""What the engine keeps between questions so that nothing is computed twice.

A prompt is computed in pieces that end at its boundaries: after the picture, after each past turn.
The key/value cache up to a boundary depends on what stands before it and on nothing else, so it
can be kept, and an answer never depends on which questions were asked before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile

import torch

from cogvlm2_lite.engine.prefix_store import PictureStore
from cogvlm2_lite.inputs.prompt import PromptIds
from cogvlm2_lite.memory.arena import Arena, OutOfBudgetError
from cogvlm2_lite.model.kv_cache import KVCache, KVPrefix


@dataclass(frozen=True, kw_only=True)
class Known:
    """The pieces of a prompt that a cache holds.

    ids         token ids up to the last boundary
    boundaries  lengths at which pieces ended, ascending
    picture     sha256 of the picture, or None
    """

    ids: tuple[int, ...] = ()
    boundaries: tuple[int, ...] = ()
    picture: str | None = None

    def common(self, prompt: PromptIds, picture: str | None) -> int:
        """Give the length of the longest beginning shared with `prompt`, in equal pieces."""
        if picture != self.picture:
            return 0
        ids = prompt.input_ids[0].tolist()
        shared = 0
        for mine, theirs in zip(self.boundaries, prompt.boundaries, strict=False):
            if mine != theirs or list(self.ids[:mine]) != ids[:mine]:
                break
            shared = mine
        return shared

    @staticmethod
    def of(prompt: PromptIds, picture: str | None, length: int) -> Known:
        """Describe a cache that holds `prompt` up to `length`."""
        boundaries = tuple(b for b in prompt.boundaries if b <= length)
        end = max(boundaries, default=0)
        return Known(
            ids=tuple(prompt.input_ids[0, :end].tolist()), boundaries=boundaries, picture=picture
        )


@dataclass(kw_only=True)
class Spoken:
    """The tokens of an answer that a cache holds behind a whole prompt; they grow as it comes."""

    prompt: tuple[int, ...]
    picture: str | None
    tokens: list[int] = field(default_factory=list)

    @staticmethod
    def behind(prompt: PromptIds, picture: str | None) -> Spoken:
        """Describe a cache that holds `prompt` and nothing else."""
        return Spoken(prompt=tuple(prompt.input_ids[0].tolist()), picture=picture)

    def common(self, prompt: PromptIds, picture: str | None, begun: Sequence[int]) -> int:
        """Give how many tokens of `begun` need not be read again. Its last one always must: its
        scores say what comes next, and they are not kept."""
        if picture != self.picture or self.prompt != tuple(prompt.input_ids[0].tolist()):
            return 0
        pairs = zip(self.tokens, begun[:-1], strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


class Seat:
    """Where a conversation sits: its key/value cache, and what that holds.

    It stays as it is when an answer is over, so that the next question finds its past there.

    known      pieces of a prompt
    spoken     tokens of an answer behind it; None when there are others
    tightened  plans that were made for the answer under way because memory ran out
    used       number of the last answer; 0: none yet
    """

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        self.known = Known()
        self.spoken: Spoken | None = None
        self.tightened = 0
        self.used = 0

    def holds(self, prompt: PromptIds, picture: str | None, begun: Sequence[int]) -> int:
        """Give how many tokens of a prompt, and of the answer behind it, need not be read again."""
        spoken = self.spoken.common(prompt, picture, begun) if self.spoken else 0
        return prompt.tokens + spoken if spoken else self.known.common(prompt, picture)

    def clear(self) -> None:
        """Give the cache's memory back; kept pictures stay known."""
        self.cache.release()
        self.known = Known()
        self.spoken = None


class PictureCache:
    """Key/value prefixes of pictures in RAM, least recently used out first, and on disk.

    For the 19B model one picture takes 288 MiB.

    max_bytes  of RAM; `resize` changes it
    store      where pictures outlive the program; None: nowhere
    arena      that accounts for RAM; None: on a GPU, whose budget is another one
    """

    def __init__(
        self, max_bytes: int, store: PictureStore | None = None, arena: Arena | None = None
    ) -> None:
        self._max_bytes = max_bytes
        self._store = store
        self._arena = arena or Arena()
        self._entries: OrderedDict[str, KVPrefix] = OrderedDict()

    @property
    def nbytes(self) -> int:
        return sum(entry.nbytes for entry in self._entries.values())

    def get(self, picture: str, cache: KVCache, tokens: int) -> KVPrefix | None:
        """Give the prefix [bos, picture] of `tokens` tokens for a cache, and count it as used."""
        entry = self._entries.get(picture)
        if entry is not None:
            self._entries.move_to_end(picture)
            return entry
        if self._store is None:
            return None
        entry = self._store.get(picture, cache, tokens)
        if entry is not None:
            self._keep(picture, entry)
        return entry

    def put(self, picture: str, cache: KVCache, tokens: int) -> None:
        """Keep the first `tokens` of a cache, as far as the limits allow."""
        size = cache.prefix_bytes(tokens)
        if picture in self._entries or (size > self._max_bytes and self._store is None):
            return
        prefix = cache.prefix(tokens, torch.device("cpu"))
        self._keep(picture, prefix)
        if self._store is not None:
            self._store.put(picture, prefix)

    def _keep(self, picture: str, prefix: KVPrefix) -> None:
        if prefix.nbytes > self._max_bytes:
            return
        self._shrink(self._max_bytes - prefix.nbytes)
        # Another program may have taken what the plan left: then it is not kept.
        with suppress(OutOfBudgetError):
            self._arena.take(prefix.nbytes)
            self._entries[picture] = prefix

    def resize(self, max_bytes: int) -> None:
        """Follow a new plan; what it leaves no room for is forgotten."""
        self._max_bytes = max_bytes
        self._shrink(max_bytes)

    def clear(self) -> None:
        """Forget all pictures."""
        self._shrink(0)

    def _shrink(self, nbytes: int) -> None:
        while self._entries and self.nbytes > nbytes:
            _, dropped = self._entries.popitem(last=False)
            self._arena.give(dropped.nbytes)
