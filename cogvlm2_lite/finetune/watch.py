"""Looks at the losses of a run for signs of trouble. No torch here.

Everything follows from the losses alone, so a resumed run returns the notices of an uninterrupted
one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from statistics import fmean, median
from typing import Any

from cogvlm2_lite.text import Text

_STEPS = 20
"""Steps that are looked at together: a single one may have hard answers."""
_BEFORE = 100
_TIMES = 3.0
_RISES = 3
_LEARNT_BY_HEART = 0.02


class Watch:
    """Returns a notice when the losses show a problem.

    patience  evaluations without a lower held-out loss after which the run stops; None: never
    """

    def __init__(self, patience: int | None = None) -> None:
        self._patience = patience
        self._losses: deque[float] = deque(maxlen=_BEFORE + _STEPS)
        self._high = self._by_heart = False
        self._last: float | None = None
        self._best = math.inf
        self._best_step = 0
        self._rises = self._worse = 0

    @property
    def stops(self) -> bool:
        """Whether the patience is at its end."""
        return self._patience is not None and self._worse >= self._patience

    def replay(self, log: Iterable[Mapping[str, Any]]) -> None:
        """Look at the lines of an earlier run's log."""
        for entry in log:
            if "held_out" in entry:
                self.evaluated(int(entry["step"]), _number(entry["held_out"]))
            elif "loss" in entry:
                self.step(_number(entry["loss"]))

    def step(self, loss: float) -> Text | None:
        """Look at the loss of a step."""
        if not math.isfinite(loss):
            return None
        self._losses.append(loss)
        if len(self._losses) < 2 * _STEPS:
            return None
        losses = list(self._losses)
        before, recent = median(losses[:-_STEPS]), losses[-_STEPS:]
        was_high, self._high = self._high, min(recent) > _TIMES * before
        if was_high or not self._high:
            return None
        return Text(
            "The loss has been above {loss} for {steps} steps, and was about {before} before. A "
            "lower --lr may help.",
            loss=f"{min(recent):.2f}",
            steps=_STEPS,
            before=f"{before:.2f}",
        )

    def evaluated(self, step: int, loss: float) -> Text | None:
        """Look at a held-out loss; step 0 is the model without an adapter."""
        last, self._last = self._last, loss
        rises = last is not None and not loss <= last  # a loss that is no number has risen
        self._rises = self._rises + 1 if rises else 0
        if step:
            better = loss < self._best
            self._worse = 0 if better else self._worse + 1
            if better:
                self._best, self._best_step = loss, step
        if self.stops:
            return Text(
                "The held-out loss was not lower at {count} evaluations, so the run stops. The "
                "adapter is that of step {step}.",
                count=self._worse,
                step=self._best_step,
            )
        if rises and not self._by_heart and self._recent() < _LEARNT_BY_HEART:
            self._by_heart = True
            return Text(
                "The answers are learnt by heart: their loss is {loss}, while the held-out loss "
                "rises. The adapter of step {step} is kept. Fewer --epochs or more data help.",
                loss=f"{self._recent():.3f}",
                step=self._best_step,
            )
        if self._rises == _RISES:
            return Text(
                "The held-out loss has risen at {count} evaluations. The adapter of step {step} is "
                "kept; --patience stops such a run.",
                count=_RISES,
                step=self._best_step,
            )
        return None

    def _recent(self) -> float:
        recent = list(self._losses)[-_STEPS:]
        return fmean(recent) if recent else math.inf


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
