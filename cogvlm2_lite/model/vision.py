"""The vision tower: EVA2-CLIP-E without its last layer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cogvlm2_lite.architectures.architecture import VisionConfig
from cogvlm2_lite.model.full_attention import Attend
from cogvlm2_lite.model.gates import gelu_in_place
from cogvlm2_lite.model.norms import LayerNorm
from cogvlm2_lite.model.patches import Project, convolved
from cogvlm2_lite.weights.slots import Adapted, Linear, Vector, WeightSlot


class PatchEmbedding:
    """Converts pixels to tokens: one convolution, the CLS token and learned positions."""

    def __init__(self, config: VisionConfig, project: Project = convolved) -> None:
        self._project = project
        base, width, patch = "model.vision.patch_embedding", config.hidden_size, config.patch_size
        self.kernel = Vector(f"{base}.proj.weight", (width, config.in_channels, patch, patch))
        self.bias = Vector(f"{base}.proj.bias", (width,))
        self.cls = Vector(f"{base}.cls_embedding", (1, width))
        self.positions = Vector(f"{base}.position_embedding.weight", (config.num_positions, width))

    def __call__(self, pixel_values: Tensor) -> Tensor:
        """[batch, channels, height, width] -> [batch, 1 + patches, hidden], patches row by row."""
        patches = self._project(pixel_values, self.kernel.tensor, self.bias.tensor)
        cls = self.cls.tensor.expand(patches.shape[0], -1, -1)
        return torch.cat((cls, patches), dim=1) + self.positions.tensor.unsqueeze(0)

    def slots(self) -> Iterator[WeightSlot]:
        yield from (self.kernel, self.bias, self.cls, self.positions)


class VisionBlock:
    """One layer. Its norms follow attention and MLP, before the residual is added.

    The released names are misleading: `input_layernorm` is the norm after attention.
    """

    def __init__(self, config: VisionConfig, layer: int, attend: Attend) -> None:
        base = f"model.vision.transformer.layers.{layer}"
        width, inner, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        self.heads = config.num_heads
        self._attend = attend
        self.qkv = Linear(f"{base}.attention.query_key_value.weight", width, 3 * width, True)
        self.dense = Linear(f"{base}.attention.dense.weight", width, width, True)
        self.fc1 = Linear(f"{base}.mlp.fc1.weight", width, inner, True)
        self.fc2 = Linear(f"{base}.mlp.fc2.weight", inner, width, True)
        self.attention_norm = LayerNorm(f"{base}.input_layernorm", width, eps)
        self.mlp_norm = LayerNorm(f"{base}.post_attention_layernorm", width, eps)

    def __call__(self, x: Tensor, adapted: Adapted | None = None) -> Tensor:
        """[batch, 1 + patches, hidden] -> the same shape."""
        x = x + self.attention_norm(self.dense(self.attend(self.qkv(x, adapted)), adapted))
        return x + self.mlp_norm(self.fc2(gelu_in_place(self.fc1(x, adapted)), adapted))

    def attend(self, qkv: Tensor) -> Tensor:
        """Attend in both directions, [batch, tokens, 3 * hidden] -> [batch, tokens, hidden].

        Rows of qkv: all queries, all keys, all values, each head by head.
        """
        batch, tokens, _ = qkv.shape
        # [batch, tokens, 3, heads, head_dim] -> 3 x [batch, heads, tokens, head_dim]
        q, k, v = qkv.view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return self._attend(q, k, v).transpose(1, 2).reshape(batch, tokens, -1)

    def slots(self) -> Iterator[WeightSlot]:
        for linear in (self.qkv, self.dense, self.fc1, self.fc2):
            yield linear
            if linear.bias:
                yield linear.bias
        yield from self.attention_norm.slots()
        yield from self.mlp_norm.slots()


class VisionTower:
    """The embedding and the layers. There is no norm after the last one."""

    def __init__(self, config: VisionConfig, attend: Attend, project: Project = convolved) -> None:
        self.embedding = PatchEmbedding(config, project)
        self.blocks = [VisionBlock(config, i, attend) for i in range(config.num_hidden_layers)]
