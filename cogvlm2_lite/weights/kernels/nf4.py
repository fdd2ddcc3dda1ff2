"""NF4: 16 levels spaced like a normal distribution, one scale per group of weights.

Rounding is bit-exact with bitsandbytes 0.50 on CPU (codes, scales, and the 8-bit scales of double
quantization), so a folder written here equals one that bitsandbytes would have written. It is
several times faster: bitsandbytes searches 15 boundaries per weight on CPU; this code counts how
many boundaries a weight exceeds, with 15 vectorized comparisons over a chunk in the L2 cache.

A matrix is flattened row by row; groups may span rows. Two codes share a byte, the first in the
high half.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from cogvlm2_lite.errors import ConversionError
from cogvlm2_lite.weights.kernels.matrix import SCALE_GROUP, FourBitMatrix

NF4_LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""The values of the 16 codes (QLoRA, arXiv 2305.14314, appendix E), exact in float32."""

FP4_LEVELS = (
    0.0, 0.0052083334885537624, 0.6666666865348816, 1.0,
    0.3333333432674408, 0.5, 0.1666666716337204, 0.25,
    0.0, -0.0052083334885537624, -0.6666666865348816, -1.0,
    -0.3333333432674408, -0.5, -0.1666666716337204, -0.25,
)  # fmt: skip
"""The values of bitsandbytes' FP4, the kind of the released int4 folders. Read, never written."""

_CHUNK = 1 << 16
_SMALLEST_SCALE = 1e-38
_SEARCH_BINS = 65536


@dataclass(frozen=True, kw_only=True)
class NestedScales:
    """Scales after double quantization; the fields are those of FourBitMatrix."""

    absmax: Tensor
    nested_absmax: Tensor
    nested_map: Tensor
    nested_offset: float


def quantize_nf4(weight: Tensor, *, group: int = 64, double_quant: bool = True) -> FourBitMatrix:
    """Return a whole matrix rounded to NF4.

    weight  [rows, columns] float32, float16 or bfloat16 on CPU

    Raises ConversionError if a weight is infinite or not a number.
    """
    rows, columns = weight.shape
    codes, absmax = quantize_rows(weight, group=group)
    matrix = FourBitMatrix(
        rows=rows,
        columns=columns,
        group=group,
        quant_type="nf4",
        codes=codes,
        absmax=absmax,
        levels=torch.tensor(NF4_LEVELS),
    )
    if not double_quant:
        return matrix
    nested = nest_scales(absmax)
    return replace(
        matrix,
        absmax=nested.absmax,
        nested_absmax=nested.nested_absmax,
        nested_map=nested.nested_map,
        nested_offset=nested.nested_offset,
        offset=torch.tensor(nested.nested_offset),
    )


