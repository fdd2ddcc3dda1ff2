"""What is trained, and with which numbers. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cogvlm2_lite.architectures.architecture import (
    ModelConfig,
    Part,
    Role,
    TensorSpec,
    expected_tensors,
)
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.weights.adapter_names import ALL_ROWS, BEHIND_PICTURE

_EPOCHS, _MOST_EPOCHS, _FEWEST_STEPS = 3, 10, 200

_LARGEST_RANK, _LARGEST_EPOCHS, _LARGEST = 1024, 10_000, 2**31 - 1

_TOWER_FACTOR = 0.2
"""Learning rate of the vision tower and the projector divided by that of the experts."""
_REFERENCE_WIDTH = 4096
"""Hidden size of the 19B model, for which the learning rates are."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A choice of matrices.

    parts    parts whose linear layers are trained
    only     end of the names of the matrices; "": all of them
    acts_on  rows on which the adapter acts
    rate     learning rate at the width of the 19B model
    """

    parts: frozenset[Part]
    only: str = ""
    acts_on: str = ALL_ROWS
    rate: float = 1e-4

    def trains(self, spec: TensorSpec) -> bool:
        """Return whether a tensor is trained."""
        return (
            spec.role is Role.LINEAR
            and spec.part in self.parts
            and spec.name.endswith(f"{self.only}.weight")
        )


_EXPERTS = frozenset({Part.LANGUAGE_EXPERT, Part.VISION_EXPERT})

PRESETS: Mapping[str, Preset] = MappingProxyType({
    "words": Preset(parts=frozenset({Part.LANGUAGE_EXPERT}), acts_on=BEHIND_PICTURE, rate=2e-4),
    "both": Preset(parts=_EXPERTS),
    "demo": Preset(parts=frozenset({Part.VISION_EXPERT}), only="vision_expert_query_key_value"),
    "tower": Preset(parts=_EXPERTS | {Part.VISION, Part.PROJECTOR}),
})  # fmt: skip
"""words: all linear layers of the language experts, behind the picture. demo: the target of the
released fine-tuning demo."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Every setting that affects the trained numbers.

    rate      learning rate; None: the preset's, scaled with the model's width
    epochs    passes over the data; None: see `epochs_for`
    step      answers in a step of the optimizer, at least; whole pictures
    bos       with `words`: act on all rows, as peft does
    schedule  "cosine" or "constant", both after a warm-up
    max_grad_norm   longer gradients are scaled down to it
    rate_factor_up  learning rate of lora_B divided by that of lora_A (LoRA+)
    """

    preset: str = "words"
    rank: int = 16
    alpha: float = 32.0
    rate: float | None = None
    epochs: int | None = None
    step: int = 16
    seed: int = 0
    bos: bool = False
    schedule: str = "cosine"
    max_grad_norm: float = 1.0
    weight_decay: float = 0.0
    rate_factor_up: float = 1.0

    def check(self) -> None:
        """Raise UsageError for a number out of range."""
        if self.preset not in PRESETS:
            raise UsageError(
                "Unknown value {value!r} for {param}.",
                hint="Use one of {names}.",
                param="--preset",
                value=self.preset,
                names=", ".join(PRESETS),
            )
        whole = {
            "--rank": (self.rank, 1, _LARGEST_RANK), "--epochs": (self.epochs, 1, _LARGEST_EPOCHS),
            "--step": (self.step, 1, _LARGEST), "--seed": (self.seed, 0, _LARGEST),
        }  # fmt: skip
        for param, (value, least, most) in whole.items():
            if value is not None and value < least:
                raise UsageError(
                    "{param} must be {least} or more, not {value}.",
                    param=param,
                    least=least,
                    value=value,
                )
            if value is not None and value > most:
                raise UsageError(
                    "{param} must be {most} or less, not {value}.",
                    param=param,
                    most=most,
                    value=value,
                )
        above_zero = {
            "--alpha": self.alpha, "--lr": self.rate, "--clip": self.max_grad_norm,
            "--lr-b-factor": self.rate_factor_up,
        }  # fmt: skip
        for param, number in above_zero.items():
            if number is not None and not 0 < number < float("inf"):
                raise UsageError("{param} must be above 0, not {value}.", param=param, value=number)
        if not 0 <= self.weight_decay < 1:
            raise UsageError(
                "{param} must be at least 0 and below 1, not {value}.",
                param="--weight-decay",
                value=self.weight_decay,
            )

    def epochs_for(self, steps: int) -> int:
        """Return the passes over data of which one pass has so many steps.

        Three, as others have it, but a small data set gets up to ten: the demo model needs some
        200 steps to learn a new question.
        """
        if self.epochs is not None:
            return self.epochs
        return max(_EPOCHS, min(_MOST_EPOCHS, math.ceil(_FEWEST_STEPS / steps)))

    @property
    def acts_on(self) -> str:
        return ALL_ROWS if self.bos else PRESETS[self.preset].acts_on

    def learning_rate(self, config: ModelConfig) -> float:
        """Return the highest learning rate of the run.

        Narrow models need higher ones. The exponent is a rule of thumb through two points: 2e-4
        in the literature for 4096, 2e-3 measured for the demo model's 192.
        """
        if self.rate is not None:
            return self.rate
        rate: float = PRESETS[self.preset].rate * (_REFERENCE_WIDTH / config.hidden_size) ** 0.75
        return rate

    def rate_factors(self, config: ModelConfig) -> dict[str, float]:
        """Return the factor of the learning rate for each trained matrix, in the same order."""
        specs = expected_tensors(config)
        return {
            name: _TOWER_FACTOR if specs[name].part in (Part.VISION, Part.PROJECTOR) else 1.0
            for name in self.matrices(config)
        }

    def matrices(self, config: ModelConfig) -> dict[str, tuple[int, int]]:
        """Return the shapes of the trained matrices by name, in the model's order."""
        preset = PRESETS[self.preset]
        return {
            spec.name: (spec.shape[0], spec.shape[1])
            for spec in expected_tensors(config).values()
            if preset.trains(spec)
        }
