"""Small values that describe a conversation."""

from __future__ import annotations

from typing import NamedTuple


class Turn(NamedTuple):
    """One finished exchange: what was asked and what the model answered.

    A named tuple, so that a plain pair `(question, answer)` can stand wherever a Turn can.
    """

    question: str
    answer: str
