"""The statistics of `evaluate`: intervals and tests. Plain numpy, no model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95
POWER = 0.8
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
DRAWS = 10_000
"""Bootstrap resamples, and random sign changes."""
EXACT_PICTURES = 16
"""Up to so many different pictures, all sign changes are counted."""
MARGIN = 0.01
"""The loss that matters: one point."""

_BLOCK = 1 << 21
"""Random numbers that are in memory at a time."""
_HALVINGS = 60
"""Of an interval of at most 2: 2e-18 are left."""
_SMALL = 1e-9
"""Differences of scores below this are rounding."""


def wilson(share: float, questions: int) -> tuple[float, float]:
    """Return Wilson's score interval of a share of questions."""
    denominator = 1 + Z**2 / questions
    center = (share + Z**2 / (2 * questions)) / denominator
    spread = share * (1 - share) / questions + Z**2 / (4 * questions**2)
    half = Z * math.sqrt(spread) / denominator
    # At the ends of the scale the interval ends there, too, but for rounding.
    low = center - half if share > 0 else 0.0
    return low, center + half if share < 1 else 1.0


def tango(questions: int, only_a: int, only_b: int) -> tuple[float, float]:
    """Return Tango's score interval of the loss (only_a - only_b) / questions.

    It stays honest when nothing differs: 0 and 0 of 500 give +-0.76 points. (T. Tango, "Equivalence
    test and confidence interval for the difference in proportions for the paired-sample design",
    Statistics in Medicine 17, 1998.)
    """
    loss = (only_a - only_b) / questions

    def distance(delta: float) -> float:
        """Return how many standard errors the loss is above delta."""
        a = 2 * questions
        b = -only_a - only_b + (2 * questions - only_a + only_b) * delta
        c = -only_b * delta * (1 - delta)
        q = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = questions * (2 * q + delta * (1 - delta))
        difference = only_a - only_b - questions * delta
        if variance <= 0:
            return math.copysign(math.inf, difference) if difference else 0.0
        return difference / math.sqrt(variance)

    low = _root(lambda delta: distance(delta) - Z, -1.0, loss)
    high = _root(lambda delta: distance(delta) + Z, loss, 1.0)
    return low, high


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a falling function is zero, by halving; an end if it has one sign."""
    if function(low) <= 0:
        return low
    if function(high) >= 0:
        return high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return (low + high) / 2


def mcnemar(only_a: int, only_b: int) -> tuple[float, float]:
    """Return the two-sided p of McNemar's exact test, and its mid-p.

    The mid-p counts the observed split half.
    """
    changed, fewer = only_a + only_b, min(only_a, only_b)
    if not changed:
        return 1.0, 1.0
    # Binomial coefficients as whole numbers of any size, so that a quotient is rounded only once.
    tail = observed = 1
    for k in range(fewer):
        observed = observed * (changed - k) // (k + 1)
        tail += observed
    every = 2**changed
    return min(1.0, 2 * tail / every), min(1.0, (2 * tail - observed) / every)


@dataclass(frozen=True, kw_only=True, eq=False)
class Clusters:
    """Values of questions, summed by picture.

    sums    [pictures]
    counts  [pictures] questions about each, or other weights
    """

    sums: Floats
    counts: Floats

    @classmethod
    def of(
        cls,
        pictures: Sequence[str],
        values: Sequence[float],
        weights: Sequence[float] | None = None,
    ) -> Clusters:
        """Sum values by picture, in the order in which the pictures come.

        weights  what the sums are divided by for a mean, such as tokens; None: 1 per question
        """
        places: dict[str, int] = {}
        which = [places.setdefault(picture, len(places)) for picture in pictures]
        sums, counts = np.zeros(len(places)), np.zeros(len(places))
        np.add.at(sums, which, values)
        np.add.at(counts, which, 1 if weights is None else weights)
        return cls(sums=sums, counts=counts)

    @property
    def mean(self) -> float:
        """The mean over the questions."""
        return float(self.sums.sum() / self.counts.sum())

    @property
    def standard_error(self) -> float | None:
        """The standard error of the mean, clustered by picture; None with one picture."""
        pictures = len(self.sums)
        if pictures < 2:
            return None
        apart = self.sums - self.counts * self.mean
        factor = pictures / (pictures - 1)
        return math.sqrt(factor * float((apart**2).sum())) / float(self.counts.sum())

    def resampled(self, seed: int = 0) -> Floats:
        """Return the means of DRAWS bootstrap resamples of the pictures."""
        random, pictures = np.random.default_rng(seed), len(self.sums)
        rows = max(1, _BLOCK // pictures)
        means = []
        for start in range(0, DRAWS, rows):
            drawn = random.integers(pictures, size=(min(rows, DRAWS - start), pictures))
            means.append(self.sums[drawn].sum(1) / self.counts[drawn].sum(1))
        return np.concatenate(means)


def percentiles(draws: Floats) -> tuple[float, float]:
    """Return the ends of the 95 % interval of bootstrap draws."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def sign_flip(sums: Floats, seed: int = 0, exact: int = EXACT_PICTURES) -> float:
    """Return the p of a paired permutation test: signs of the pictures' sums are exchanged.

    The share of all 2^n sign changes whose sum is at least as far from zero as the observed one.
    With more than `exact` pictures that differ: (k + 1) / (N + 1) of N random ones.
    """
    different = sums[np.abs(sums) > _SMALL]
    if not len(different):
        return 1.0
    observed = abs(float(different.sum())) - _SMALL
    if len(different) <= exact:
        found = np.zeros(1)
        for value in different:
            found = np.concatenate((found + value, found - value))
        return float((np.abs(found) >= observed).mean())
    random, reached = np.random.default_rng(seed), 0
    rows = max(1, _BLOCK // len(different))
    for start in range(0, DRAWS, rows):
        signs = random.integers(2, size=(min(rows, DRAWS - start), len(different))) * 2 - 1
        reached += int((np.abs(signs @ different) >= observed).sum())
    return (reached + 1) / (DRAWS + 1)


def questions_needed(changed: float, loss: float = MARGIN, power: float = POWER) -> int:
    """Return how many paired questions show a loss, two-sided at 5 %.

    changed  share of the questions where right and wrong differ, at least the loss; for other
             scores the mean square of their differences
    (R. J. Connor, "Sample size for testing differences in proportions for the paired-sample
    design", Biometrics 43, 1987.)
    """
    found = Z * math.sqrt(changed) + NormalDist().inv_cdf(power) * math.sqrt(changed - loss**2)
    return math.ceil(found**2 / loss**2)


def paired_binary(*, questions: int, only_a_right: int, only_b_right: int) -> dict[str, Any]:
    """Return loss, interval and tests of two models that are right or wrong.

    The loss is a share, not points. Raises ValueError for impossible counts.
    """
    if min(only_a_right, only_b_right) < 0 or not 0 < questions >= only_a_right + only_b_right:
        raise ValueError(
            f"{only_a_right} and {only_b_right} of {questions} questions can't be right"
        )
    exact, middle = mcnemar(only_a_right, only_b_right)
    return {
        "loss": (only_a_right - only_b_right) / questions,
        "interval": list(tango(questions, only_a_right, only_b_right)),
        "p_exact": exact,
        "p_mid": middle,
    }


_EXACT_ROWS = 20
"""Pictures whose sign changes `paired_cluster` counts exactly: a million sums."""


def paired_cluster(*, rows: Sequence[tuple[str, float, float]]) -> dict[str, Any]:
    """Return the difference of two models with several questions about a picture.

    rows  picture, score of A, score of B
    Scores are shares, not points. Raises ValueError without a row.
    """
    if not rows:
        raise ValueError("a comparison needs at least one question")
    pictures = [picture for picture, _, _ in rows]
    first, second = [a for _, a, _ in rows], [b for _, _, b in rows]
    change = Clusters.of(pictures, [b - a for a, b in zip(first, second, strict=True)])
    return {
        "mean_a": sum(first) / len(rows),
        "mean_b": sum(second) / len(rows),
        "change": change.mean,
        "se_clustered": change.standard_error,
        "p_sign_flip": sign_flip(change.sums, exact=_EXACT_ROWS),
        "questions": len(rows),
        "pictures": len(change.sums),
    }
