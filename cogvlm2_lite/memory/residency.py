"""Carries a memory plan out: brings weights in before a phase needs them. It decides nothing.

Nothing else moves weights. The main loops read like this, and inside the body, and only there, the
block's weights are in memory:

    with residency.phase(Phase.PREFILL_TEXT):
        for block in residency.walk(decoder.blocks):
            hidden = block(hidden, step)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from cogvlm2_lite.memory.phases import PARTS, Phase
from cogvlm2_lite.weights.names import Part
from cogvlm2_lite.weights.shell import Linear, Shell


class HasShells(Protocol):
    """A piece of the model that lists the places its weights go to."""

    def shells(self) -> Iterable[Shell]: ...


class Loader(Protocol):
    """What fills shells; `weights/loader.py` in earnest."""

    def fill(self, shell: Shell) -> int: ...


Block = TypeVar("Block", bound=HasShells)


class Residency:
    """Fills shells on their first use and keeps them.

    loader  brings one weight in
    parts   tensor name -> part
    loose   what stands outside of the blocks: embeddings, norms, projector, lm_head
    """

    def __init__(self, loader: Loader, parts: dict[str, Part], loose: Sequence[HasShells]) -> None:
        self._loader = loader
        self._parts = parts
        self._loose = loose
        self._wanted: frozenset[Part] = frozenset()
        self.resident_bytes: dict[Part, int] = dict.fromkeys(Part, 0)

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Bring in what the phase needs besides blocks; blocks come with `walk`."""
        self._wanted = PARTS[phase]
        try:
            for piece in self._loose:
                self._fill(piece)
            yield
        finally:
            self._wanted = frozenset()

    def walk(self, blocks: Sequence[Block]) -> Iterator[Block]:
        """Give the blocks in order, each with the weights that the phase needs."""
        for block in blocks:
            self._fill(block)
            yield block

    def _fill(self, piece: HasShells) -> None:
        for shell in piece.shells():
            part = self._parts[shell.name]
            empty = shell.stored is None if isinstance(shell, Linear) else shell.value is None
            if empty and part in self._wanted:
                self.resident_bytes[part] += self._loader.fill(shell)
