"""4-bit matrices in bitsandbytes' layout: NF4, and FP4, which differs only in its 16 levels.

Tolerances against the reference (dequantize with plain torch, then F.linear), as relative Frobenius
error of the result: the dequantizing paths only sum in another order, below 0.003 in bfloat16 and
1e-5 in float32; our C kernel does not round weights to bfloat16, which the reference does, below
0.004 in bfloat16 and 1e-5 in float32; the packed path rounds levels and scales to it, below 0.006.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd

import torch
from torch import Tensor

from cogvlm2_lite.weights.footprint import can_pack
from cogvlm2_lite.weights.kernels.choice import KernelChoice
from cogvlm2_lite.weights.kernels.gemv import StoredMatrix
from cogvlm2_lite.weights.kernels.nf4 import dequantize_plain, expand_scales
from cogvlm2_lite.weights.kernels.packed import pack, pack_scales
from cogvlm2_lite.weights.kernels.scratch import Scratch
from cogvlm2_lite.weights.slots import as_rows, as_single
from cogvlm2_lite.weights.storage.chunks import multiply_in_chunks


@dataclass(frozen=True, kw_only=True, eq=False)
class FourBitArrays(StoredMatrix):
    """The stored pieces of one 4-bit matrix, and the name of its levels: "nf4" or "fp4"."""

    quant_type: str

    @property
    def nbytes(self) -> int:
        pieces = (self.codes, self.absmax, self.levels, self.nested_absmax, self.nested_map)
        return sum(piece.nbytes for piece in pieces if piece is not None)

    @property
    def row_multiple(self) -> int:
        """Rows after which a row starts with a new group (and, groups being even, a new byte)."""
        return self.group // gcd(self.group, self.columns)


@dataclass(frozen=True, kw_only=True, eq=False)
class FourBitWeight:
    """A 4-bit matrix on the CPU, or on a GPU without bitsandbytes.

    packed, packed_scales  a second copy for decoding, see kernels/packed.py; None without
    """

    arrays: FourBitArrays
    kernels: KernelChoice
    scratch: Scratch
    packed: Tensor | None = None
    packed_scales: Tensor | None = None

    @property
    def kind(self) -> str:
        return self.arrays.quant_type

    @property
    def nbytes(self) -> int:
        copies = (self.packed, self.packed_scales)
        return self.arrays.nbytes + sum(copy.nbytes for copy in copies if copy is not None)

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Give x @ weight.T + bias; see StoredWeight and the tolerances above."""
        return self._multiply(x, bias, rows=x.numel() // x.shape[-1])

    def multiply_each(self, xs: Sequence[Tensor], bias: Tensor | None) -> list[Tensor]:
        """Multiply as a single row is; both kernels for few rows compute each by itself.

        See StoredWeight.
        """
        return as_single(self._multiply(as_rows(xs), bias, rows=1, each=True))

    def _multiply(self, x: Tensor, bias: Tensor | None, *, rows: int, each: bool = False) -> Tensor:
        """Multiply in the way that is chosen for so many rows."""
        if (
            self.packed is not None
            and self.packed_scales is not None
            and rows <= self.kernels.packed_max_rows
            and x.dtype == torch.bfloat16
        ):
            return self._multiply_packed(x, bias, self.packed, self.packed_scales)
        arrays, own, tiles = self.arrays, self.kernels.rows, self.kernels.tiles
        if tiles is not None and tiles.takes(
            rows, columns=arrays.columns, group=arrays.group, dtype=x.dtype
        ):
            flat = x.reshape(-1, x.shape[-1])
            out = tiles.four_bit(
                flat, arrays.codes, self._scales(), arrays.levels, bias,
                group=arrays.group, scratch=self.scratch,
            )  # fmt: skip
            return out.view(*x.shape[:-1], arrays.rows)
        if own is not None and own.takes(
            rows, columns=arrays.columns, group=arrays.group, dtype=x.dtype
        ):
            out = own.four_bit(x, arrays)
            return out if bias is None else out.add_(bias)
        return multiply_in_chunks(
            x,
            bias,
            out_features=arrays.rows,
            multiple=arrays.row_multiple,
            fill=self._filler(x.dtype),
            scratch=self.scratch,
            each=each,
        )

    def dequantize(self, to: torch.dtype) -> Tensor:
        """Give the plain matrix [out_features, in_features]."""
        shape = (self.arrays.rows, self.arrays.columns)
        return self.dequantize_into(torch.empty(shape, dtype=to, device=self.arrays.codes.device))

    def dequantize_into(self, out: Tensor) -> Tensor:
        """Fill and return `out` [out_features, in_features], contiguous, a floating dtype."""
        self._filler(out.dtype)(0, self.arrays.rows, out)
        return out

    def _multiply_packed(
        self, x: Tensor, bias: Tensor | None, packed: Tensor, scales: Tensor
    ) -> Tensor:
        native = self.kernels.native
        assert native is not None
        flat = x.reshape(-1, x.shape[-1]).contiguous()
        out = torch.empty(flat.shape[0], self.arrays.rows, dtype=x.dtype)
        native.multiply_packed(
            flat, packed, scales, out, quant_type=self.kind, group=self.arrays.group
        )
        if bias is not None:
            out += bias
        return out.view(*x.shape[:-1], self.arrays.rows)

    def _scales(self) -> Tensor:
        """Give the float32 scales, expanded into scratch when they are stored in 8 bits."""
        if self.arrays.nested_absmax is None:
            return self.arrays.absmax
        out = self.scratch.take("scales", (self.arrays.absmax.numel(),), torch.float32)
        return _expand_scales(self.arrays, self.kernels, out)

    def _filler(self, dtype: torch.dtype) -> Callable[[int, int, Tensor], None]:
        """Give what makes rows from a first to a last one plain, see `multiply_in_chunks`."""
        arrays, own = self.arrays, self.kernels.rows
        if own is not None and own.can_dequantize(
            columns=arrays.columns, group=arrays.group, dtype=dtype
        ):
            return lambda start, end, out: own.dequantize(arrays, start, out)
        scales = self._scales()
        return lambda start, end, out: self._dequantize_rows(scales, start, end, out)

    def _dequantize_rows(self, scales: Tensor, start: int, end: int, out: Tensor) -> None:
        """Fill `out` [end - start, in_features]; start is a multiple of row_multiple."""
        arrays, native = self.arrays, self.kernels.native
        first = start * arrays.columns
        count = (end - start) * arrays.columns
        codes = arrays.codes[first // 2 : -(-(first + count) // 2)]
        absmax = scales[first // arrays.group : -(-(first + count) // arrays.group)]
        if native is not None and native.can_dequantize(group=arrays.group, dtype=out.dtype):
            native.dequantize(codes, absmax, out, quant_type=arrays.quant_type, group=arrays.group)
        else:
            dequantize_plain(codes, absmax, levels=arrays.levels, group=arrays.group, out=out)


def place_four_bit(
    arrays: FourBitArrays, kernels: KernelChoice, scratch: Scratch, *, packed: bool
) -> FourBitWeight:
    """Make a matrix ready, with a packed copy if asked for and possible."""
    if not (packed and kernels.packs and can_pack(arrays.rows, arrays.columns, arrays.group)):
        return FourBitWeight(arrays=arrays, kernels=kernels, scratch=scratch)
    scales = arrays.absmax
    if arrays.nested_absmax is not None:
        # Not in the scratch: weights are placed on one thread while another one multiplies.
        scales = _expand_scales(arrays, kernels, torch.empty(scales.numel()))
    return FourBitWeight(
        arrays=arrays,
        kernels=kernels,
        scratch=scratch,
        packed=pack(arrays.codes, arrays.rows, arrays.columns),
        packed_scales=pack_scales(scales, arrays.rows),
    )


def _expand_scales(arrays: FourBitArrays, kernels: KernelChoice, out: Tensor) -> Tensor:
    """Fill `out` [groups] float32 with scales that are stored in 8 bits."""
    assert arrays.nested_absmax is not None
    assert arrays.nested_map is not None
    nested = (arrays.absmax, arrays.nested_absmax, arrays.nested_map, arrays.nested_offset)
    if kernels.native is None:
        return out.copy_(expand_scales(*nested))
    kernels.native.expand_scales(*nested, out)
    return out
