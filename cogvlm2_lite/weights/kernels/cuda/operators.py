"""torch's operator for our CUDA kernels' product.

As an operator it is seen by everything that works on torch's calls: profilers, and the emulated
GPU of the tests, which registers the kernels' text compiled for the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.cuda.driver import Launch, launcher
from cogvlm2_lite.weights.kernels.cuda.sources import Matrix, Product

ROWS_OF_A_BLOCK: Final = 16
MOST_INPUTS: Final = 8

Launcher = Callable[[torch.device, torch.dtype], Launch]

_LIBRARY: Final = torch.library.Library("cogvlm2_lite", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(  # type: ignore[no-untyped-call]
    "stored_product(Tensor x, Tensor codes, Tensor? scales, Tensor? outer, Tensor? scale_map, "
    "Tensor? levels, float offset, Tensor? bias, int rows) -> Tensor"
)


def make_product(launcher: Launcher) -> Callable[..., Tensor]:
    """Return an implementation of the operator that launches kernels through `launcher`."""

    def product(
        x: Tensor,
        codes: Tensor,
        scales: Tensor | None,
        outer: Tensor | None,
        scale_map: Tensor | None,
        levels: Tensor | None,
        offset: float,
        bias: Tensor | None,
        rows: int,
    ) -> Tensor:
        inputs, columns = x.shape
        out = x.new_empty((inputs, rows))
        if levels is None:
            name = "product_dense" if scales is None else "product_int8"
        else:
            name = "product_flat" if outer is None else "product_nested"
        arguments = Product(
            x=x.data_ptr(),
            first=Matrix(codes.data_ptr(), _address(scales), _address(outer)),
            levels=_address(levels),
            scale_map=_address(scale_map),
            bias=_address(bias),
            out=out.data_ptr(),
            offset=offset,
            inputs=inputs,
            rows=rows,
            columns=columns,
        )
        launcher(x.device, x.dtype)(name, arguments, (-(-rows // ROWS_OF_A_BLOCK), 1))
        return out

    return product


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _shape(x: Tensor, *rest: object) -> Tensor:
    rows = rest[-1]
    assert isinstance(rows, int)
    return x.new_empty((x.shape[0], rows))


_LIBRARY.impl("stored_product", make_product(launcher), "CUDA")  # type: ignore[no-untyped-call]
_LIBRARY.impl("stored_product", _shape, "Meta")  # type: ignore[no-untyped-call]
