"""Drafts for answers that are known."""

from __future__ import annotations

import random
from collections.abc import Sequence

from cogvlm2_lite.engine.drafts import Draft
from cogvlm2_lite.engine.model import Model


class Oracle:
    """Proposes what the answer is known to be, with wrong tokens in between."""

    def __init__(self, ids: Sequence[int], wrong: str, seed: int = 0) -> None:
        self._ids, self._wrong, self._chance = ids, wrong, random.Random(seed)
        self._place = 0
        self.proposed = 0

    def push(self, token: int) -> None:
        self._place += 1

    def propose(self, most: int) -> Draft:
        assert most >= 0
        ids = [*self._ids[self._place :], *range(40, 90)][: min(most, 31)]
        if self._wrong == "all":
            ids = [(token + 1) % 490 for token in ids]
        if self._wrong == "some":
            ids = [token if self._chance.random() < 0.8 else (token + 1) % 490 for token in ids]
        if self._wrong == "strange":  # end tokens, special tokens and tokens of no text
            ids = [self._chance.choice([501, 502, 511, token, token]) for token in ids]
        self.proposed += len(ids)
        return Draft.known(ids)


def use(model: Model, ids: Sequence[int], wrong: str, seed: int = 0) -> None:
    """Let the drafts of a model's answers come from an oracle."""
    answers = model.engine._answers
    answers._drafter = lambda *_: Oracle(ids, wrong, seed)  # type: ignore[method-assign,assignment]
