"""One step of the optimizer, and the learning rate over a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

COSINE, CONSTANT = "cosine", "constant"
WARM_UP = 0.05
"""Share of the steps over which the rate rises."""
FINAL = 0.1
"""Share of the rate at the end."""


def rate_factor(step: int, steps: int, schedule: str = COSINE, steps_in_epoch: int = 0) -> float:
    """Return the factor of the learning rate at a step, from 0.

    schedule  "cosine": a warm-up, then a cosine to a tenth. "constant": a warm-up in the first
              epoch, then 1, so that it does not depend on how many epochs follow

    Source: the schedule of this project; the released demo has a constant rate.
    """
    constant = schedule == CONSTANT
    warm = max(1, round(WARM_UP * (steps_in_epoch if constant else steps)))
    rise = min(1.0, (step + 1) / warm)
    if constant:
        return rise
    share = max(0, step - warm) / max(1, steps - warm)
    return rise * (FINAL + (1 - FINAL) * 0.5 * (1 + math.cos(math.pi * share)))


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """Numbers of AdamW, and the limit of the gradient's norm."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0


_MOMENTS = ("exp_avg", "exp_avg_sq")


class Optimizer:
    """AdamW on float32 leaves whose gradients are accumulated by someone else.

    torch's optimizer does the arithmetic. Gradients are zeroed and never removed: a matrix that no
    sample of a step touched has the gradient zero, so its moments decay as in the released code.
    """

    def __init__(
        self,
        leaves: Sequence[Tensor],
        settings: OptimizerSettings,
        factors: Sequence[float] | None = None,
    ) -> None:
        """Prepare to change leaves. factors: of the learning rate, one per leaf; None: all 1."""
        self.leaves = list(leaves)
        self._settings = settings
        self._factors = list(factors or [1.0] * len(self.leaves))
        assert len(self._factors) == len(self.leaves)
        self._adam = torch.optim.AdamW(
            [{"params": [leaf]} for leaf in self.leaves],
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            foreach=False,
        )

    def state(self) -> dict[str, Tensor]:
        """Return the moments of each leaf, by names that contain its place in the list."""
        found = {}
        for number, leaf in enumerate(self.leaves):
            for name in _MOMENTS:
                moments = self._adam.state.get(leaf, {}).get(name)
                found[f"{name}.{number}"] = torch.zeros_like(leaf) if moments is None else moments
        return {name: tensor.detach().contiguous() for name, tensor in found.items()}

    def load(self, tensors: Mapping[str, Tensor], steps: int) -> None:
        """Continue with the moments of an earlier run, after its number of steps."""
        for number, leaf in enumerate(self.leaves):
            self._adam.state[leaf] = {
                "step": torch.tensor(float(steps)),
                **{name: tensors[f"{name}.{number}"].clone() for name in _MOMENTS},
            }

    def skip(self) -> float:
        """Zero the gradients and change nothing; returns a norm that is not finite."""
        self._adam.zero_grad(set_to_none=False)
        return math.nan

    def step(self, rate: float) -> float:
        """Clip the gradients, apply a step, zero the gradients; return the norm before clipping.

        Gradients that are not finite change nothing: the norm returned is then not finite either.
        """
        norm = float(torch.nn.utils.clip_grad_norm_(self.leaves, self._settings.max_grad_norm))
        if math.isfinite(norm):
            for group, factor in zip(self._adam.param_groups, self._factors, strict=True):
                group["lr"] = rate * factor
            self._adam.step()
        self._adam.zero_grad(set_to_none=False)
        return norm
