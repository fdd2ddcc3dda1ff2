"""Measures how much the next-token probabilities of two models differ. Plain numpy, no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def log_softmax(logits: NDArray[np.floating]) -> Floats:
    """Return the natural logarithms of the probabilities that logits [..., vocab] stand for."""
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(-1, keepdims=True))
    return wide


def divergence(reference: NDArray[np.floating], other: NDArray[np.floating]) -> Floats:
    """Return KL(reference || other) in nats at each position.

    reference, other  [positions, vocab] log-probabilities; -inf for impossible tokens
    Returns           [positions], 0 or more; inf where the other excludes what the reference allows
    """
    wide = reference.astype(np.float64)
    possible = np.isfinite(wide)
    difference = np.subtract(wide, other, where=possible, out=np.zeros_like(wide))
    found: Floats = (np.exp(wide) * difference).sum(-1)
    # Rounding may make the sum of two equal distributions slightly negative.
    return np.maximum(found, 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenComparison:
    """Two models compared at every token of the answers.

    kl               [tokens] KL(reference || other), nats
    agree            [tokens] both models have the same most likely token
    reference_right  [tokens] the reference's most likely token is the answer's
    other_right      [tokens] the same for the other model
    answer           [tokens] number of the answer that the token belongs to, from 0
    picture          [tokens] number of its picture; answers without one count as one each
    """

    kl: Floats
    agree: Bools
    reference_right: Bools
    other_right: Bools
    answer: Ints
    picture: Ints


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A number and its 95 % interval over bootstrap resamples of the pictures."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """Return the fields."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The difference between a model and the reference over all answers.

    changed          share of the answers with at least one token at which the models choose
                     differently
    reference_exact  share of the answers that the reference reproduces exactly
    other_exact      the same for the other model
    """

    pictures: int
    answers: int
    tokens: int
    kl_mean: Measured
    kl_p99: Measured
    top1: Measured
    changed: Measured
    reference_exact: Measured
    other_exact: Measured

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return {
            name: value.as_dict() if isinstance(value, Measured) else value
            for name, value in vars(self).items()
        }


def summarise(tokens: TokenComparison, *, seed: int = 0) -> Summary:
    """Return the summary; ValueError if there is no token."""
    if not tokens.kl.size:
        raise ValueError("no answer has a token")
    answers, first, inverse = np.unique(tokens.answer, return_index=True, return_inverse=True)
    owner = tokens.picture[first]

    def every(flags: Bools) -> Floats:
        """Return for each answer whether a flag is true for all its tokens."""
        misses = np.bincount(inverse, weights=~flags, minlength=len(answers))
        whole: Floats = (misses == 0).astype(np.float64)
        return whole

    def over(values: Floats | Bools, pictures: Ints) -> Measured:
        return interval(values.astype(np.float64), pictures, _mean, seed=seed)

    return Summary(
        pictures=len(np.unique(tokens.picture)),
        answers=len(answers),
        tokens=len(tokens.kl),
        kl_mean=over(tokens.kl, tokens.picture),
        kl_p99=interval(tokens.kl, tokens.picture, _p99, seed=seed),
        top1=over(tokens.agree, tokens.picture),
        changed=over(1.0 - every(tokens.agree), owner),
        reference_exact=over(every(tokens.reference_right), owner),
        other_exact=over(every(tokens.other_right), owner),
    )


Statistic = Callable[[Floats, Floats], float]
"""A function of values and the weight of each."""


def interval(values: Floats, pictures: Ints, statistic: Statistic, *, seed: int = 0) -> Measured:
    """Bootstrap a statistic by picture, because tokens about one picture are not independent.

    values    [n]
    pictures  [n], any numbers
    """
    _, which = np.unique(pictures, return_inverse=True)
    drawn = [statistic(values, weights[which]) for weights in _resamples(which, seed)]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = statistic(values, np.ones_like(values))
    return Measured(value=value, low=float(low), high=float(high))


def ratio(above: Floats, below: Floats, pictures: Ints, *, seed: int = 0) -> Measured:
    """Return mean(above) / mean(below), both measured at the same tokens, with its interval.

    above, below, pictures  [tokens]. Raises ValueError when below is zero everywhere.
    """
    if not below.sum() > 0:
        raise ValueError("nothing to divide by: the divergence is zero everywhere")
    _, which = np.unique(pictures, return_inverse=True)
    tops, bottoms = np.bincount(which, above), np.bincount(which, below)
    drawn = []
    for weights in _resamples(which, seed):
        if (bottom := float(weights @ bottoms)) > 0:
            drawn.append(float(weights @ tops) / bottom)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = float(above.sum() / below.sum())
    return Measured(value=value, low=float(low), high=float(high))


def _resamples(which: NDArray[np.intp], seed: int) -> list[Floats]:
    """Return resamples of the pictures with replacement: how often each picture was drawn."""
    count = int(which.max()) + 1
    random = np.random.default_rng(seed)
    shares = np.full(count, 1 / count)
    return list(random.multinomial(count, shares, size=RESAMPLES).astype(np.float64))


def _mean(values: Floats, weights: Floats) -> float:
    return float(values @ weights / weights.sum())


def _p99(values: Floats, weights: Floats) -> float:
    """Return the smallest value that 99 % of the weight does not exceed."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    place = int(np.searchsorted(below, 0.99 * below[-1] * (1 - 1e-12)))
    return float(values[order[place]])
