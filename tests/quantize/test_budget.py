"""What a budget is, and that it is spent where it buys most."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cogvlm2_lite.errors import UsageError
from quantize.budget import parse_budget
from quantize.calibration.knapsack import Upgrade, spend


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("+5%", 1050), ("+0%", 1000), ("+ 2.5 %", 1025), ("4.4bits", 1100), ("5 bits", 1250),
     ("1KiB", 1024), ("2000", 2000)],
)  # fmt: skip
def test_a_budget_is_a_share_bits_per_weight_or_bytes(text: str, nbytes: int) -> None:
    if text.startswith("+ "):
        with pytest.raises(UsageError, match="Invalid budget"):
            parse_budget(text)
        return
    assert parse_budget(text).limit(1000, 2000) == nbytes


@pytest.mark.parametrize("text", ["5%", "-5%", "+5", "much", "+%", "4.4 bit s", "", "+99999%"])
def test_other_words_are_no_budget(text: str) -> None:
    with pytest.raises(UsageError, match=r"Invalid budget|is not a size"):
        parse_budget(text)


def test_a_budget_below_plain_nf4_is_refused_with_both_sizes() -> None:
    with pytest.raises(UsageError, match=r"900 B, but plain NF4 takes 0.98 KiB \(4\.000 bits"):
        parse_budget("3.6bits").limit(1000, 2000)


Drawn = dict[str, list[Upgrade]]


@st.composite
def drawn_offers(draw: st.DrawFn) -> Drawn:
    def offer(kind: str) -> Upgrade:
        gain = draw(st.integers(-2, 20))
        return Upgrade(kind=kind, nbytes=draw(st.integers(1, 30)), gain=float(gain))

    return {f"u{n}": [offer("int8"), offer("dense")] for n in range(draw(st.integers(0, 5)))}


@settings(max_examples=200, deadline=None)
@given(offers=drawn_offers(), capacity=st.integers(0, 90))
def test_what_is_taken_gains_as_much_as_the_best_of_all_choices(
    offers: Drawn, capacity: int
) -> None:
    taken = spend(offers, capacity)
    assert sum(offer.nbytes for offer in taken.values()) <= capacity
    assert all(offer in offers[unit] and offer.gain > 0 for unit, offer in taken.items())
    best = 0.0
    for choice in product(*([None, *some] for some in offers.values())):
        real = [offer for offer in choice if offer is not None]
        if sum(offer.nbytes for offer in real) <= capacity:
            best = max(best, sum(offer.gain for offer in real))
    assert sum(offer.gain for offer in taken.values()) == best


@settings(max_examples=50, deadline=None)
@given(offers=drawn_offers(), capacity=st.integers(0, 90))
def test_real_sizes_are_never_overspent_and_nothing_that_fits_is_left(
    offers: Drawn, capacity: int
) -> None:
    """In megabytes sizes are counted in steps; what rounding leaves over is spent as well."""
    real = {
        unit: [Upgrade(kind=o.kind, nbytes=o.nbytes * 1_000_003 + 17, gain=o.gain) for o in some]
        for unit, some in offers.items()
    }
    room = capacity * 1_000_003
    taken = spend(real, room)
    left = room - sum(offer.nbytes for offer in taken.values())
    assert left >= 0
    for unit, some in real.items():
        if unit not in taken:
            assert all(offer.gain <= 0 or offer.nbytes > left for offer in some)


def test_more_bytes_never_gain_less() -> None:
    offers = {
        f"u{n}": [Upgrade(kind="int8", nbytes=7 + n % 5, gain=float(n * 37 % 11))]
        for n in range(30)
    }
    gains = [sum(o.gain for o in spend(offers, room).values()) for room in range(0, 300, 10)]
    assert gains == sorted(gains)
    assert gains[-1] == sum(some[0].gain for some in offers.values())
