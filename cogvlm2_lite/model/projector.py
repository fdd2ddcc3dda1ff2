"""The projector: from patches to image features in the decoder's space."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.model.gates import silu_gate
from cogvlm2_lite.model.norms import LayerNorm
from cogvlm2_lite.model.patches import Project, convolved
from cogvlm2_lite.weights.slots import Adapted, Linear, Vector, WeightSlot

NORM_EPS = 1e-5
"""LayerNorm eps inside the projector: torch's default in the released code; no config has it."""


class Projector:
    """A 2x2 convolution that quarters the number of patches, a gated MLP, and boi and eoi."""

    def __init__(self, config: ModelConfig, project: Project = convolved) -> None:
        self._project_patches = project
        width, hidden, inner = (
            config.vision.hidden_size,
            config.hidden_size,
            config.intermediate_size,
        )
        base, glu = "model.vision", "model.vision.linear_proj"
        self.grid = config.vision.grid
        self.kernel = Vector(f"{base}.conv.weight", (width, width, 2, 2))
        self.kernel_bias = Vector(f"{base}.conv.bias", (width,))
        self.linear = Linear(f"{glu}.linear_proj.weight", width, hidden)
        self.norm = LayerNorm(f"{glu}.norm1", hidden, NORM_EPS)
        self.gate = Linear(f"{glu}.gate_proj.weight", hidden, inner)
        self.up = Linear(f"{glu}.dense_h_to_4h.weight", hidden, inner)
        self.down = Linear(f"{glu}.dense_4h_to_h.weight", inner, hidden)
        self.boi = Vector(f"{base}.boi", (1, 1, hidden))
        self.eoi = Vector(f"{base}.eoi", (1, 1, hidden))

    def __call__(self, x: Tensor, adapted: Adapted | None = None) -> Tensor:
        """[batch, 1 + patches, vision hidden] -> [batch, image tokens, hidden] with boi and eoi."""
        return self.between_ends(self.project(self.downsample(x), adapted))

    def between_ends(self, y: Tensor) -> Tensor:
        """Return features [batch, tokens, hidden] with boi before and eoi after them."""
        ends = (self.boi.tensor, self.eoi.tensor)
        boi, eoi = (end.expand(y.shape[0], -1, -1) for end in ends)
        return torch.cat((boi, y, eoi), dim=1)

    def downsample(self, x: Tensor) -> Tensor:
        """Drop CLS and merge 2x2 patches, [batch, 1 + patches, width] -> [batch, tokens, width]."""
        grid = x[:, 1:].transpose(1, 2).reshape(x.shape[0], -1, self.grid, self.grid)
        return self._project_patches(grid, self.kernel.tensor, self.kernel_bias.tensor)

    def project(self, x: Tensor, adapted: Adapted | None = None) -> Tensor:
        """[batch, tokens, vision hidden] -> [batch, tokens, hidden]."""
        h = F.gelu(self.norm(self.linear(x, adapted)))
        return self.down(silu_gate(self.gate(h, adapted), self.up(h, adapted)), adapted)

    def slots(self) -> Iterator[WeightSlot]:
        yield from (self.kernel, self.kernel_bias, self.boi, self.eoi)
        yield from (self.linear, self.gate, self.up, self.down)
        yield from self.norm.slots()
