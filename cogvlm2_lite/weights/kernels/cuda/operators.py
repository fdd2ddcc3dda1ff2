"""torch's operator for our CUDA kernels' product.

As an operator it is seen by everything that works on torch's calls: profilers, and the emulated
GPU of the tests, which registers the kernels' text compiled for the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from cogvlm2_lite.weights.kernels.cuda.driver import Launch, launcher
from cogvlm2_lite.weights.kernels.cuda.sources import AddNorm, Attention, Matrix, Product

ROWS_OF_A_BLOCK: Final = 16
MOST_INPUTS: Final = 8
HEAD: Final = 128
GROUP: Final = 4
SPLITS: Final = 16
"""As in attention.cu: numbers of a head, query heads of a key/value head, and ranges of keys."""

Launcher = Callable[[torch.device, torch.dtype], Launch]

_LIBRARY: Final = torch.library.Library("cogvlm2_lite", "FRAGMENT")  # type: ignore[no-untyped-call]

_SCHEMAS: Final = {
    "stored_product": "(Tensor x, Tensor codes, Tensor? scales, Tensor? outer, Tensor? scale_map, "
    "Tensor? levels, float offset, Tensor? bias, int rows) -> Tensor",
    "gated_product": "(Tensor x, Tensor?[] first, Tensor?[] second, Tensor? levels, float offset, "
    "float second_offset, int rows) -> Tensor",
    "attend_token": "(Tensor(a!) out, Tensor qkv, Tensor cosines, Tensor sines, Tensor(b!) keys, "
    "Tensor(c!)? key_scales, Tensor(d!) values, Tensor(e!)? value_scales, Tensor slot) -> ()",
    "add_norm": "(Tensor x, Tensor added, Tensor weight, float epsilon) -> (Tensor, Tensor)",
}


def register(launcher: Launcher, key: str, library: torch.library.Library = _LIBRARY) -> None:
    """Register implementations that launch kernels through `launcher`, for a dispatch key."""
    for name, make in _MAKE.items():
        library.impl(name, make(launcher), key)  # type: ignore[no-untyped-call]


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


def make_gated_product(launcher: Launcher) -> Callable[..., Tensor]:
    """Return an implementation of silu(x @ first.T) * (x @ second.T), see product.cu.

    first, second  codes, scales, and with double quantization the outer scales and the scale map
    """

    def product(
        x: Tensor,
        first: Sequence[Tensor | None],
        second: Sequence[Tensor | None],
        levels: Tensor | None,
        offset: float,
        second_offset: float,
        rows: int,
    ) -> Tensor:
        inputs, columns = x.shape
        out = x.new_empty((inputs, rows))
        name = "gated_nested" if first[2] is not None else "gated_flat"
        arguments = Product(
            x=x.data_ptr(),
            first=Matrix(*(_address(piece) for piece in first[:3])),
            second=Matrix(*(_address(piece) for piece in second[:3])),
            levels=_address(levels),
            scale_map=_address(first[3]),
            second_map=_address(second[3]),
            out=out.data_ptr(),
            offset=offset,
            second_offset=second_offset,
            inputs=inputs,
            rows=rows,
            columns=columns,
        )
        if levels is None:
            name = "gated_int8"
        launcher(x.device, x.dtype)(name, arguments, (-(-rows // ROWS_OF_A_BLOCK), 1))
        return out

    return product


def make_attend_token(launcher: Launcher) -> Callable[..., None]:
    """Return an implementation of rotation, writing to the cache and attention of one token."""

    def attend(
        out: Tensor,
        qkv: Tensor,
        cosines: Tensor,
        sines: Tensor,
        keys: Tensor,
        key_scales: Tensor | None,
        values: Tensor,
        value_scales: Tensor | None,
        slot: Tensor,
    ) -> None:
        heads, capacity = keys.shape[-3:-1]
        partial = torch.empty(
            (heads, SPLITS, GROUP, HEAD + 2), dtype=torch.float32, device=qkv.device
        )
        arguments = Attention(
            qkv=qkv.data_ptr(),
            cosines=cosines.data_ptr(),
            sines=sines.data_ptr(),
            keys=keys.data_ptr(),
            values=values.data_ptr(),
            key_scales=_address(key_scales),
            value_scales=_address(value_scales),
            slot=slot.data_ptr(),
            partial=partial.data_ptr(),
            out=out.data_ptr(),
            kv_heads=heads,
            capacity=capacity,
            exact=cosines.dtype == torch.float32,
        )
        launch = launcher(qkv.device, qkv.dtype)
        launch("attend", arguments, (heads, SPLITS))
        launch("merge", arguments, (heads * GROUP, 1))

    return attend


def make_add_norm(launcher: Launcher) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return an implementation of x + added, and of its RMS norm times weight."""

    def add_norm(x: Tensor, added: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        total, out = torch.empty_like(x), torch.empty_like(x)
        columns = x.shape[-1]
        arguments = AddNorm(
            x=x.data_ptr(),
            added=added.data_ptr(),
            weight=weight.data_ptr(),
            sum=total.data_ptr(),
            out=out.data_ptr(),
            columns=columns,
            epsilon=epsilon,
        )
        launcher(x.device, x.dtype)("add_norm", arguments, (x.numel() // columns, 1))
        return total, out

    return add_norm


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


_MAKE: Final[Mapping[str, Callable[[Launcher], Callable[..., Any]]]] = {
    "stored_product": make_product,
    "gated_product": make_gated_product,
    "attend_token": make_attend_token,
    "add_norm": make_add_norm,
}

for _name, _schema in _SCHEMAS.items():
    _LIBRARY.define(_name + _schema)  # type: ignore[no-untyped-call]
register(launcher, "CUDA")
