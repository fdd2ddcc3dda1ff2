"""A training run: steps, evaluations and states, as a generator of events."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cogvlm2_lite import __version__
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.events import Cancel
from cogvlm2_lite.finetune.data import Example, steps_of_epoch, talks
from cogvlm2_lite.finetune.network import LearningNetwork
from cogvlm2_lite.finetune.samples import TrainedPair
from cogvlm2_lite.finetune.settings import TrainingSettings
from cogvlm2_lite.finetune.state import Place, RunFolder
from cogvlm2_lite.finetune.update import Optimizer, OptimizerSettings, rate_factor
from cogvlm2_lite.weights.adapter import peft_name, write_adapter

SAVE_STEPS = 50
"""Steps between saved states, unless the user wants others."""
_SAVE_SECONDS = 600.0
_MOST_BAD_STEPS = 3
_RATE_STEPS = 20
"""Steps from which the time left is estimated."""


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """A step of the optimizer.

    tokens  computed tokens, image tokens included
    """

    step: int
    steps: int
    epoch: int
    loss: float
    rate: float
    grad_norm: float
    answers: int
    tokens: int
    seconds: float
    seconds_left: float


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The loss of the held-out answers after a step; `best` if it is the lowest so far."""

    step: int
    loss: float
    best: bool


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A state is on the disk."""

    step: int


@dataclass(frozen=True, kw_only=True)
class Interrupted:
    """The run was asked to stop; its state is saved."""

    step: int


LearnEvent = StepDone | Evaluated | Saved | Interrupted


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the adapter's own file says, besides steps and losses.

    base       of `Base.to_json`
    base_name  name of the base model, without a path
    """

    base: Mapping[str, Any]
    base_name: str
    template: str
    answer_space: bool
    data_fingerprint: str


def new_pairs(
    matrices: Mapping[str, tuple[int, int]], rank: int, seed: int
) -> dict[str, TrainedPair]:
    """Return the pairs at the start: lora_A uniform in +-1/sqrt(in), lora_B zero.

    The first step then starts from the base model, bit for bit.
    """
    generator = torch.Generator().manual_seed(seed)
    pairs = {}
    for name, (rows, columns) in matrices.items():
        down = torch.rand((rank, columns), generator=generator) * 2 - 1
        pairs[name] = TrainedPair(
            down=_leaf(down / math.sqrt(columns)), up=_leaf(torch.zeros(rows, rank))
        )
    return pairs


def _leaf(tensor: Tensor) -> Tensor:
    leaf = tensor.requires_grad_()
    leaf.grad = torch.zeros_like(leaf)
    return leaf


