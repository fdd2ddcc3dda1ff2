"""Decodes BMP files of the forms that Pillow does not know: any bit masks, 2 bits, long palettes.

Only uncompressed pixels; Pillow reads the run-length encoded ones.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cogvlm2_lite.inputs.tiff_samples import unpack
from cogvlm2_lite.text import Text

_HEAD = 14
_PLAIN, _MASKS, _ALPHA_MASKS = 0, 3, 6
_USUAL_MASKS = {16: (0x7C00, 0x03E0, 0x001F, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}


@dataclass(frozen=True, kw_only=True)
class BmpHeader:
    """What the header of a file says; `masks` are of red, green, blue and alpha."""

    start: int
    width: int
    height: int
    from_top: bool
    bits: int
    compression: int
    masks: tuple[int, int, int, int]
    palette_start: int
    palette_entry: int

    @property
    def row_bytes(self) -> int:
        return -(-self.width * self.bits // 32) * 4

    @property
    def is_read_here(self) -> bool:
        """Whether this module decodes the file."""
        known = self.compression == _PLAIN or (
            self.compression in (_MASKS, _ALPHA_MASKS) and self.bits in (16, 32)
        )
        return known and self.bits in (1, 2, 4, 8, 16, 24, 32)

    @property
    def variant(self) -> Text:
        """The name of a variant that is not read."""
        names = {1: "RLE", 2: "RLE", 3: "Huffman 1D", 4: "JPEG", 5: "PNG"}
        if self.compression in names:
            return Text("compression {name}", name=names[self.compression])
        return Text("{bits} bits per pixel", bits=self.bits)


def read_header(head: bytes) -> BmpHeader | None:
    """Return the header of a BMP file; None if it has no readable header.

    head  the first 128 bytes or more
    """
    if len(head) < 70:
        return None
    start, size = struct.unpack_from("<II", head, 10)
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", head, 18)
        return BmpHeader(
            start=start, width=width, height=height, from_top=False, bits=bits,
            compression=_PLAIN, masks=_USUAL_MASKS.get(bits, (0, 0, 0, 0)),
            palette_start=_HEAD + 12, palette_entry=3,
        )  # fmt: skip
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", head, 18)
    masks, extra = _USUAL_MASKS.get(bits, (0, 0, 0, 0)), 0
    if compression in (_MASKS, _ALPHA_MASKS):
        # The masks follow a header of 40 bytes, and are a part of longer ones.
        red, green, blue, alpha = struct.unpack_from("<4I", head, 54)
        has_alpha = compression == _ALPHA_MASKS or size >= 56
        masks = (red, green, blue, alpha if has_alpha else 0)
        extra = (16 if compression == _ALPHA_MASKS else 12) if size == 40 else 0
    return BmpHeader(
        start=start, width=width, height=abs(height), from_top=height < 0, bits=bits,
        compression=compression, masks=masks, palette_start=_HEAD + size + extra, palette_entry=4,
    )  # fmt: skip


def with_file_header(data: bytes) -> bytes:
    """Return a bitmap without a file's header, as the clipboard has it, as a BMP file."""
    size, _, _, _, bits, compression = struct.unpack_from("<IiiHHI", data)
    used = struct.unpack_from("<I", data, 32)[0]
    colors = (used or 1 << bits) if bits <= 8 else used
    masks = {_MASKS: 12, _ALPHA_MASKS: 16}.get(compression, 0) if size == 40 else 0
    start = _HEAD + size + masks + 4 * colors
    return struct.pack("<2sIII", b"BM", _HEAD + len(data), 0, min(start, 0xFFFFFFFF)) + data


def decode(data: bytes, header: BmpHeader) -> tuple[NDArray[np.uint8], float]:
    """Return the pixels [height, width, 3 or 4] of a file, and the share that is missing."""
    there = data[header.start : header.start + header.row_bytes * header.height]
    known = len(there) // header.row_bytes
    flat = np.frombuffer(there, dtype=np.uint8, count=known * header.row_bytes)
    rows = np.zeros((header.height, header.row_bytes), dtype=np.uint8)
    rows[:known] = flat.reshape(known, header.row_bytes)
    pixels = _colors(rows, data, header)
    missing = 1 - known / header.height
    return (pixels if header.from_top else pixels[::-1]), missing


def _colors(rows: NDArray[np.uint8], data: bytes, header: BmpHeader) -> NDArray[np.uint8]:
    if header.bits <= 8:
        palette = np.zeros((256, 3), dtype=np.uint8)
        entry = header.palette_entry
        stored = data[header.palette_start : header.start][: entry << header.bits]
        colors = np.frombuffer(stored[: len(stored) // entry * entry], dtype=np.uint8)
        palette[: len(colors) // entry] = colors.reshape(-1, entry)[:, 2::-1]
        return palette[unpack(rows, header.width, header.bits, "u", "<")]
    if header.bits == 24:
        return rows[:, : header.width * 3].reshape(header.height, header.width, 3)[:, :, ::-1]
    values = unpack(rows, header.width, header.bits, "u", "<").astype(np.uint32)
    channels = [_channel(values, mask) for mask in header.masks]
    if not header.masks[3] or not channels[3].any():  # some programs leave alpha empty
        del channels[3]
    return np.stack(channels, axis=2)


def _channel(values: NDArray[np.uint32], mask: int) -> NDArray[np.uint8]:
    """Return the bits of a mask, scaled to 8 bits."""
    if not mask:
        return np.zeros(values.shape, dtype=np.uint8)
    shift = (mask & -mask).bit_length() - 1
    scale = 255 / (mask >> shift)
    return np.asarray(np.rint(((values & np.uint32(mask)) >> np.uint32(shift)) * scale), np.uint8)
