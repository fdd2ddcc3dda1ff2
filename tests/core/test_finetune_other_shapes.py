"""Losses, gradients and adapted logits of other shapes, through the public interface alone.

The expected numbers come from the independent model in float64 with torch's own gradients.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import cogvlm2_lite
from cogvlm2_lite.finetune import loss_and_gradients
from tests.helpers.checkpoints import write_folder
from tests.helpers.finetune import GRADIENT_TOLERANCE, LOGIT_TOLERANCE, LOSS_TOLERANCE, worst
from tests.helpers.independent_model import Independent
from tests.helpers.other_shapes import SHAPES, random_weights

NAMES = ("an odd grid in float32", "a grid of three in float16")
RANK, ALPHA = 3, 7.0
Sample = dict[str, Tensor | None]


class WithAdapter(Independent):
    """The independent model with an adapter, as peft describes it: W x + alpha / rank B A x.

    pairs   lora_A and lora_B by the name of the linear layer
    behind  the adapter acts on text behind a picture only, and not on the first token
    """

    def __init__(
        self, config: Mapping[str, Any], weights: Mapping[str, Tensor], pairs: Mapping[str, Tensor]
    ) -> None:
        super().__init__(config, weights)
        self.pairs, self.acts = pairs, True

    def linear(self, x: Tensor, name: str) -> Tensor:
        y = super().linear(x, name)
        down = self.pairs.get(f"base_model.model.{name}.lora_A.weight")
        if down is None or not self.acts:
            return y
        up = self.pairs[f"base_model.model.{name}.lora_B.weight"]
        return y + ALPHA / RANK * (x @ down.T @ up.T)

    def routed(self, x: Tensor, experts: Sequence[str], name: str) -> Tensor:
        rows = []
        for place, (row, who) in enumerate(zip(x, experts, strict=True)):
            self.acts = self.acting[place]
            rows.append(self.linear(row, name.format(who)))
        self.acts = True
        return torch.stack(rows)

    def loss(self, samples: Sequence[Sample], acts_on: str) -> Tensor:
        """Return the mean over all label tokens of all samples."""
        losses = []
        for each in samples:
            logits = self.of(each, acts_on)
            labels = each["labels"]
            assert labels is not None
            losses.append(F.cross_entropy(logits[:-1], labels[0, 1:], reduction="none"))
            losses[-1] = losses[-1][labels[0, 1:] != -100]
        return torch.cat(losses).mean()

    def of(self, each: Sample, acts_on: str) -> Tensor:
        """Return the logits of a sample, [tokens, vocab]."""
        ids, types, pixels = each["input_ids"], each["token_type_ids"], each["pixel_values"]
        assert ids is not None
        assert types is not None
        seen = types[0].tolist()
        self.acting = [acts_on == "all" or (place > 0 and not t) for place, t in enumerate(seen)]
        features = None if pixels is None else self.features(pixels[0])
        return self.logits(ids[0].tolist(), seen, features)


def targets(weights: Mapping[str, Tensor], words: Sequence[str]) -> list[str]:
    """Return the linear layers whose names have one of some words in them."""
    return [
        name.removesuffix(".weight")
        for name, weight in weights.items()
        if weight.dim() == 2 and "embed" not in name and "lm_head" not in name
        and any(word in name for word in words) and "position" not in name and "cls" not in name
    ]  # fmt: skip


def new_adapter(weights: Mapping[str, Tensor], words: Sequence[str]) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(3)
    adapter = {}
    for name in targets(weights, words):
        out, into = weights[f"{name}.weight"].shape
        for side, size in (("A", (RANK, into)), ("B", (out, RANK))):
            tensor = torch.randn(size, generator=random) * 0.1
            adapter[f"base_model.model.{name}.lora_{side}.weight"] = tensor
    return adapter


def make_samples(image_tokens: int, side: int) -> list[Sample]:
    """Return two questions about one picture, one about another, and one without a picture.

    The first tokens differ, although a conversation always begins with bos: nothing relies on it.
    """
    random = torch.Generator().manual_seed(5)
    pictures = [torch.randn((1, 3, side, side), generator=random) for _ in range(2)]
    made: list[Sample] = []
    for shown, text, trained in ((0, 6, 3), (0, 9, 2), (1, 5, 1), (None, 7, 4)):
        image = 0 if shown is None else image_tokens
        types = torch.tensor([[0, *[1] * image, *[0] * text]])
        ids = torch.randint(0, 90, types.shape, generator=random)
        labels = ids.clone()
        labels[:, :-trained] = -100
        pixels = None if shown is None else pictures[shown]
        made.append(
            {"input_ids": ids, "token_type_ids": types, "labels": labels, "pixel_values": pixels}
        )
    return made


@pytest.fixture(scope="module", params=NAMES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    shape = SHAPES[request.param]
    config, weights = shape.config(), random_weights(shape)
    folder = write_folder(tmp_path_factory.mktemp("shape"), weights, shape.shards, config)
    inner = config["vision_config"]["image_size"] // config["vision_config"]["patch_size"] // 2
    samples = make_samples(inner**2 + 2, config["vision_config"]["image_size"])
    return folder, config, weights, samples


CASES = {
    "words": (("language",), "all"),
    "words behind the picture": (("language",), "behind the picture"),
    "both": (("language", "vision_expert", "vision_mlp"), "all"),
    "tower": (("language", "vision"), "all"),
}


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients(checkpoint: Any, case: str) -> None:
    folder, config, weights, samples = checkpoint
    words, acts_on = CASES[case]
    adapter = new_adapter(weights, words)
    leaves = {name: tensor.double().requires_grad_() for name, tensor in adapter.items()}
    expected = WithAdapter(config, weights, leaves).loss(samples, acts_on)
    torch.autograd.backward(expected)
    wanted = {
        name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for name, leaf in leaves.items()
    }
    loss, gradients = loss_and_gradients(
        folder, samples, adapter=adapter, alpha=ALPHA, acts_on=acts_on,
        dtype="float32", rope="reference",
    )  # fmt: skip
    assert abs(loss - float(expected.detach())) < LOSS_TOLERANCE
    assert all(gradient.dtype == torch.float32 for gradient in gradients.values())
    assert worst(gradients, {n: t.float() for n, t in wanted.items()}) < GRADIENT_TOLERANCE


def write_adapter(folder: Path, adapter: Mapping[str, Tensor]) -> Path:
    """Write a folder as peft does, with the keys that matter."""
    folder.mkdir()
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": "all-linear"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(dict(adapter), folder / "adapter_model.safetensors")
    return folder


def test_forward_uses_an_adapter_of_every_part(checkpoint: Any, tmp_path: Path) -> None:
    folder, config, weights, samples = checkpoint
    adapter = new_adapter(weights, ("language", "vision"))
    written = write_adapter(tmp_path / "adapter", adapter)
    model = cogvlm2_lite.load(
        folder, device="cpu", dtype="float32", rope="reference", adapter=written, any_base=True
    )
    independent = WithAdapter(config, weights, {n: t.double() for n, t in adapter.items()})
    for each in samples[1:]:
        features = None
        if each["pixel_values"] is not None:
            features = model.encode_image(each["pixel_values"])
        ids = each["input_ids"]
        assert ids is not None
        ours = model.forward(ids, each["token_type_ids"], image_features=features)
        expected = independent.of(each, "all")
        assert float((ours[0].double() - expected).abs().max()) < LOGIT_TOLERANCE


def test_the_package_offers_its_function_without_loading_torch() -> None:
    code = "import sys, cogvlm2_lite.finetune; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
