"""Keeps resized sample pictures in a temporary file, so that each of them is decoded only once."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray

from cogvlm2_lite.inputs.image import OpenedImage, normalise_pixels, resize_pixels
from cogvlm2_lite.samples.samples import Sample, opened
from cogvlm2_lite.units import GIB

_MOST_BYTES = 2 * GIB
"""390 pictures of the 19B model; all others are decoded again when they are needed."""


class SamplePixels:
    """The pictures of samples as the vision tower needs them, by their sha256.

    A photo of 100 megapixels takes seconds to decode, and its pixels are needed for its hash, for
    the calibration and for each evaluation. Resized to the tower's 1344 x 1344 it takes 5.4 MB. A
    context manager; the file has no name, so nothing is left when the process ends.
    """

    def __init__(self, side: int, folder: Path, *, most_bytes: int = _MOST_BYTES) -> None:
        """Keep pictures of `side` pixels in a file on the disk of `folder`.

        most_bytes  limit of the file; it also takes at most a quarter of the free space
        """
        self._side, self._folder = side, folder
        self._most = min(most_bytes, shutil.disk_usage(folder).free // 4) // self._nbytes
        self._places: dict[str, int] = {}
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def keep(self, image: OpenedImage) -> NDArray[np.uint8]:
        """Resize a decoded picture, keep it if there is room, and return it."""
        rgb = resize_pixels(image, self._side)
        if image.sha256 not in self._places and len(self._places) < self._most:
            try:
                self._append(image.sha256, rgb)
            except OSError:  # a full disk: the others are decoded again
                self._most = 0
        return rgb

    def values(self, sample: Sample) -> NDArray[np.float32]:
        """Return what inputs.image.pixel_values returns for a sample's picture, bit for bit.

        Raises ImageError if it must be decoded again and can't be.
        """
        place = self._places.get(sample.picture or "")
        if place is None or self._file is None:
            image = opened(sample)
            assert image is not None
            return normalise_pixels(self.keep(image))
        self._file.seek(place * self._nbytes)
        raw = np.frombuffer(self._file.read(self._nbytes), dtype=np.uint8)
        return normalise_pixels(raw.reshape(self._side, self._side, 3))

    @property
    def _nbytes(self) -> int:
        return self._side * self._side * 3

    def _append(self, picture: str, rgb: NDArray[np.uint8]) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
        place = len(self._places)
        self._file.seek(place * self._nbytes)
        if self._file.write(rgb.tobytes()) == self._nbytes:
            self._places[picture] = place
