"""Spend a byte budget: a knapsack problem in which every unit gets at most one upgrade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STEPS = 8192
"""A capacity is divided into this many steps; a smaller one is counted in single bytes."""


@dataclass(frozen=True, kw_only=True)
class Upgrade:
    """A storage kind that a unit may get instead of NF4.

    nbytes  additional bytes over NF4, above 0
    gain    decrease of the mean KL at the model's output, nats per token
    """

    kind: str
    nbytes: int
    gain: float


def spend(upgrades: Mapping[str, Sequence[Upgrade]], capacity: int) -> dict[str, Upgrade]:
    """Choose at most one upgrade per unit so that the sum of the gains is largest.

    upgrades  by unit
    capacity  bytes that may be spent
    Returns the chosen upgrades, by unit

    A multiple-choice knapsack, solved by dynamic programming. It is exact for a capacity of up to
    8192 bytes. Above, sizes are rounded up to 1/8192 of the capacity, and the bytes left over go to
    the best upgrades that still fit.
    """
    # 1  Count bytes in steps. Sizes are rounded up, so that no choice can exceed the capacity.
    step = max(-(-capacity // _STEPS), 1)
    room = capacity // step
    best: NDArray[np.float64] = np.zeros(room + 1)
    taken: list[NDArray[np.int8]] = []
    # 2  Fill the table unit by unit: best[room] is the largest gain that the units so far reach
    #    within `room` steps. At each entry the unit gets nothing, or the upgrade with the largest
    #    sum of its own gain and the best gain of the units before it in the steps that remain.
    units = list(upgrades)
    for unit in units:
        now, picked = best.copy(), np.full(room + 1, -1, dtype=np.int8)
        for number, upgrade in enumerate(upgrades[unit]):
            size = -(-upgrade.nbytes // step)
            if upgrade.gain <= 0 or size > room:
                continue
            tried = best[: room + 1 - size] + upgrade.gain
            better = tried > now[size:]
            now[size:][better] = tried[better]
            picked[size:][better] = number
        taken.append(picked)
        best = now
    chosen: dict[str, Upgrade] = {}
    # 3  Trace the choices back from the best entry, last unit first: each upgrade leaves less room
    #    for the units before it. Among equal sums argmax takes the one with the fewest bytes.
    place = int(best.argmax())
    for unit, picked in zip(reversed(units), reversed(taken), strict=True):
        if picked[place] >= 0:
            chosen[unit] = upgrades[unit][picked[place]]
            place -= -(-chosen[unit].nbytes // step)
    # 4  Spend the bytes that were left over because sizes were rounded up.
    return _fill(upgrades, dict(reversed(chosen.items())), capacity)


def _fill(
    upgrades: Mapping[str, Sequence[Upgrade]], chosen: dict[str, Upgrade], capacity: int
) -> dict[str, Upgrade]:
    """Spend the bytes that rounding left over, the best gain per byte first.

    An upgrade may replace a smaller one of the same unit. Every step raises the gain, so it ends.
    """
    while True:
        left = capacity - sum(upgrade.nbytes for upgrade in chosen.values())
        found: tuple[float, str, Upgrade] | None = None
        for unit, some in upgrades.items():
            nbytes, gain = (chosen[unit].nbytes, chosen[unit].gain) if unit in chosen else (0, 0.0)
            for upgrade in some:
                more, better = upgrade.nbytes - nbytes, upgrade.gain - gain
                if better <= 0 or more > left:
                    continue
                rate = better / more if more > 0 else float("inf")
                if found is None or rate > found[0]:
                    found = (rate, unit, upgrade)
        if found is None:
            return chosen
        chosen[found[1]] = found[2]
