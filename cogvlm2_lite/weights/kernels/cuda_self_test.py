"""The self-test of bitsandbytes' product on a GPU: right numbers, independent rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.bitsandbytes_cuda import MAX_TOGETHER, CudaKernel
from cogvlm2_lite.weights.kernels.matrix import SCALE_GROUP, FourBitMatrix
from cogvlm2_lite.weights.kernels.nf4 import NF4_LEVELS, dynamic_map
from cogvlm2_lite.weights.kernels.scratch import Scratch
from cogvlm2_lite.weights.kernels.torch_dequantizer import TorchDequantizer

_GROUP = 64
_SHAPES = ((512, 128), (16, 4096), (16, 14336), (8192, 64))
"""Rows and columns of probes. For more rows of inputs bitsandbytes has another kernel, but only if
the matrix has enough rows for the whole GPU, as the last one."""

_ERRORS: Mapping[torch.dtype, float] = MappingProxyType(
    {torch.bfloat16: 0.01, torch.float16: 0.002, torch.float32: 1e-4}
)
"""Relative errors, a few times those that CudaKernel states."""


@cache
def rows_together(device: torch.device, dtype: torch.dtype) -> int:
    """Return the most rows of a product in which each row has the same bits as alone.

    Returns 0 if results are wrong.

    Computed once: a process may open many models.
    """
    kernel, scratch = CudaKernel(device), Scratch(device)

    def multiply(x: Tensor, matrix: FourBitMatrix, bias: Tensor | None) -> Tensor:
        return kernel.multiply(x, matrix, bias, scratch).cpu()

    together = MAX_TOGETHER
    for shape in _SHAPES:
        probe = _product(*shape, dtype)
        matrix, x, bias = _to(probe.matrix, device), probe.x.to(device), probe.bias.to(device)
        for rows in (1, 2, 3, 8):
            if not probe.is_close(multiply(x[:rows], matrix, bias)):
                return 0
        matrix, x = _cancelling(*shape, dtype)
        matrix, x = _to(matrix, device), x.to(device)
        alone = torch.cat([multiply(row, matrix, None) for row in x[:, None]])
        for rows in range(2, MAX_TOGETHER + 1):
            if not torch.equal(multiply(x[:rows], matrix, None), alone[:rows]):
                together = 1
    return together


@dataclass(frozen=True, kw_only=True)
class _Product:
    """A matrix with all codes and quantized scales, inputs, and the exact result in float64."""

    matrix: FourBitMatrix
    x: Tensor
    bias: Tensor
    exact: Tensor

    def is_close(self, out: Tensor) -> bool:
        """Return whether the first rows of the result are right."""
        exact = self.exact[: out.shape[0]]
        error = float((out.double() - exact).norm() / exact.norm())
        return error < _ERRORS[self.x.dtype]  # False if it is not a number


@cache
def _product(rows: int, columns: int, dtype: torch.dtype) -> _Product:
    matrix = _patterned(rows, columns)
    groups = rows * columns // _GROUP
    matrix = replace(
        matrix,
        absmax=(torch.arange(groups) * 89 % 256).to(torch.uint8),
        nested_absmax=torch.linspace(0.1, 0.9, -(-groups // SCALE_GROUP)),
        nested_map=dynamic_map(),
        nested_offset=1.25,
        offset=torch.tensor(1.25),
    )
    weight = torch.empty(rows, columns, dtype=dtype)
    TorchDequantizer().filler(matrix, Scratch(torch.device("cpu")))(0, rows, weight)
    x, bias = _noise(8, columns).to(dtype), _noise(1, rows)[0].to(dtype)
    exact = x.double() @ weight.double().t() + bias.double()
    return _Product(matrix=matrix, x=x, bias=bias, exact=exact)


@cache
def _cancelling(rows: int, columns: int, dtype: torch.dtype) -> tuple[FourBitMatrix, Tensor]:
    """Return a matrix and inputs [3, columns] whose products are exactly 0.

    What a kernel returns is the sum of its rounding errors, which shows in which order it adds.
    After rounding to 16 bits other products seldom show it. The numbers have many magnitudes, so
    that there are errors.
    """
    scales = (_noise(3, columns // 2) / 2 + 1) * 2.0 ** -(torch.arange(columns // 2) * 7 % 11)
    return _patterned(rows, columns), torch.cat((scales, -scales), dim=1).to(dtype)


def _patterned(rows: int, columns: int) -> FourBitMatrix:
    """Return a matrix with all codes. The second half of each row repeats the first one."""
    codes = (torch.arange(rows * columns // 4) * 1201 % 4093 % 256).view(rows, -1).repeat(1, 2)
    groups = columns // _GROUP
    absmax = (_noise(rows, -(-groups // 2)) / 2 + 1).repeat(1, 2)[:, :groups]
    return FourBitMatrix(
        rows=rows,
        columns=columns,
        group=_GROUP,
        quant_type="nf4",
        codes=codes.to(torch.uint8).view(-1, 1),
        absmax=absmax.reshape(-1),
        levels=torch.tensor(NF4_LEVELS),
    )


def _noise(rows: int, columns: int) -> Tensor:
    """Return numbers between -1 and 1 in no order. They do not change torch's generator."""
    return (torch.arange(rows * columns) * 7919 % 10007 / 5003.5 - 1).view(rows, columns)


def _to(matrix: FourBitMatrix, device: torch.device) -> FourBitMatrix:
    names = ("codes", "absmax", "levels", "nested_absmax", "nested_map", "offset")
    pieces = {name: getattr(matrix, name) for name in names}
    there: dict[str, Any] = {n: None if p is None else p.to(device) for n, p in pieces.items()}
    return replace(matrix, **there)
