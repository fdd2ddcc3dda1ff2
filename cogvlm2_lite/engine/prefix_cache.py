"""The prefix cache: what the engine keeps between questions so that nothing is computed twice.

A prompt is computed in chunks that end at its boundaries: after the picture and after each past
turn. The key/value cache up to a boundary depends only on the tokens before it. So it can be kept,
and an answer never depends on which questions were asked before. What an adapter acted on is used
for the same adapter only (`AdapterKey`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile

import torch

from cogvlm2_lite.engine.adapters import NO_ADAPTER, AdapterKey
from cogvlm2_lite.engine.prefix_store import PictureStore
from cogvlm2_lite.engine.replan import MAY_BE_OUT_OF_MEMORY, out_of_memory
from cogvlm2_lite.inputs.prompt import PromptIds
from cogvlm2_lite.memory.arena import Arena, OutOfBudgetError
from cogvlm2_lite.model.kv_cache import KVCache, KVPrefix


@dataclass(frozen=True, kw_only=True)
class CachedPrompt:
    """The part of a prompt that a cache holds.

    ids         token ids up to the last boundary
    boundaries  lengths at which chunks ended, ascending
    picture     sha256 of the picture, or None
    adapter     the adapter that acted
    """

    ids: tuple[int, ...] = ()
    boundaries: tuple[int, ...] = ()
    picture: str | None = None
    adapter: AdapterKey = NO_ADAPTER

    def common(
        self, prompt: PromptIds, picture: str | None, adapter: AdapterKey = NO_ADAPTER
    ) -> int:
        """Return the length of the longest prefix shared with `prompt`, in equal chunks."""
        if picture != self.picture or adapter.prefix != self.adapter.prefix:
            return 0
        ids = prompt.input_ids[0].tolist()
        shared = 0
        for mine, theirs in zip(self.boundaries, prompt.boundaries, strict=False):
            if mine != theirs or list(self.ids[:mine]) != ids[:mine]:
                break
            shared = mine
        if adapter.whole != self.adapter.whole:
            # Of another adapter only the picture can be used, the first boundary.
            return min(shared, 1 + prompt.image_tokens) if picture else 0
        return shared

    @staticmethod
    def of(
        prompt: PromptIds, picture: str | None, length: int, adapter: AdapterKey = NO_ADAPTER
    ) -> CachedPrompt:
        """Return the description of a cache that holds `prompt` up to `length`."""
        boundaries = tuple(b for b in prompt.boundaries if b <= length)
        end = max(boundaries, default=0)
        return CachedPrompt(
            ids=tuple(prompt.input_ids[0, :end].tolist()),
            boundaries=boundaries,
            picture=picture,
            adapter=adapter,
        )


@dataclass(kw_only=True)
class GeneratedTokens:
    """The tokens of an answer that a cache holds after a whole prompt; the list grows with it."""

    prompt: tuple[int, ...]
    picture: str | None
    adapter: AdapterKey = NO_ADAPTER
    tokens: list[int] = field(default_factory=list)

    @staticmethod
    def after(
        prompt: PromptIds, picture: str | None, adapter: AdapterKey = NO_ADAPTER
    ) -> GeneratedTokens:
        """Return the description of a cache that holds `prompt` and nothing else."""
        return GeneratedTokens(
            prompt=tuple(prompt.input_ids[0].tolist()), picture=picture, adapter=adapter
        )

    def common(
        self,
        prompt: PromptIds,
        picture: str | None,
        continue_ids: Sequence[int],
        adapter: AdapterKey = NO_ADAPTER,
    ) -> int:
        """Return how many tokens of `continue_ids` need not be computed again.

        The last one always must: its logits decide the next token, and they are not kept.
        """
        if picture != self.picture or adapter != self.adapter:
            return 0
        if self.prompt != tuple(prompt.input_ids[0].tolist()):
            return 0
        pairs = zip(self.tokens, continue_ids[:-1], strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


class CacheSlot:
    """The key/value cache of one conversation, and what it holds.

    It is kept after an answer, so that the next question of the conversation finds its past there.

    cached     the part of a prompt
    generated  the tokens of an answer after it; None if the cache holds others
    new_picture  key of a picture that was encoded and is not in the PictureCache yet, and the
               tokens up to its end
    replans    plans made during the current answer because memory ran out
    used       number of the last answer; 0: none yet
    """

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        self.cached = CachedPrompt()
        self.generated: GeneratedTokens | None = None
        self.new_picture: tuple[str, int] | None = None
        self.replans = 0
        self.used = 0

    def holds(
        self,
        prompt: PromptIds,
        picture: str | None,
        continue_ids: Sequence[int],
        adapter: AdapterKey = NO_ADAPTER,
    ) -> int:
        """Return how many tokens of a prompt, and of the answer after it, are in the cache."""
        generated = 0
        if self.generated is not None:
            generated = self.generated.common(prompt, picture, continue_ids, adapter)
        if generated:
            return prompt.tokens + generated
        return self.cached.common(prompt, picture, adapter)

    def clear(self) -> None:
        """Discard the conversation; pictures in the PictureCache are kept."""
        self.cache.release()
        self.cached = CachedPrompt()
        self.generated = None
        self.new_picture = None


class PictureCache:
    """Key/value prefixes of pictures in RAM and on disk; the least recently used are dropped first.

    For the 19B model one picture takes 288 MiB. `picture` is the key of AdapterKey.of_picture.

    max_bytes  of RAM; `resize` changes it
    store      keeps pictures across restarts; None: they are not kept
    arena      accounts for RAM; None on a GPU, which has another budget
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
        """Return the prefix [bos, picture] of `tokens` tokens for a cache, and count it as used."""
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
        """Keep the first `tokens` of a cache, if the limits allow it."""
        size = cache.prefix_bytes(tokens)
        if picture in self._entries or (size > self._max_bytes and self._store is None):
            return
        try:
            prefix = cache.prefix(tokens, torch.device("cpu"))
        except MAY_BE_OUT_OF_MEMORY as error:
            if not out_of_memory(error):
                raise
            return  # the answer goes on; if it is asked for again, the picture is encoded again
        self._keep(picture, prefix)
        if self._store is not None:
            self._store.put(picture, prefix)

    def _keep(self, picture: str, prefix: KVPrefix) -> None:
        if prefix.nbytes > self._max_bytes:
            return
        self._shrink(self._max_bytes - prefix.nbytes)
        # Another program may have taken this memory since the plan was made: then it is not kept.
        with suppress(OutOfBudgetError):
            self._arena.take(prefix.nbytes)
            self._entries[picture] = prefix

    def resize(self, max_bytes: int) -> None:
        """Change the limit after a new plan; what no longer fits is dropped."""
        self._max_bytes = max_bytes
        self._shrink(max_bytes)

    def clear(self) -> None:
        """Drop all pictures."""
        self._shrink(0)

    def _shrink(self, nbytes: int) -> None:
        while self._entries and self.nbytes > nbytes:
            _, dropped = self._entries.popitem(last=False)
            self._arena.release(dropped.nbytes)
