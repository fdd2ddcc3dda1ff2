"""How far one model's next words are from another's, in numbers. Plain numpy, no model."""

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


def log_softmax(scores: NDArray[np.floating]) -> Floats:
    """Turn scores [..., vocab] into natural logarithms of probabilities."""
    wide = scores.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(-1, keepdims=True))
    return wide


def divergence(reference: NDArray[np.floating], other: NDArray[np.floating]) -> Floats:
    """Give KL(reference || other) in nats at each position.

    reference, other  [positions, vocab] log-probabilities; -inf stands for impossible words
    Returns           [positions], 0 or more; inf where the other excludes what the reference allows
    """
    wide = reference.astype(np.float64)
    possible = np.isfinite(wide)
    difference = np.subtract(wide, other, where=possible, out=np.zeros_like(wide))
    found: Floats = (np.exp(wide) * difference).sum(-1)
    # Rounding may bring the sum of two equal distributions a hair below zero.
    return np.maximum(found, 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenComparison:
    """Two models beside each other at every token of the answers.

    kl               [tokens] KL(reference || other), nats
    agree            [tokens] both would choose the same word next
    reference_right  [tokens] the reference would choose the answer's token
    other_right      [tokens] likewise
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
    """A number, and where it lies in 95 of 100 resamples of the pictures."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """Give the fields."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How far a model is from the reference over all answers.

    changed          share of the answers in which the models choose another word somewhere
    reference_exact  share of the answers that the reference gives word for word
    other_exact      likewise
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
        """Give the fields, ready for JSON."""
        return {
            name: value.as_dict() if isinstance(value, Measured) else value
            for name, value in vars(self).items()
        }


def summarise(tokens: TokenComparison, *, seed: int = 0) -> Summary:
    """Sum up; raises ValueError when there is no token."""
    if not tokens.kl.size:
        raise ValueError("no answer has a token")
    answers, first, inverse = np.unique(tokens.answer, return_index=True, return_inverse=True)
    owner = tokens.picture[first]

    def every(flags: Bools) -> Floats:
        """Say of each answer whether a flag holds for all its tokens."""
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
"""Of values and how often each counts."""


def interval(values: Floats, pictures: Ints, statistic: Statistic, *, seed: int = 0) -> Measured:
    """Bootstrap a statistic by picture: tokens of one picture are no independent witnesses.

    values    [n]
    pictures  [n], any numbers
    """
    _, which = np.unique(pictures, return_inverse=True)
    drawn = [statistic(values, weights[which]) for weights in _resamples(which, seed)]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = statistic(values, np.ones_like(values))
    return Measured(value=value, low=float(low), high=float(high))


def ratio(above: Floats, below: Floats, pictures: Ints, *, seed: int = 0) -> Measured:
    """Give mean(above) / mean(below), both measured at the same tokens, with its interval.

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
    """Draw as many pictures as there are, with repetition: how often each was drawn."""
    count = int(which.max()) + 1
    random = np.random.default_rng(seed)
    shares = np.full(count, 1 / count)
    return list(random.multinomial(count, shares, size=RESAMPLES).astype(np.float64))


def _mean(values: Floats, weights: Floats) -> float:
    return float(values @ weights / weights.sum())


def _p99(values: Floats, weights: Floats) -> float:
    """Give the smallest value that 99 % of the weight does not exceed."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    place = int(np.searchsorted(below, 0.99 * below[-1] * (1 - 1e-12)))
    return float(values[order[place]])
