"""peft's own modules around the released code's names, computed by the independent model.

Nothing of the product is used here: peft reads and applies the adapter, in float32 as it always
does, and `independent_model.py` does the rest in float64.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.helpers.independent_model import Independent


class ReleasedNames(nn.Module):
    """Linear layers with the names of a checkpoint, and no mathematics of its own."""

    config = None

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        for name, weight in weights.items():
            module = name.removesuffix(".weight")
            if weight.dim() == 2 and not module.endswith(("embed_tokens", "embedding")):
                *path, leaf = module.split(".")
                owner: nn.Module = self
                for step in path:
                    if not hasattr(owner, step):
                        owner.add_module(step, nn.Module())
                    owner = getattr(owner, step)
                bias = weights.get(f"{module}.bias")
                linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
                linear.weight = nn.Parameter(weight.float(), requires_grad=False)
                if bias is not None:
                    linear.bias = nn.Parameter(bias.float(), requires_grad=False)
                owner.add_module(leaf, linear)

    def prepare_inputs_for_generation(self, *_: Any) -> None:
        """Exist: peft looks for it in a causal language model."""


class PeftModelOfFolder(Independent):
    """A checkpoint's model, of whose linear layers peft computes each product."""

    def __init__(self, folder: Path) -> None:
        files = sorted(folder.glob("model*.safetensors"))
        weights = {name: t for file in files for name, t in load_file(file).items()}
        super().__init__(json.loads((folder / "config.json").read_text()), weights)
        self.tree = ReleasedNames(weights)

    def linear(self, x: Tensor, name: str) -> Tensor:
        y: Tensor = self.tree.get_submodule(name)(x.float())
        return y.double()

    def answer(self, ids: Tensor, types: Tensor, pixels: Tensor | None) -> Tensor:
        """Return logits [1, tokens, vocab] of a prompt with at most one picture."""
        with torch.inference_mode():
            features = None if pixels is None else self.features(pixels[0])
            return self.logits(ids[0].tolist(), types[0].tolist(), features)[None]