def quantize_rows(weight: Tensor, *, group: int = 64) -> tuple[Tensor, Tensor]:
    """Return codes and scales of some rows, for a matrix that does not fit into memory.

    weight   [rows, columns] float32, float16 or bfloat16 on CPU. In all but the last call the rows
             must contain a whole number of groups, so that groups are those of the whole matrix.
    Returns  codes [numel / 2 rounded up, 1] uint8 and scales [groups] float32. Concatenated over
             all calls they equal the result for the whole matrix. Scratch: under 1 MiB.

    Raises ConversionError if a weight is infinite or not a number.
    """
    flat = weight.contiguous().view(-1)
    total = flat.numel()
    absmax = torch.empty(-(-total // group), dtype=torch.float32)
    codes = torch.empty(-(-total // 2), dtype=torch.uint8)
    step = max(_CHUNK // (2 * group), 1) * 2 * group
    scratch = _Scratch(min(step, total + total % 2))
    whole = total - total % group
    for start in range(0, whole, step):
        end = min(start + step, whole)
        _round_groups(flat[start:end], group, absmax[start // group : end // group], scratch)
        scratch.pack(codes[start // 2 : -(-end // 2)], end - start)
    if whole < total:
        _round_tail(flat[whole:], absmax, scratch)
        # `whole` is even, because every group size is even.
        scratch.pack(codes[whole // 2 :], total - whole)
    if not torch.isfinite(absmax).all():
        raise ConversionError(
            "A weight is infinite or not a number, so this matrix can't be rounded to 4 bits.",
            hint="The checkpoint is damaged. Copy or download it again.",
        )
    return codes.view(-1, 1), absmax


class _Scratch:
    """Buffers for one chunk, so that no step allocates."""

    def __init__(self, size: int) -> None:
        self.scaled = torch.empty(size, dtype=torch.float32)
        self.magnitude = torch.empty(size, dtype=torch.float32)
        self._codes = np.empty(size, dtype=np.uint8)
        self._above = np.empty(size, dtype=np.bool_)
        self._high = np.empty(size // 2, dtype=np.uint16)

    def count_boundaries(self, size: int) -> None:
        """Compute the codes of the first `size` scaled weights: the boundaries each one exceeds.

        numpy, because its comparison into a bool buffer takes 0.07 ns per weight, torch's 0.7 ns.
        """
        scaled, codes = self.scaled.numpy()[:size], self._codes[:size]
        above = self._above[:size]
        bounds = _boundaries()
        np.greater(scaled, bounds[0], out=codes.view(np.bool_))
        for bound in bounds[1:]:
            np.greater(scaled, bound, out=above)
            np.add(codes, above.view(np.uint8), out=codes)

    def pack(self, out: Tensor, size: int) -> None:
        """Join the first `size` codes in pairs, the earlier one in the high half."""
        if size % 2:
            self._codes[size] = 7  # what bitsandbytes' padding with 0.0 rounds to
        pairs = (size + 1) // 2
        low_first = self._codes[: 2 * pairs].view("<u2")
        high = self._high[:pairs]
        np.left_shift(low_first, 4, out=high)
        np.bitwise_or(high, low_first >> 8, out=high)
        out.numpy()[:] = high.astype(np.uint8)


def _round_groups(weights: Tensor, group: int, absmax: Tensor, scratch: _Scratch) -> None:
    """Round whole groups: scales into absmax, codes into the scratch."""
    size = weights.numel()
    scaled = scratch.scaled[:size].copy_(weights)
    magnitude = torch.abs(scaled, out=scratch.magnitude[:size])
    torch.amax(magnitude.view(-1, group), dim=1, out=absmax)
    inverse = 1.0 / absmax.clamp(min=_SMALLEST_SCALE)
    scaled.view(-1, group).mul_(inverse.view(-1, 1))
    scratch.count_boundaries(size)


def _round_tail(weights: Tensor, absmax: Tensor, scratch: _Scratch) -> None:
    """Round the weights after the last whole group.

    bitsandbytes treats them differently: the clamped scale is stored, and weights are divided by it
    instead of multiplied by its inverse.
    """
    size = weights.numel()
    scaled = scratch.scaled[:size].copy_(weights)
    absmax[-1] = scaled.abs().max().clamp(min=_SMALLEST_SCALE)
    scaled.div_(absmax[-1])
    scratch.count_boundaries(size)


@cache
def _boundaries() -> tuple[np.float32, ...]:
    """Return the 15 midpoints between levels, computed in float32 as bitsandbytes does."""
    levels = np.array(NF4_LEVELS, dtype=np.float32)
    return tuple((levels[:-1] + levels[1:]) / np.float32(2))


# --- double quantization --------------------------------------------------------------------------


def nest_scales(absmax: Tensor) -> NestedScales:
    """Return the scales of a whole matrix rounded to 8 bits, after subtracting their mean.

    absmax  [groups] float32, of all rows: the mean is over the whole matrix
    """
    offset = _mean(absmax)
    centred = absmax - offset
    groups = centred.numel()
    padded = torch.zeros(-(-groups // SCALE_GROUP) * SCALE_GROUP)
    padded[:groups] = centred
    blocks = padded.view(-1, SCALE_GROUP).numpy()
    outer = np.abs(blocks).max(axis=1)
    # All scales equal gives 0 / 0 here, and code 0 below, as in bitsandbytes.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scaled = blocks * (np.float32(1) / outer)[:, None]
        position = (scaled + np.float32(1)) * np.float32(32767.5) + np.float32(0.5)
    position = np.clip(np.nan_to_num(position, nan=0.0), 0, _SEARCH_BINS - 1)
    codes = _search_table()[position.astype(np.int64)].reshape(-1)[:groups]
    return NestedScales(
        absmax=torch.from_numpy(codes),
        nested_absmax=torch.from_numpy(outer),
        nested_map=dynamic_map(),
        nested_offset=float(offset),
    )


def _mean(absmax: Tensor) -> Tensor:
    """Return the float32 mean, summed by one thread.

    torch splits a sum over its threads, so the last bit depends on their number; the bytes of a
    folder must not.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return absmax.mean()
    finally:
        torch.set_num_threads(threads)


def dynamic_map() -> Tensor:
    """Return the values of the 8-bit codes for scales, [256] float32, ascending.

    The signed "dynamic" type of arXiv 1511.04561 as implemented in bitsandbytes: seven decades,
    each with twice as many steps as the next lower one; zero; and one.
    """
    values = [0.0, 1.0]
    for decade in range(7):
        edges = torch.linspace(0.1, 1, 2**decade + 1, dtype=torch.float32)
        middles = (edges[:-1] + edges[1:]) / 2.0
        values += ((10 ** (decade - 6)) * middles).tolist()
        values += (-(10 ** (decade - 6)) * middles).tolist()
    return torch.tensor(sorted(values), dtype=torch.float32)


@cache
def _search_table() -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Return the nearest 8-bit code at each of 65536 evenly spaced values from -1 to 1.

    On CPU bitsandbytes looks up scales in such a table; an exact search would differ in one scale
    out of 600.
    """
    values = dynamic_map().numpy().astype(np.float64)
    middles = (values[1:] + values[:-1]) / 2
    positions = np.arange(_SEARCH_BINS) / 32767.5 - 1
    return np.searchsorted(middles, positions).astype(np.uint8)


def expand_scales(
    absmax: Tensor, nested_absmax: Tensor, nested_map: Tensor, nested_offset: float
) -> Tensor:
    """Return the scales from the result of nest_scales.

    absmax         [groups] uint8
    nested_absmax  [groups / 256 rounded up] float32
    nested_map     [256] float32
    Returns        [groups] float32, bit-exact with bitsandbytes
    """
    scales = nested_map[absmax.to(torch.int32)]
    outer = nested_absmax.repeat_interleave(SCALE_GROUP)[: scales.numel()]
    return scales.mul_(outer).add_(torch.tensor(nested_offset, dtype=torch.float32))


# --- dequantizing ---------------------------------------------------------------------------------


def dequantize_reference(
    codes: Tensor, absmax: Tensor, *, levels: Tensor, group: int, out: Tensor
) -> Tensor:
    """Dequantize with plain torch: look up and scale every code. This defines the right result.

    codes   [numel / 2 rounded up] uint8
    absmax  [groups] float32
    levels  [16] float32
    out     any shape with numel elements, a floating dtype; filled and returned
    """
    total = out.numel()
    nibbles = torch.stack((codes.view(-1) >> 4, codes.view(-1) & 15), dim=1).view(-1)[:total]
    values = levels[nibbles.to(torch.int32)]
    scales = absmax.repeat_interleave(group)[:total]
    return out.copy_(values.mul_(scales).view(out.shape))


def dequantize_by_byte(
    codes: Tensor, absmax: Tensor, *, levels: Tensor, group: int, out: Tensor
) -> Tensor:
    """Dequantize as dequantize_reference, bit-identical, with one look-up per byte.

    It takes 1.6 ns per weight, the reference 13 ns.
    """
    total = out.numel()
    by_byte = torch.cartesian_prod(levels, levels)  # [256, 2], high half first
    values = by_byte.index_select(0, codes.view(-1).to(torch.int32)).view(-1)[:total]
    if total % group:
        values = values * absmax.repeat_interleave(group)[:total]
    else:
        values.view(-1, group).mul_(absmax.view(-1, 1))
    return out.copy_(values.view(out.shape))
