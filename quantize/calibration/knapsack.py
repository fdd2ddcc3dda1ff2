"""Spend a byte budget: a knapsack in which every unit takes at most one offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STEPS = 8192
"""Steps in which a capacity is counted; fewer bytes than that are counted one by one."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a unit may become instead of NF4.

    nbytes  more than in NF4, above 0
    gain    by which the mean KL at the model's output falls, nats per word
    """

    kind: str
    nbytes: int
    gain: float


def spend(offers: Mapping[str, Sequence[Offer]], capacity: int) -> dict[str, Offer]:
    """Take at most one offer per unit so that the sum of the gains is largest.

    offers    by unit
    capacity  bytes that may be spent
    Returns   the offers that were taken, by unit

    A knapsack with choices, solved by dynamic programming. Up to 8192 bytes that is exact; above,
    sizes are rounded up to 1/8192 of the capacity, and what is left over goes to the best offers
    that still fit.
    """
    step = max(-(-capacity // _STEPS), 1)
    room = capacity // step
    best: NDArray[np.float64] = np.zeros(room + 1)
    taken: list[NDArray[np.int8]] = []
    units = list(offers)
    for unit in units:
        now, picked = best.copy(), np.full(room + 1, -1, dtype=np.int8)
        for number, offer in enumerate(offers[unit]):
            size = -(-offer.nbytes // step)
            if offer.gain <= 0 or size > room:
                continue
            tried = best[: room + 1 - size] + offer.gain
            better = tried > now[size:]
            now[size:][better] = tried[better]
            picked[size:][better] = number
        taken.append(picked)
        best = now
    chosen: dict[str, Offer] = {}
    # Of equal sums the one with the fewest bytes.
    place = int(best.argmax())
    for unit, picked in zip(reversed(units), reversed(taken), strict=True):
        if picked[place] >= 0:
            chosen[unit] = offers[unit][picked[place]]
            place -= -(-chosen[unit].nbytes // step)
    return _fill(offers, dict(reversed(chosen.items())), capacity)


def _fill(
    offers: Mapping[str, Sequence[Offer]], chosen: dict[str, Offer], capacity: int
) -> dict[str, Offer]:
    """Spend what rounding left over, the best gain per byte first."""
    while True:
        left = capacity - sum(offer.nbytes for offer in chosen.values())
        found: tuple[float, str, Offer] | None = None
        for unit, some in offers.items():
            nbytes, gain = (chosen[unit].nbytes, chosen[unit].gain) if unit in chosen else (0, 0.0)
            for offer in some:
                more, better = offer.nbytes - nbytes, offer.gain - gain
                if better <= 0 or more > left:
                    continue
                rate = better / more if more > 0 else float("inf")
                if found is None or rate > found[0]:
                    found = (rate, unit, offer)
        if found is None:
            return chosen
        chosen[found[1]] = found[2]
