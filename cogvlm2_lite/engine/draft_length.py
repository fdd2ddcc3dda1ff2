"""How many tokens of drafts a decode step computes.

This is the only place where measured time decides what is computed. It changes no answer: a draft
token that is not computed now is computed in a later step, with the same bits.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from statistics import median

from cogvlm2_lite.memory.work import DECODE_ROWS

_SLOPE = 0.15
"""Time of a further row, as a part of the time of a pass with one row, before it is measured."""

_KEPT = 5
"""The latest passes of a size that count. Their median ignores single slow ones."""

_OLD = 64
"""Passes after which a measured time is too old: another context, or other programs."""

_LEAST_GAIN = 1.02
"""A draft must make the expected speed of each answer larger by this factor."""


class PassTimes:
    """Estimates how long a decode step takes, by the number of its rows.

    Sizes up to 1, 2, 4, 8, ... rows are measured apart, because time does not grow evenly: kernels
    take rows in groups, and streamed weights take the same time for one row and for many.
    """

    def __init__(self) -> None:
        self._samples: dict[int, deque[tuple[int, float]]] = {}
        self._passes = 0

    def note(self, rows: int, seconds: float) -> None:
        """Remember the time of a step."""
        if seconds <= 0:
            return
        self._passes += 1
        latest = self._samples.setdefault(_size(rows), deque(maxlen=_KEPT))
        latest.append((self._passes, seconds / _shape(rows)))

    def forget(self) -> None:
        """Forget all times, because the memory plan has changed."""
        self._samples.clear()

    def seconds(self, rows: int) -> float:
        """Return an estimate for a step; relative to other estimates if nothing is measured."""
        measured = {size: unit for size in self._samples if (unit := self._unit(size))}
        size = _size(rows)
        below = [each for each in measured if each <= size]
        above = [each for each in measured if each > size]
        if not below:
            return measured[min(above)] * _shape(rows) if above else _shape(rows)
        # A larger step never takes less time than a smaller one.
        least = max(measured[each] * _shape(min(rows, each)) for each in below)
        guess = measured[max(below)] * _shape(rows)
        if above and max(below) < size:
            guess = min(guess, self.seconds(min(above)))
        return max(least, guess)

    def _unit(self, size: int) -> float | None:
        """Return the time that a size implies for one row by the assumed slope."""
        latest = [unit for number, unit in self._samples[size] if number > self._passes - _OLD]
        return median(latest) if latest else None


def _size(rows: int) -> int:
    return 1 << (rows - 1).bit_length()


def _shape(rows: int) -> float:
    return 1 + _SLOPE * (rows - 1)


def draft_lengths(
    chances: Sequence[Sequence[float]],
    seconds: Callable[[int], float],
    most_rows: int = DECODE_ROWS,
) -> list[int]:
    """Return how many draft tokens of each answer to compute in one step.

    chances  of each answer's draft tokens: how probably it takes the token and all before it
    seconds  returns the time of a step by its number of rows

    The product of the speeds of all answers is made as large as possible. So a good draft of one
    answer does not make the others much slower, as the largest sum of speeds would.
    """
    lengths = [0] * len(chances)
    # 1. Each further draft token, by how much it speeds its answer up; those of one answer are in
    #    order, because chances fall and what they are compared with grows.
    gains = []
    for answer, each in enumerate(chances):
        expected = 1.0
        for place, chance in enumerate(each):
            gains.append((-math.log1p(chance / expected), answer, place))
            expected += chance
    gains.sort()
    # 2. The number of them with the best speed.
    best, most, count = 0.0, 0, len(chances)
    rows, gained, alone = count, 0.0, seconds(count)
    for number, (loss, _, _) in enumerate(gains[: max(0, most_rows - count)], 1):
        rows += 1
        gained -= loss
        speed = gained - count * math.log(_LEAST_GAIN * seconds(rows) / alone)
        if speed > best:
            best, most = speed, number
    for _, answer, _ in gains[:most]:
        lengths[answer] += 1
    return lengths
