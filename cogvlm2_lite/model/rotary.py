"""Rotary position embedding in the released model's precision and in exact precision.

The released model reads `inv_freq` from the checkpoint, casts it to the model's dtype and builds
the whole table in that dtype. In bfloat16 neighbouring positions above 256 then become equal (spec,
section 7). The network was presumably trained with that table, so "reference" reproduces it bit for
bit. "exact" recomputes the frequencies and the table in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from torch import Tensor

from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.weights.slots import Vector

ROPE_THETA = 500_000.0
"""Base of the rotation's frequencies: a constant of the released code; no config has it."""


class RopeMode(Enum):
    """Which table to use: the released model's, or one computed in float32."""

    REFERENCE = "reference"
    EXACT = "exact"


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """Cosines and sines of one step's positions, for whole heads.

    cos, sin  [batch, 1, tokens, head_dim]; compute dtype (reference) or float32 (exact). Both
              halves have the same cosines; the sines of the first half are negative.
    """

    cos: Tensor
    sin: Tensor

    def to(self, device: torch.device) -> Rotation:
        """Return the same rotation on a device."""
        return Rotation(cos=self.cos.to(device), sin=self.sin.to(device))

    @staticmethod
    def of_tokens(rotations: Sequence[Rotation]) -> Rotation:
        """Return the rotation of a run of tokens, from that of each, a single token."""
        if len(rotations) == 1:
            return rotations[0]
        cos = torch.cat([rotation.cos for rotation in rotations], 2)
        sin = torch.cat([rotation.sin for rotation in rotations], 2)
        return Rotation(cos=cos, sin=sin)

    def apply(self, x: Tensor) -> Tensor:
        """Return queries or keys [batch, heads, tokens, head_dim], rotated.

        Elements i and i + head_dim/2 form a pair, (a, b) -> (a cos - b sin, b cos + a sin).
        Products and sums are computed in the table's dtype, as in the released kernel.
        """
        wide = x.to(self.cos.dtype)
        swapped = wide.roll(wide.shape[-1] // 2, dims=-1)
        return swapped.mul_(self.sin).add_(wide * self.cos).to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class RotaryTable:
    """Cosines and sines of all positions, [positions, head_dim / 2] each."""

    cos: Tensor
    sin: Tensor

    def rows(self, positions: Tensor) -> Rotation:
        """Return the rotation of `positions` [batch, tokens] int64."""
        cos, sin = self.cos[positions].unsqueeze(1), self.sin[positions].unsqueeze(1)
        return Rotation(cos=torch.cat((cos, cos), -1), sin=torch.cat((-sin, sin), -1))


def inverse_frequencies(head_dim: int) -> Tensor:
    """Return theta^(-2i/head_dim) in float32, [head_dim / 2]."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    return 1.0 / ROPE_THETA**exponents


def rotary_table(
    inv_freq: Tensor, positions: int, *, mode: RopeMode, dtype: torch.dtype
) -> RotaryTable:
    """Return the table for positions 0 .. positions - 1.

    inv_freq  [head_dim / 2] as stored in the checkpoint; ignored in exact mode
    dtype     the model's compute dtype; in reference mode every intermediate is rounded to it

    Always built on the CPU: a GPU's cosine may differ in the last bit.
    """
    # 1. Frequencies: those of the checkpoint, or recomputed without rounding.
    if mode is RopeMode.EXACT:
        dtype, inv_freq = torch.float32, inverse_frequencies(2 * inv_freq.numel())
    # 2. Phases = position * frequency. arange runs in the dtype itself, as in the released code: in
    #    bfloat16 torch's result differs from rounded integers at 960 of the positions above 4112.
    steps = torch.arange(positions, dtype=dtype)
    phases = torch.outer(steps, inv_freq.detach().cpu().to(dtype))
    # 3. Cosines and sines. In float32 numpy computes them: torch's first call on several threads
    #    was off by up to 1.5e-4 in some processes (2 of 45; MKL, torch 2.13), and the same question
    #    must always get the same answer.
    if dtype != torch.float32:
        return RotaryTable(cos=phases.cos(), sin=phases.sin())
    exact = phases.double().numpy()
    cos, sin = (torch.from_numpy(f(exact).astype(np.float32)) for f in (np.cos, np.sin))
    return RotaryTable(cos=cos, sin=sin)


class Rotary:
    """The tables of all layers, built from the checkpoint's frequencies on first use.

    Layers with equal frequencies share one table; the released model has one for all layers.
    """

    def __init__(
        self, config: ModelConfig, mode: RopeMode, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._mode, self._dtype, self._device = mode, dtype, device
        self._positions = config.max_position_embeddings
        self._tables: list[RotaryTable] = []
        self.inv_freq = [
            Vector(f"model.layers.{i}.self_attn.rotary_emb.inv_freq", (config.head_dim // 2,))
            for i in range(config.num_hidden_layers)
        ]

    def rotations(self, positions: Tensor, highest: int) -> list[Rotation]:
        """Return each layer's rotation for `positions` [batch, tokens]; none is above `highest`."""
        if not self._tables or highest >= self._positions:
            rows = max(self._positions, highest + 1)
            self._tables = self._build(rows)
            self._positions = rows  # only now: building the tables may run out of memory
        distinct = {id(table): table for table in self._tables}
        rotations = {key: table.rows(positions) for key, table in distinct.items()}
        return [rotations[id(table)] for table in self._tables]

    def _build(self, rows: int) -> list[RotaryTable]:
        tables: dict[bytes, RotaryTable] = {}
        keys = [vector.tensor.float().cpu().numpy().tobytes() for vector in self.inv_freq]
        for key, vector in zip(keys, self.inv_freq, strict=True):
            if key not in tables:
                table = rotary_table(vector.tensor, rows, mode=self._mode, dtype=self._dtype)
                tables[key] = RotaryTable(
                    cos=table.cos.to(self._device), sin=table.sin.to(self._device)
                )
        return [tables[key] for key in keys]

    def slots(self) -> Iterator[Vector]:
        yield from self.inv_freq
