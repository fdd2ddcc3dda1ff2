"""Compares the scores of two models on the same questions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two models, A and B, compared on the questions that both answered.

    questions      number of questions; MMBench: groups of rotations
    both, only_a, only_b, neither
                   questions by who is right; 0 for metrics with scores between 0 and 1
    binary         whether scores are right or wrong
    mean_a, mean_b points
    loss           mean_a - mean_b, points
    low, high      95 % interval of the loss, points
    p              probability of such a difference, or a larger one, without a loss
    changed        share of the answers whose text changed, 0 to 1
    up, down       questions whose score is higher, or lower, with B
    standard_error clustered by picture, points; None with one picture
    verdict        one of "less than 1 point lost", "a loss is shown" and "not decided with N
                   questions"
    needed         questions of such a set that would decide; None where they decide now, or where
                   no number of questions can be named
    """

    questions: int
    pictures: int
    both: int
    only_a: int
    only_b: int
    neither: int
    mean_a: float
    mean_b: float
    loss: float
    low: float
    high: float
    p: float
    changed: float
    verdict: str
    needed: int | None
    benchmark: str = ""
    binary: bool = True
    up: int = 0
    down: int = 0
    standard_error: float | None = None


@dataclass(frozen=True, kw_only=True)
class Overall:
    """The mean of the losses of several benchmarks, with its 95 % interval, in points."""

    benchmarks: int
    loss: float
    low: float
    high: float
