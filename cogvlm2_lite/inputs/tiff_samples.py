"""Converts the bytes of TIFF rows to samples, and samples to greys or colors of 8 bits.

Written for the many forms that Pillow reads wrongly or not at all: any number of bits, signed and
floating-point samples, planes, CIELAB, alpha at any depth.
"""

from __future__ import annotations

from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[Any]
"""[rows, columns, samples] in the type of the file, or [rows, columns] for one sample."""


def undo_prediction(
    rows: NDArray[np.uint8], predictor: int, bits: int, samples: int, order: str
) -> NDArray[np.uint8]:
    """Return rows of bytes as they were before prediction (TIFF 6.0, section 14).

    rows       [rows, bytes of one row] uint8
    predictor  2: each sample was stored as the difference to its left neighbour
               3: the same for the bytes of floating-point numbers, sorted by significance
    bits       of each sample: 8, 16, 24 (predictor 3), 32 or 64
    samples    for each pixel
    order      "<" or ">", the byte order of the samples
    """
    height = rows.shape[0]
    if predictor == 3:
        size = bits // 8
        sums = np.cumsum(rows.reshape(height, -1, samples), axis=1, dtype=np.uint8)
        by_significance = sums.reshape(height, size, -1)
        stored = by_significance if order == ">" else by_significance[:, ::-1]
        return np.ascontiguousarray(stored.transpose(0, 2, 1)).reshape(height, -1)
    kind = np.dtype(f"{order}u{bits // 8}")
    values = np.ascontiguousarray(rows).view(kind).reshape(height, -1, samples)
    # Sums wrap around in the width of the sample, which is what the differences did.
    return (
        np.cumsum(values, axis=1, dtype=kind.newbyteorder("="))
        .astype(kind)
        .view(np.uint8)
        .reshape(height, -1)
    )


def unpack(rows: NDArray[np.uint8], count: int, bits: int, form: str, order: str) -> Samples:
    """Return the samples of rows.

    rows   [rows, bytes of one row] uint8
    count  samples in one row
    bits   of each sample, 1 to 64
    form   "u" unsigned, "i" signed, "f" floating point
    order  "<" or ">", the byte order of samples of 16, 24, 32 and 64 bits
    Returns [rows, count]
    """
    height = rows.shape[0]
    if bits in (8, 16, 32, 64) or form == "f":
        kind = np.dtype(f"{order}{form}{bits // 8}")
        data = np.ascontiguousarray(rows[:, : count * kind.itemsize])
        return data.view(kind).astype(kind.newbyteorder("="), copy=False)
    if bits == 24:
        parts = rows[:, : count * 3].reshape(height, count, 3).astype(np.uint32)
        high, low = (0, 2) if order == ">" else (2, 0)
        values: Samples = parts[:, :, high] << 16 | parts[:, :, 1] << 8 | parts[:, :, low]
    else:
        values = _unpack_bits(rows, count, bits)
    if form == "i":
        values = values.astype(np.int64)
        return np.where(values >> (bits - 1), values - (1 << bits), values)
    return values


def _unpack_bits(
    rows: NDArray[np.uint8], count: int, bits: int
) -> NDArray[np.unsignedinteger[Any]]:
    """Return samples that are stored without gaps, the highest bit first."""
    height = rows.shape[0]
    used = rows[:, : -(-count * bits // 8)]
    if bits in (1, 2, 4):
        each = 8 // bits
        shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
        parts = used[:, :, None] >> shifts & np.uint8((1 << bits) - 1)
        return parts.reshape(height, used.shape[1] * each)[:, :count]
    # Every few samples a byte begins with a new one; those at the same place are read together.
    size = bits // gcd(bits, 8)
    width = -(-used.shape[1] // size) * size
    groups = np.pad(used, ((0, 0), (0, width - used.shape[1]))).reshape(height, -1, size)
    kind = np.uint16 if bits <= 16 else np.uint32 if bits <= 32 else np.uint64
    columns = [_bits_at(groups, place, bits).astype(kind) for place in range(0, size * 8, bits)]
    values: NDArray[np.unsignedinteger[Any]] = np.stack(columns, axis=2).reshape(height, -1)
    return values[:, :count]


def _bits_at(groups: NDArray[np.uint8], place: int, bits: int) -> NDArray[np.uint64]:
    """Return the number in some bits of each group of bytes, [rows, groups]."""
    first, last = place // 8, (place + bits - 1) // 8
    kind = np.uint32 if last - first < 4 else np.uint64
    values = np.zeros(groups.shape[:2], dtype=kind)
    behind = (last + 1) * 8 - place - bits
    if last - first == 8:  # nine bytes: the last one is added without its other bits
        for byte in range(first, last):
            values = values << kind(8) | groups[:, :, byte]
        values = values << kind(8 - behind) | (groups[:, :, last] >> np.uint8(behind))
    else:
        for byte in range(first, last + 1):
            values = values << kind(8) | groups[:, :, byte]
        values >>= kind(behind)
    return (values & kind((1 << bits) - 1)).astype(np.uint64)


def to_bytes(samples: Samples, low: float, high: float) -> NDArray[np.uint8]:
    """Return samples scaled to 8 bits, with `low` as 0 and `high` as 255; others are clipped."""
    if samples.dtype == np.uint8 and (low, high) == (0, 255):
        return samples
    exact = np.float32 if samples.dtype.itemsize <= 2 else np.float64
    values: NDArray[np.floating[Any]] = samples.astype(exact)
    scaled = np.clip((values - exact(low)) * exact(255 / (high - low)), 0, 255)
    return np.asarray(np.rint(scaled), dtype=np.uint8)


def lab_to_srgb(lab: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return sRGB colors of CIELAB ones for the white of D50.

    lab  [..., 3]: lightness from 0 to 100, then a and b

    The formulas are those of CIE 15 and IEC 61966-2-1; the matrix is that of sRGB adapted to D50
    (Bradford), as color profiles have it.
    """
    middle = (lab[..., 0] + 16) / 116
    curve = np.stack([middle + lab[..., 1] / 500, middle, middle - lab[..., 2] / 200], axis=-1)
    xyz = np.where(curve > 6 / 29, curve**3, (curve - 16 / 116) * (108 / 841)) * _D50
    return encode_srgb(xyz @ _SRGB_OF_D50.T)


def encode_srgb(linear: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Return sRGB values of 8 bits of linear ones from 0 to 1; others are clipped."""
    linear = np.clip(linear, 0, 1)
    curved = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(curved * 255), dtype=np.uint8)


_D50 = np.array([0.96422, 1.0, 0.82521], dtype=np.float32)
_SRGB_OF_D50 = np.array(
    [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ],
    dtype=np.float32,
)
