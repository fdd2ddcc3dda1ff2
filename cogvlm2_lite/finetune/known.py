"""What is kept of pictures from step to step, as far as training does not change it."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from cogvlm2_lite.finetune.blocks import KeyValues


class KnownPictures:
    """Features of pictures, and keys and values of prefixes, in RAM within a limit.

    What comes first is kept: every epoch needs all pictures, so replacing some would gain nothing.
    """

    def __init__(self, limit_bytes: int = 0) -> None:
        self._limit_bytes = limit_bytes
        self._features: dict[str, Tensor] = {}
        self._prefixes: dict[str, KeyValues] = {}

    @property
    def held_bytes(self) -> int:
        return sum(self._sizes())

    def _sizes(self) -> Iterator[int]:
        yield from (each.nbytes for each in self._features.values())
        yield from (each.nbytes for each in self._prefixes.values())

    def features(self, picture: str) -> Tensor | None:
        """Return the features of a picture by its key; None: not known."""
        return self._features.get(picture)

    def prefix(self, key: str) -> KeyValues | None:
        """Return the keys and values of a prefix by its key; None: not known."""
        return self._prefixes.get(key)

    def add_features(self, picture: str, features: Tensor) -> None:
        """Keep the features of a picture if there is room."""
        if self.held_bytes + features.nbytes <= self._limit_bytes:
            self._features[picture] = features

    def add_prefix(self, key: str, prefix: KeyValues) -> bool:
        """Keep a prefix if there is room; return whether it is kept."""
        fits = self.held_bytes + prefix.nbytes <= self._limit_bytes
        if fits:
            self._prefixes[key] = prefix
        return fits

    def resize(self, limit_bytes: int) -> None:
        """Change the limit; what does not fit any more is forgotten."""
        self._limit_bytes = limit_bytes
        kept: tuple[dict[str, Tensor], dict[str, KeyValues]] = (self._features, self._prefixes)
        while self.held_bytes > limit_bytes:
            stored = kept[1] if kept[1] else kept[0]
            stored.popitem()