class Run:
    """One training run, new or continued.

    Everything that decides its numbers is in the arguments: two runs with equal ones, stopped or
    not, end with equal files on a CPU.
    """

    def __init__(
        self,
        folder: RunFolder,
        network: LearningNetwork,
        settings: TrainingSettings,
        learnt: Sequence[Example],
        held_out: Sequence[Example],
        facts: Facts,
        *,
        save_every: int = SAVE_STEPS,
    ) -> None:
        self._save_every = save_every
        self._folder, self._network, self._settings = folder, network, settings
        self._held_out, self._facts = held_out, facts
        self._groups = talks(learnt)
        leaves = [each for pair in network.pairs.values() for each in (pair.down, pair.up)]
        self._optimizer = Optimizer(
            leaves,
            OptimizerSettings(
                weight_decay=settings.weight_decay, max_grad_norm=settings.max_grad_norm
            ),
        )
        one = steps_of_epoch(self._groups, settings.step, settings.seed, 0)
        self.plan = [
            (epoch, step)
            for epoch in range(settings.epochs_for(len(one)))
            for step in steps_of_epoch(self._groups, settings.step, settings.seed, epoch)
        ]
        self.place = Place()
        self._rate = settings.learning_rate(network.config)
        self._answers, self._pictures = len(learnt), len(self._groups)

    def resume(self) -> bool:
        """Continue from the folder's newest state; returns whether there is one."""
        found = self._folder.load()
        if found is None:
            return False
        self.place, tensors = found
        with torch.no_grad():
            for name, pair in self._network.pairs.items():
                pair.down.copy_(tensors[peft_name(name, "A")])
                pair.up.copy_(tensors[peft_name(name, "B")])
        self._optimizer.load(tensors, self.place.step)
        return True

    def go(self, cancel: Cancel) -> Generator[LearnEvent, None, None]:
        """Do the remaining steps."""
        saved_at, bad, took = time.monotonic(), 0, []
        ends = {i + 1 for i, (epoch, _) in enumerate(self.plan) if self._last_of(i, epoch)}
        while self.place.step < len(self.plan):
            number = self.place.step
            epoch, examples = self.plan[number]
            began = time.monotonic()
            loss = self._network.accumulate([example.sample for example in examples])
            rate = self._rate * rate_factor(number, len(self.plan))
            norm = self._optimizer.step(rate) if math.isfinite(loss) else self._optimizer.skip()
            bad = 0 if math.isfinite(norm) else bad + 1
            if bad >= _MOST_BAD_STEPS:
                raise UsageError(
                    "The loss is not a number in {count} steps in a row, the last at step {step}.",
                    hint="Use a lower --lr, or look at these rows: {rows}. The last saved state "
                    "is kept.",
                    count=bad,
                    step=number + 1,
                    rows=", ".join(f"{e.row.source}:{e.row.line}" for e in examples[:4]),
                )
            self.place = replace(self.place, step=number + 1)
            took.append(time.monotonic() - began)
            recent = took[-_RATE_STEPS:]
            left = sum(recent) / len(recent) * (len(self.plan) - number - 1)
            done = StepDone(
                step=number + 1,
                steps=len(self.plan),
                epoch=epoch + 1,
                loss=loss,
                rate=rate,
                grad_norm=norm,
                answers=len(examples),
                tokens=sum(example.sample.input_ids.shape[1] for example in examples),
                seconds=took[-1],
                seconds_left=left,
            )
            self._folder.add(
                {
                    "step": done.step,
                    "epoch": done.epoch,
                    "loss": loss,
                    "lr": rate,
                    "grad_norm": norm,
                    "tokens": done.tokens,
                    "seconds": round(done.seconds, 3),
                }
            )
            yield done
            last = self.place.step == len(self.plan)
            if self.place.step in ends and self._held_out:
                yield self._evaluate()
            due = time.monotonic() - saved_at >= _SAVE_SECONDS
            if last or due or cancel.is_set or self.place.step % self._save_every == 0:
                yield self._save()
                saved_at = time.monotonic()
            if cancel.is_set and not last:
                yield Interrupted(step=self.place.step)
                return

    @property
    def log(self) -> list[dict[str, Any]]:
        """The lines of the log: steps and evaluations."""
        return self._folder.log

    def held_out_loss(self) -> float:
        """Return the mean loss over the label tokens of the held-out answers."""
        total, count = 0.0, 0
        for group in _batches(self._held_out, 64):
            samples = [example.sample for example in group]
            total += sum(self._network.losses(samples))
            count += sum(len(sample.label_positions) for sample in samples)
        return total / count

    def _last_of(self, index: int, epoch: int) -> bool:
        return index + 1 == len(self.plan) or self.plan[index + 1][0] != epoch

    def _evaluate(self) -> Evaluated:
        loss = self.held_out_loss()
        best = self.place.best_loss is None or loss < self.place.best_loss
        if best:
            self.place = replace(self.place, best_loss=loss, best_step=self.place.step)
            self._write(self._folder.out)
        self._folder.add({"step": self.place.step, "held_out": loss, "best": best})
        return Evaluated(step=self.place.step, loss=loss, best=best)

    def _save(self) -> Saved:
        self._write(self._folder.out / "last")
        if not self._held_out:
            self._write(self._folder.out)
        tensors = dict(self.tensors)
        tensors.update(self._optimizer.state())
        self._folder.save(self.place, tensors)
        return Saved(step=self.place.step)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The trained matrices by peft's names."""
        return {
            peft_name(name, side): tensor.detach()
            for name, pair in self._network.pairs.items()
            for side, tensor in (("A", pair.down), ("B", pair.up))
        }

    def _write(self, folder: Path) -> None:
        facts, settings = self._facts, self._settings
        write_adapter(
            folder,
            self.tensors,
            alpha=settings.alpha,
            base_name=facts.base_name,
            facts={
                "tool": f"cogvlm2-lite {__version__}",
                "base": dict(facts.base),
                "acts_on": settings.acts_on,
                "answer_space": facts.answer_space,
                "template": facts.template,
                "preset": settings.preset,
                "seed": settings.seed,
                "steps": self.place.step,
                "rows": self._answers,
                "pictures": self._pictures,
                "data_fingerprint": facts.data_fingerprint,
                "held_out_loss": self.place.best_loss,
            },
        )


def _batches(examples: Sequence[Example], size: int) -> Iterator[Sequence[Example]]:
    for begin in range(0, len(examples), size):
        yield examples[begin : begin + size]
