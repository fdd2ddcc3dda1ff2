"""Self-test of our CUDA kernels on the user's card, against exact arithmetic."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cogvlm2_lite.weights.kernels.cuda.kernels import OwnDense, OwnFourBit, OwnInt8
from cogvlm2_lite.weights.kernels.cuda.operators import GROUP, HEAD, MOST_INPUTS
from cogvlm2_lite.weights.kernels.int8 import dequantize_int8
from cogvlm2_lite.weights.kernels.interface import Kernel
from cogvlm2_lite.weights.kernels.matrix import FourBitMatrix, Int8Matrix
from cogvlm2_lite.weights.kernels.nf4 import dequantize_reference, expand_scales, quantize_nf4
from cogvlm2_lite.weights.kernels.scratch import Scratch

_ROWS, _COLUMNS, _GROUP = 40, 2304, 64
"""The last block of rows is not full, and one warp has twice the work of the others."""

_WRONG = "our CUDA kernels give other numbers than they should"


def check_kernels(device: torch.device, dtype: torch.dtype) -> None:
    """Compile the kernels, and compute a small example with each of them.

    Raises OSError with the reason if they can't be compiled or a result is wrong.
    """
    if dtype not in (torch.bfloat16, torch.float16):
        raise OSError("our CUDA kernels compute in bfloat16 and float16")
    weight = _numbers(_ROWS, _COLUMNS) / 50
    codes = (weight * 6000).to(torch.int8)
    scales = torch.linspace(0.001, 0.01, _ROWS * _COLUMNS // _GROUP).view(_ROWS, -1)
    int8 = dequantize_int8(codes, scales, torch.empty(_ROWS, _COLUMNS))
    dense = weight.to(dtype)
    try:
        for nested in (False, True):
            matrix = quantize_nf4(weight, group=_GROUP, double_quant=nested)
            there, exact = _on(matrix, device), _exact(matrix)
            _check_product(OwnFourBit(), there, exact, dtype)
            _check_gate(there, exact, dtype)
        there_int8 = Int8Matrix(codes=codes.to(device), scales=scales.to(device))
        _check_product(OwnInt8(), there_int8, int8, dtype)
        _check_gate(there_int8, int8, dtype)
        _check_product(OwnDense(), dense.to(device), dense, dtype)
        _check_attention(device, dtype)
        _check_norm(device, dtype)
    except RuntimeError as error:
        first_line = str(error).strip().partition("\n")[0]
        raise OSError(f"our CUDA kernels don't run here: {first_line}") from error


def _numbers(*shape: int) -> Tensor:
    """Return numbers from -1 to 1; no random ones, so that every start checks the same."""
    return (torch.arange(prod(shape)) * 7919 % 10007 / 5003.5 - 1).view(shape)


def _on(matrix: FourBitMatrix, device: torch.device) -> FourBitMatrix:
    names = ["codes", "absmax", "levels"]
    names += ["nested_absmax", "nested_map"] if matrix.nested_absmax is not None else []
    return replace(matrix, **{name: getattr(matrix, name).to(device) for name in names})


def _exact(matrix: FourBitMatrix) -> Tensor:
    scales, outer, lookup = matrix.absmax, matrix.nested_absmax, matrix.nested_map
    if outer is not None and lookup is not None:
        scales = expand_scales(scales, outer, lookup, matrix.nested_offset)
    out = torch.empty(matrix.rows, matrix.columns)
    return dequantize_reference(
        matrix.codes, scales, levels=matrix.levels, group=matrix.group, out=out
    )


def _compare(ours: Tensor, exact: Tensor) -> None:
    ours = ours.cpu().double().flatten()
    error = (ours - exact.flatten()).norm() / exact.norm()
    if not error < 0.01:
        raise OSError(_WRONG)


def _check_product(kernel: Kernel[Any], matrix: Any, exact: Tensor, dtype: torch.dtype) -> None:
    """Raise OSError if a result is wrong, or a row's result depends on the other rows."""
    x = _numbers(MOST_INPUTS, _COLUMNS).to(dtype)
    scratch, there = Scratch(matrix.device), x.to(matrix.device)
    together = kernel.multiply(there, matrix, None, scratch)
    alone = torch.cat([kernel.multiply(row[None], matrix, None, scratch) for row in there])
    _compare(together, x.double() @ exact.double().t())
    if not torch.equal(together, alone):
        raise OSError(_WRONG)


def _check_gate(matrix: FourBitMatrix | Int8Matrix, exact: Tensor, dtype: torch.dtype) -> None:
    x = (_numbers(3, _COLUMNS) / 20).to(dtype)  # the square of a product fits into float16
    levels, offset = None, 0.0
    pieces: list[Tensor | None] = [matrix.codes]
    if isinstance(matrix, FourBitMatrix):
        levels, offset = matrix.levels, matrix.nested_offset
        pieces += [matrix.absmax, matrix.nested_absmax, matrix.nested_map]
    else:
        pieces += [matrix.scales, None, None]
    ours = torch.ops.cogvlm2_lite.gated_product(
        x.to(matrix.device), pieces, pieces, levels, offset, offset, matrix.rows
    )
    product = x.double() @ exact.double().t()
    _compare(ours, F.silu(product) * product)


def _check_attention(device: torch.device, dtype: torch.dtype) -> None:
    heads, slot, capacity = 2, 700, 1024
    qkv = _numbers(1, 1, (GROUP + 2) * heads * HEAD).to(dtype)
    stored = _numbers(2, 1, heads, capacity, HEAD).to(device, dtype)
    out = stored.new_empty(1, 1, heads * GROUP * HEAD)
    cosines, sines = stored.new_ones(HEAD), stored.new_zeros(HEAD)
    torch.ops.cogvlm2_lite.attend_token(
        out, qkv.to(device), cosines, sines, stored[0], None, stored[1], None,
        torch.tensor([slot], device=device),
    )  # fmt: skip
    q, k, v = torch.split(qkv.double().view(-1, HEAD), [GROUP * heads, heads, heads])
    keys, values = stored[:, 0, :, : slot + 1].cpu().double()
    if not torch.equal(keys[:, slot], k) or not torch.equal(values[:, slot], v):
        raise OSError(_WRONG)
    shares = (q.view(heads, GROUP, HEAD) @ keys.mT * HEAD**-0.5).softmax(-1)
    _compare(out, shares @ values)


def _check_norm(device: torch.device, dtype: torch.dtype) -> None:
    x, added, weight = (0.5 + _numbers(3, 1, _COLUMNS)).to(dtype)
    total, normed = torch.ops.cogvlm2_lite.add_norm(
        x.to(device), added.to(device), weight[0].to(device), 1e-5
    )
    right = (x + added).double()
    _compare(total, right)
    _compare(normed, right * (right.square().mean() + 1e-5).rsqrt() * weight.double())
