"""Random weights in the shapes of the released model, for measuring without downloading it.

The codes are noise and nothing is quantized; only their sizes matter. Every matrix has its own
memory, and everything from the loader on is the same as for a real answer.
"""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from cogvlm2_lite.architectures.architecture import (
    ModelConfig,
    Part,
    Role,
    TensorSpec,
    expected_tensors,
)
from cogvlm2_lite.architectures.cogvlm2 import COGVLM2
from cogvlm2_lite.config import parse_config
from cogvlm2_lite.model.rotary import inverse_frequencies
from cogvlm2_lite.weights.catalog import NF4_GROUP, Catalog, QuantInfo, StoredTensor
from cogvlm2_lite.weights.header import Piece
from cogvlm2_lite.weights.kernels.matrix import SCALE_GROUP
from cogvlm2_lite.weights.kernels.nf4 import NF4_LEVELS, dynamic_map

_NOWHERE = Path("synthetic")
_NOISE_BYTES = 32 << 20
_STATE_BYTES = 256
"""About the size of the JSON of a quant_state."""


def released_config(vision_layers: int | None, decoder_layers: int | None) -> ModelConfig:
    """Return the released model's config, with other numbers of layers if they are given."""
    raw: dict[str, Any] = copy.deepcopy(dict(COGVLM2.released.raw))
    if vision_layers is not None:
        raw["vision_config"]["num_hidden_layers"] = vision_layers
    if decoder_layers is not None:
        raw["num_hidden_layers"] = decoder_layers
    return parse_config(raw, where="the released config.json")


def synthetic_catalog(config: ModelConfig, *, lm_head_nf4: bool = False) -> Catalog:
    """Return the catalog of a folder as `quantize` writes it: linears in NF4, the rest in bf16.

    lm_head_nf4  store lm_head in 4 bits, too; by default it stays in 16 bits, as with `quantize`
    """
    tensors = {}
    for name, spec in expected_tensors(config).items():
        is_nf4 = spec.role is Role.LINEAR and spec.shape[1] % NF4_GROUP == 0
        if spec.part is Part.LM_HEAD:
            is_nf4 = is_nf4 and lm_head_nf4
        tensors[name] = _nf4(spec) if is_nf4 else _dense(spec)
    return Catalog(folder=_NOWHERE, config=config, tensors=MappingProxyType(tensors), shards=())


def _dense(spec: TensorSpec) -> StoredTensor:
    return StoredTensor(spec=spec, kind="dense", pieces={"weight": _piece("BF16", spec.shape, 2)})


def _nf4(spec: TensorSpec) -> StoredTensor:
    groups = spec.numel // NF4_GROUP
    return StoredTensor(
        spec=spec,
        kind="nf4",
        pieces={
            "weight": _piece("U8", (spec.numel // 2, 1), 1),
            "absmax": _piece("U8", (groups,), 1),
            "quant_map": _piece("F32", (16,), 4),
            "nested_absmax": _piece("F32", (-(-groups // SCALE_GROUP),), 4),
            "nested_quant_map": _piece("F32", (256,), 4),
            "quant_state": _piece("U8", (_STATE_BYTES,), 1),
        },
        quant=QuantInfo(
            quant_type="nf4",
            group=NF4_GROUP,
            dtype="bfloat16",
            nested=True,
            nested_offset=_scale(spec),
        ),
    )


def _piece(dtype: str, shape: tuple[int, ...], itemsize: int) -> Piece:
    numel = 1
    for side in shape:
        numel *= side
    return Piece(file=_NOWHERE, dtype=dtype, shape=shape, begin=0, end=numel * itemsize)


def _scale(spec: TensorSpec) -> float:
    """Return a scale that keeps activations near 1 for any width."""
    return 2.0 / math.sqrt(spec.shape[-1])


class NoiseReader:
    """Generates the bytes of a synthetic catalog, the same at every read of a tensor.

    keep   keep tensors in memory, as mapped files do, so that reading again is free. Without it, a
           model that fits into memory occupies it once and not twice.
    codes  uint8 noise, larger than any tensor; codes of 4-bit matrices are views of it. None: they
           have their own memory
    """

    def __init__(self, *, keep: bool, codes: Tensor | None = None) -> None:
        generator = torch.Generator().manual_seed(19)
        self._noise = torch.randint(0, 256, (_NOISE_BYTES,), dtype=torch.uint8, generator=generator)
        self._normal = torch.randn(_NOISE_BYTES // 2, generator=generator).to(torch.bfloat16)
        self._kept: dict[str, dict[str, Tensor]] | None = {} if keep else None
        self._codes = codes

    def read(self, stored: StoredTensor) -> dict[str, Tensor]:
        """Return all pieces of a tensor; see WeightLoader's reader."""
        name = stored.spec.name
        if self._kept is None:
            return self._generate(stored)
        if name not in self._kept:
            self._kept[name] = self._generate(stored)
        return self._kept[name]

    def _generate(self, stored: StoredTensor) -> dict[str, Tensor]:
        spec = stored.spec
        if stored.kind == "dense":
            return {"weight": self._dense_values(spec)}
        sizes: Mapping[str, Piece] = stored.pieces
        nested = torch.full(sizes["nested_absmax"].shape, 0.5 * _scale(spec))
        return {
            "weight": self._code_bytes(sizes["weight"].nbytes, spec.name),
            "absmax": self._fill(self._noise, sizes["absmax"].nbytes, spec.name),
            "quant_map": torch.tensor(NF4_LEVELS),
            "nested_absmax": nested,
            "nested_quant_map": dynamic_map(),
        }

    def _code_bytes(self, count: int, name: str) -> Tensor:
        if self._codes is None:
            return self._fill(self._noise, count, name)
        place = zlib.crc32(name.encode()) % (self._codes.numel() - count + 1) // 64 * 64
        return self._codes[place : place + count]

    def _dense_values(self, spec: TensorSpec) -> Tensor:
        if spec.role is Role.FREQUENCIES:
            return inverse_frequencies(2 * spec.numel).to(torch.bfloat16)
        if spec.part is Part.EMBEDDING:
            # Overlapping rows: a real table would take 1 GiB, of which a step reads one row.
            rows, width = spec.shape
            return self._normal.as_strided((rows, width), (1, 1))
        if spec.role is Role.NORM:
            return torch.ones(spec.shape, dtype=torch.bfloat16)
        values = self._fill(self._normal, spec.numel, spec.name)
        return values.mul_(1 / math.sqrt(spec.numel // spec.shape[0])).view(spec.shape)

    def _fill(self, noise: Tensor, count: int, name: str) -> Tensor:
        """Copy noise into new memory, starting at a position derived from the name."""
        out = noise.new_empty(count)
        place = zlib.crc32(name.encode()) % noise.numel()
        done = 0
        while done < count:
            size = min(count - done, noise.numel() - place)
            out[done : done + size] = noise[place : place + size]
            done, place = done + size, 0
        return out
