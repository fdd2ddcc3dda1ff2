"""The cards on which this program was measured, and what that says about another card.

A row is what one run of benchmarks/gpu.sh yields for one card. The table is empty until a card has
been measured: nothing is copied from other programs, and nothing is estimated.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cogvlm2_lite.backends.device import Gpu
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import format_seconds


@dataclass(frozen=True, kw_only=True)
class MeasuredCard:
    """What was measured on a card with everything resident.

    name                 regular expression for the whole name that the driver reports
    maker, architecture  as in Gpu
    date                 of the run: "2026-12-24"
    torch                its version: "2.13.0+cu130"
    total_bytes          memory of the card
    encode_s             seconds for a new picture in the vision tower
    prefill_s            seconds for its prompt in the decoder
    decode_tokens_per_s  tokens per second
    """

    name: str
    maker: str
    architecture: str
    date: str
    torch: str
    total_bytes: int
    encode_s: float
    prefill_s: float
    decode_tokens_per_s: float

    def describes(self, gpu: Gpu) -> bool:
        """Return whether a GPU is a card of this kind."""
        named = re.fullmatch(self.name, gpu.name, re.IGNORECASE) is not None
        return named and (self.maker, self.architecture) == (gpu.maker, gpu.architecture)


MEASURED: tuple[MeasuredCard, ...] = ()
"""Newest first."""


def evidence(gpu: Gpu, cards: Sequence[MeasuredCard] | None = None) -> Text:
    """Return what is known about this program on a GPU.

    cards  None: MEASURED
    """
    known = MEASURED if cards is None else cards
    card = _card_of(gpu, known)
    if card is not None:
        return Text(
            "measured on {date} with torch {torch}: {rate} tokens/s, a new picture in {seconds}",
            date=card.date,
            torch=card.torch,
            rate=f"{card.decode_tokens_per_s:.3g}",
            seconds=format_seconds(card.encode_s + card.prefill_s),
        )
    if any(card.maker == gpu.maker for card in known):
        return Text("this GPU path has not been measured on your kind of card")
    return Text(
        "untested on real hardware: this GPU path has not been measured on your kind of card"
    )


def remark_on(gpu: Gpu, cards: Sequence[MeasuredCard] | None = None) -> Text:
    """Return a sentence for a plan on a GPU that has not been measured; "" for one that has."""
    if _card_of(gpu, MEASURED if cards is None else cards) is not None:
        return Text()
    return Text(
        "{device} ({name}): {evidence}.",
        device=gpu.device,
        name=gpu.name,
        evidence=evidence(gpu, cards),
    )


def _card_of(gpu: Gpu, cards: Sequence[MeasuredCard]) -> MeasuredCard | None:
    return next((card for card in cards if card.describes(gpu)), None)
