"""Measures a model during its training: held-out losses, and its own answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cogvlm2_lite.events import Cancel
from cogvlm2_lite.finetune.data import Example
from cogvlm2_lite.finetune.events import Sampled
from cogvlm2_lite.finetune.samples import TrainingSample

_EPOCH_STEPS = 200
"""An epoch of more steps is evaluated more than once."""
_TOGETHER = 16
"""Answers whose loss is computed together: their activations are in memory."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A model's own answer; `ended` if by an end token, which `tokens` counts, too."""

    text: str
    ended: bool = True
    tokens: int = 0


Ask = Callable[[Path | None], Generator[Answer, None, None]]
"""Yields the answers to some held-out questions, with the adapter of a folder or without one."""


class HasLosses(Protocol):
    """A network whose loss can be measured."""

    def losses(self, samples: Sequence[TrainingSample]) -> list[float]:
        """Return the sum of the loss over the label tokens of each sample."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What is measured and not learnt.

    examples      answers whose loss decides which state is the best
    old           held-out answers of the replayed data, which show what the model forgets
    asked         examples whose questions `ask` answers at each evaluation
    loss_in_peft  returns the held-out loss of an adapter's folder that acts on all rows, as it
                  does in peft; None: the adapter acts on all rows anyway
    """

    examples: Sequence[Example] = ()
    old: Sequence[Example] = ()
    asked: Sequence[Example] = ()
    ask: Ask | None = None
    loss_in_peft: Callable[[Path], float] | None = None

    @property
    def asks(self) -> bool:
        """Whether there are questions to answer."""
        return self.ask is not None and bool(self.asked)

    def answers(
        self, step: int, adapter: Path | None, cancel: Cancel
    ) -> Generator[Sampled, None, list[Sampled]]:
        """Yield and return the model's answers, with the adapter in a folder or without one."""
        made: list[Sampled] = []
        if self.ask is None:
            return made
        with closing(self.ask(adapter)) as given:
            for number, example in enumerate(self.asked):
                if cancel.is_set:
                    break
                answer = next(given)
                sampled = Sampled(
                    step=step,
                    number=number,
                    picture=example.group,
                    question=example.question,
                    expected=example.answer,
                    answer=answer.text,
                    ended=answer.ended,
                    tokens=answer.tokens,
                )
                made.append(sampled)
                yield sampled
        return made


def mean_loss(network: HasLosses, examples: Sequence[Example], cancel: Cancel) -> float | None:
    """Return the mean loss over the label tokens of examples; None without any, or if cancelled."""
    total, count = 0.0, 0
    for begin in range(0, len(examples), _TOGETHER):
        if cancel.is_set:
            return None
        samples = [example.sample for example in examples[begin : begin + _TOGETHER]]
        total += sum(network.losses(samples))
        count += sum(len(sample.label_positions) for sample in samples)
    return total / count if count else None


def evaluated_steps(epochs: Sequence[int]) -> set[int]:
    """Return after which steps a run is evaluated: at the end of each epoch, and in long ones.

    epochs  the epoch of each step

    Step 0 is the model before it learns anything.
    """
    ends, first = {0}, 0
    for number in range(1, len(epochs) + 1):
        if number == len(epochs) or epochs[number] != epochs[first]:
            length = number - first
            parts = math.ceil(length / _EPOCH_STEPS)
            ends |= {first + length * part // parts for part in range(1, parts + 1)}
            first = number
    return ends
