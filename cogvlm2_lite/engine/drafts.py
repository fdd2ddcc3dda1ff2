"""Drafts: tokens that probably come next in an answer.

A decode step computes them together with the token before them. The answer then chooses its tokens
from the logits as always, one by one, and takes those of the draft that it chooses anyway. So a
draft never changes an answer; a good one saves passes over the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOST_ROWS = 32
"""Tokens of all answers and their drafts in one decode step; the memory plan has room for them."""

MOST_DRAFT = MOST_ROWS - 1


@dataclass(frozen=True, kw_only=True)
class Draft:
    """Tokens that may follow.

    chances  for each of them, how probably the answer takes it and all before it
    """

    tokens: tuple[int, ...] = ()
    chances: tuple[float, ...] = ()

    @staticmethod
    def known(tokens: Sequence[int]) -> Draft:
        """Return a draft of tokens that certainly follow."""
        return Draft(tokens=tuple(tokens), chances=(1.0,) * len(tokens))


NO_DRAFT = Draft()
