"""What is kept of pictures from step to step, as far as training does not change it."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from cogvlm2_lite.finetune.blocks import KeyValues
from cogvlm2_lite.finetune.picture_files import FEATURES, PREFIX, PictureFiles


class KnownPictures:
    """Features of pictures, and keys and values of prefixes, in RAM within a limit, and on disk.

    What comes first is kept: every epoch needs all pictures, so replacing some would gain nothing.

    files  None: nothing is stored on disk
    """

    def __init__(self, limit_bytes: int = 0, files: PictureFiles | None = None) -> None:
        self._limit_bytes, self._files = limit_bytes, files
        self._features: dict[str, Tensor] = {}
        self._prefixes: dict[str, KeyValues] = {}

    @property
    def held_bytes(self) -> int:
        return sum(self._sizes())

    def _sizes(self) -> Iterator[int]:
        yield from (each.nbytes for each in self._features.values())
        yield from (each.nbytes for each in self._prefixes.values())

    def has_features(self, picture: str) -> bool:
        """Return whether the features of a picture are in RAM or on disk."""
        stored = self._files is not None and self._files.has(FEATURES, picture)
        return stored or picture in self._features

    def features(self, picture: str) -> Tensor | None:
        """Return the features of a picture by its key; None: not known."""
        known = self._features.get(picture)
        if known is None and self._files is not None:
            (known,) = self._files.get(FEATURES, picture) or (None,)
        return known

    def has_prefix(self, key: str) -> bool:
        """Return whether a prefix is in RAM or on disk."""
        return key in self._prefixes or (self._files is not None and self._files.has(PREFIX, key))

    def prefix(self, key: str) -> KeyValues | None:
        """Return the keys and values of a prefix by its key; None: not known."""
        known = self._prefixes.get(key)
        if known is None and self._files is not None:
            tensors = self._files.get(PREFIX, key)
            known = None if tensors is None else KeyValues.of(tensors)
        return known

    def add_features(self, picture: str, features: Tensor, *, in_ram: bool = True) -> bool:
        """Keep the features of a picture if there is room; return whether they are kept.

        in_ram  False: only on disk
        """
        if self._files is not None:
            self._files.put(FEATURES, picture, [features])
        if in_ram and self.held_bytes + features.nbytes <= self._limit_bytes:
            self._features[picture] = features
        return self.has_features(picture)

    def add_prefix(self, key: str, prefix: KeyValues) -> None:
        """Keep a prefix if there is room: in RAM, or else on disk."""
        if self.held_bytes + prefix.nbytes <= self._limit_bytes:
            self._prefixes[key] = prefix
        elif self._files is not None:
            self._files.put(PREFIX, key, prefix.tensors)

    def resize(self, limit_bytes: int) -> None:
        """Change the limit; what does not fit any more is forgotten."""
        self._limit_bytes = limit_bytes
        kept: tuple[dict[str, Tensor], dict[str, KeyValues]] = (self._features, self._prefixes)
        while self.held_bytes > limit_bytes:
            stored = kept[1] if kept[1] else kept[0]
            stored.popitem()
