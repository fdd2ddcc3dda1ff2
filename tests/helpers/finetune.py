"""Goldens of fine-tuning: made with the released code and peft, see their README in the issue."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from torch import Tensor

from cogvlm2_lite.config import read_config
from cogvlm2_lite.finetune.gradients import _sample
from cogvlm2_lite.finetune.samples import TrainingSample
from tests.helpers.goldens import CHECKPOINT, load_golden
from tests.helpers.packed import load_packed

FINETUNE = Path(__file__).parents[1] / "golden" / "finetune"
LOSS_TOLERANCE, GRADIENT_TOLERANCE, LOGIT_TOLERANCE = 2e-5, 2e-4, 2e-4


@cache
def _goldens() -> dict[str, Tensor]:
    return load_packed(FINETUNE / "goldens.safetensors.xz")


def golden(prefix: str) -> dict[str, Tensor]:
    """Return the tensors below a prefix, such as "language/grad"."""
    start = prefix + "/"
    found = {k.removeprefix(start): v for k, v in _goldens().items() if k.startswith(start)}
    assert found, prefix
    return found


def sample(case: str) -> dict[str, Tensor | None]:
    """Return a case of the goldens as `loss_and_gradients` takes it."""
    inputs = golden("inputs")
    names = ("input_ids", "token_type_ids", "labels")
    values: dict[str, Tensor | None] = {name: inputs[f"{case}.{name}"] for name in names}
    pictures, types = load_golden(), inputs[f"{case}.token_type_ids"]
    image = pictures["in.image2" if case == "s2" else "in.image"]
    values["pixel_values"] = image if bool(types.any()) else None
    return values


def training_samples(*cases: str) -> list[TrainingSample]:
    """Return cases as the network takes them."""
    config, different = read_config(CHECKPOINT), list[Tensor]()
    return [_sample(n, sample(case), config, different) for n, case in enumerate(cases)]


def worst(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Return the largest difference of a matrix, as a share of its norm; what is 0 must be 0."""
    assert set(ours) == set(theirs)
    shares = []
    for name, expected in theirs.items():
        norm = float(expected.norm())
        difference = float((ours[name] - expected).norm())
        assert norm or not difference, f"{name} must be zero"
        shares.append(difference / norm if norm else 0.0)
    return max(shares)
