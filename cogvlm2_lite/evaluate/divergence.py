"""How far the next words of one model are from those of another, on answers that are given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cogvlm2_lite.engine.model import Model
from cogvlm2_lite.evaluate.samples import Sample, Tokens, opened, tokenize
from cogvlm2_lite.inputs.image import pixel_values

_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class SampleDivergence:
    """One sample, answer given token by token to both models.

    kl        [positions] float64, nats, of the other's next-token distribution from the reference
    top1      [positions] bool, True where both would say the same token
    exact     whether each model's likeliest tokens are the answer, reference first
    picture   number of the picture, which samples may share; resampling goes by it
    """

    kl: NDArray[np.float64]
    top1: NDArray[np.bool_]
    exact: tuple[bool, bool]
    picture: int


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """Over all samples.

    changed  share of samples in which some likeliest token differs
    exact    share of samples answered exactly, reference first
    """

    kl_mean: float
    kl_p99: float
    top1: float
    changed: float
    exact: tuple[float, float]
    samples: int
    positions: int


def log_probabilities(model: Model, samples: Sequence[Sample]) -> Iterator[tuple[Tensor, Tokens]]:
    """Give each sample's log-probabilities at its answer, [positions, vocab] float32.

    A picture that several samples in a row share is encoded once. The answer's tokens are given, so
    one pass per sample suffices. Memory follows the model's own plan.
    """
    tokenizer, shown, features = model.engine.tokenizer, "", None
    with torch.inference_mode():
        for sample in samples:
            tokens = tokenize(sample, tokenizer, model.config)
            picture = opened(sample)
            if picture is not None and picture.sha256 != shown:
                pixels = torch.from_numpy(pixel_values(picture, model.config.vision))
                shown, features = picture.sha256, model.encode_image(pixels)
            scores = model.forward(
                torch.from_numpy(tokens.input_ids),
                torch.from_numpy(tokens.token_type_ids),
                torch.from_numpy(tokens.position_ids),
                None if picture is None else features,
            )
            count = max(len(tokens.targets), 1)
            yield scores[0, tokens.scored : tokens.scored + count].log_softmax(dim=-1), tokens


def diverge(reference: Tensor, other: Tensor, targets: NDArray[np.int64]) -> SampleDivergence:
    """Compare two models at one sample.

    reference, other  [positions, vocab] log-probabilities
    targets           [positions] the answer's tokens, or empty
    """
    a, b = reference.double(), other.double()
    first, second = a.argmax(dim=-1), b.argmax(dim=-1)
    wanted = torch.from_numpy(targets)
    exact = (
        (bool((first == wanted).all()), bool((second == wanted).all()))
        if len(wanted)
        else (
            False,
            False,
        )
    )
    return SampleDivergence(
        kl=(a.exp() * (a - b)).sum(dim=-1).clamp(min=0).numpy(),
        top1=(first == second).numpy(),
        exact=exact,
        picture=0,
    )


def summarise(found: Sequence[SampleDivergence]) -> Divergence:
    """Sum up; every position counts alike for the KL, every sample for the answers."""
    kl = np.concatenate([one.kl for one in found])
    return Divergence(
        kl_mean=float(kl.mean()),
        kl_p99=float(np.quantile(kl, 0.99)),
        top1=float(np.concatenate([one.top1 for one in found]).mean()),
        changed=fmean(not one.top1.all() for one in found),
        exact=(fmean(one.exact[0] for one in found), fmean(one.exact[1] for one in found)),
        samples=len(found),
        positions=len(kl),
    )


def ratio_interval(
    numerator: Sequence[SampleDivergence], denominator: Sequence[SampleDivergence], seed: int = 0
) -> tuple[float, float, float]:
    """Give the ratio of two mean KLs on the same samples, and its 95 % bootstrap interval.

    Whole pictures are drawn, not positions: those of one picture resemble each other.
    """
    pictures: dict[int, list[int]] = {}
    for index, one in enumerate(numerator):
        pictures.setdefault(one.picture, []).append(index)
    top = np.array([[sum(float(numerator[i].kl.sum()) for i in group),
                     sum(float(denominator[i].kl.sum()) for i in group)]
                    for group in pictures.values()])  # fmt: skip
    random = Random(seed)
    count = len(top)
    ratios = []
    for _ in range(_RESAMPLES):
        drawn = top[[random.randrange(count) for _ in range(count)]].sum(axis=0)
        ratios.append(drawn[0] / drawn[1])
    total = top.sum(axis=0)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(total[0] / total[1]), float(low), float(high)
