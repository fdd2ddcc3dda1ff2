"""A training run: steps, evaluations and states, as a generator of events."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cogvlm2_lite import events
from cogvlm2_lite.bench.peak import PeakMemory
from cogvlm2_lite.engine.replan import DEVICE_ERROR
from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.events import Cancel
from cogvlm2_lite.finetune import failures
from cogvlm2_lite.finetune.adapter_folder import AdapterFolder, Facts, HeldOutLoss
from cogvlm2_lite.finetune.data import Example, steps_of_epoch, talks
from cogvlm2_lite.finetune.evaluation import HeldOut, evaluated_steps, mean_loss
from cogvlm2_lite.finetune.events import (
    Encoded,
    Evaluated,
    Interrupted,
    LearnEvent,
    Notice,
    Replanned,
    Sampled,
    Saved,
    StepDone,
)
from cogvlm2_lite.finetune.network import LearningNetwork
from cogvlm2_lite.finetune.samples import TrainedPair
from cogvlm2_lite.finetune.settings import TrainingSettings
from cogvlm2_lite.finetune.state import Place, RunFolder
from cogvlm2_lite.finetune.task import SAVE_STEPS
from cogvlm2_lite.finetune.update import Optimizer, OptimizerSettings, rate_factor
from cogvlm2_lite.finetune.watch import Watch
from cogvlm2_lite.text import Text
from cogvlm2_lite.weights.adapter import peft_name

_SAVE_SECONDS = 600.0
_ENCODED_TOGETHER = 8
_RATE_STEPS = 20
"""Steps from which the time left is estimated."""


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


@dataclass(frozen=True, kw_only=True)
class Conduct:
    """What does not change the trained numbers.

    save_every     steps between saved states
    patience       evaluations without a lower held-out loss after which the run stops; None: never
    device         whose memory is measured
    adapter_dtype  of the adapter's file; states are always float32
    """

    save_every: int = SAVE_STEPS
    patience: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    adapter_dtype: torch.dtype = torch.float32


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
        held_out: HeldOut,
        facts: Facts,
        *,
        conduct: Conduct | None = None,
    ) -> None:
        self._conduct = conduct or Conduct()
        self._folder, self._network, self._settings = folder, network, settings
        self._learnt, self._held_out = learnt, held_out
        self._replans: list[events.Replanned] = []
        network.replanned = self._replans.append
        self._groups = talks(learnt)
        leaves = [each for pair in network.pairs.values() for each in (pair.down, pair.up)]
        rates = settings.rate_factors(network.config)
        self._optimizer = Optimizer(
            leaves,
            OptimizerSettings(
                weight_decay=settings.weight_decay, max_grad_norm=settings.max_grad_norm
            ),
            factors=[
                rates[name] * side
                for name in network.pairs
                for side in (1.0, settings.rate_factor_up)
            ],
        )
        one = steps_of_epoch(self._groups, settings.step, settings.seed, 0)
        self.plan = [
            (epoch, step)
            for epoch in range(settings.epochs_for(len(one)))
            for step in steps_of_epoch(self._groups, settings.step, settings.seed, epoch)
        ]
        self._steps_in_epoch = len(one)
        self.place = Place()
        self.rate, self.epochs = settings.learning_rate(network.config), self.plan[-1][0] + 1
        dtype = self._conduct.adapter_dtype
        self._out = AdapterFolder(folder.out, settings, facts, dtype)
        self._last_folder = AdapterFolder(folder.out / "last", settings, facts, dtype)
        self._ends = (
            evaluated_steps([epoch for epoch, _ in self.plan]) if held_out.examples else set()
        )
        self._watch = Watch(self._conduct.patience)
        self._peak = PeakMemory(self._conduct.device)
        self._took: list[float] = []
        self._evaluation_seconds = 0.0
        self._saved_at = time.monotonic()
        self._unsaved: OSError | None = None
        self._best: dict[str, Tensor] | None = None  # not written yet, because the disk is full
        self._warning: Text | None = None

    @property
    def done(self) -> bool:
        """Whether no step is left."""
        return self.place.step == len(self.plan) or self._watch.stops

    @property
    def log(self) -> list[dict[str, Any]]:
        """The lines of the log: steps and evaluations."""
        return self._folder.log.entries

    @property
    def samples(self) -> list[dict[str, Any]]:
        """Answers to held-out questions, by step."""
        return self._folder.samples.entries

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The trained matrices by peft's names."""
        return {
            peft_name(name, side): tensor.detach()
            for name, pair in self._network.pairs.items()
            for side, tensor in (("A", pair.down), ("B", pair.up))
        }

    def resume(self) -> bool:
        """Continue from the folder's newest state; returns whether there is one."""
        found = self._folder.load()
        self._watch.replay(self.log)
        if found is None:
            if self.log:  # the model without an adapter is measured
                self.place = Place(evaluated=0)
            return False
        self.place, tensors, self._warning = found
        with torch.no_grad():
            for name, pair in self._network.pairs.items():
                pair.down.copy_(tensors[peft_name(name, "A")])
                pair.up.copy_(tensors[peft_name(name, "B")])
        self._optimizer.load(tensors, self.place.updates)
        return True

    def go(self, cancel: Cancel) -> Generator[LearnEvent, None, None]:
        """Do the remaining steps.

        Raises UsageError if the loss is not finite too often, DoesNotFitError if nothing could be
        saved at the end, and DeviceError if the GPU fails. The last saved state counts then.
        """
        try:
            yield from self._go(cancel)
        except DEVICE_ERROR as error:
            step, saved = self.place.step, self._folder.saved_step
            raise failures.device_lost(error, step, saved) from error

    def _go(self, cancel: Cancel) -> Generator[LearnEvent, None, None]:
        if self._warning is not None:
            yield Notice(step=self.place.step, text=self._warning)
        # 1. Encode the pictures, as far as there is room to keep them.
        yield from self._encode(cancel)
        # 2. Measure the model as it is, or where an earlier run was stopped.
        if (yield from self._evaluate_if_due(cancel)):
            yield from self._save()
        # 3. Steps.
        while not self.done and not cancel.is_set:
            yield from self._step()
            evaluated = yield from self._evaluate_if_due(cancel)
            due = time.monotonic() - self._saved_at >= _SAVE_SECONDS
            every = self.place.step % self._conduct.save_every == 0
            if self.done or cancel.is_set or evaluated or due or every or self._unsaved:
                yield from self._save()
        if not self.done or cancel.is_set:
            if self._folder.saved_step is None:  # stopped before the first step
                yield from self._save()
            yield Interrupted(step=self.place.step, saved=self._folder.saved_step)
            return
        # 4. What is known only at the end.
        if self._unsaved is not None:
            raise failures.not_saved(self._folder.out, self._unsaved, self._folder.saved_step)
        if not (yield from self._finish(cancel)):
            yield Interrupted(step=self.place.step, saved=self._folder.saved_step)

    def _encode(self, cancel: Cancel) -> Iterator[LearnEvent]:
        """Encode pictures that no step needs to encode again; one after another may be stopped."""
        if self.done:
            return
        pictures = {}
        for example in (*self._learnt, *self._held_out.examples, *self._held_out.old):
            picture = example.sample.picture
            if picture is not None and not self._network.knows(picture.key):
                pictures[picture.key] = picture
        waiting, began = list(pictures.values()), time.monotonic()
        for begin in range(0, len(waiting), _ENCODED_TOGETHER):
            if cancel.is_set:
                return
            together = waiting[begin : begin + _ENCODED_TOGETHER]
            has_room = self._network.encode(together)
            done = begin + len(together)
            left = (time.monotonic() - began) / done * (len(waiting) - done)
            yield Encoded(done=done, total=len(waiting), seconds_left=left)
            if not has_room:
                return

    # --- steps ------------------------------------------------------------------------------------

    def _step(self) -> Iterator[LearnEvent]:
        number = self.place.step
        epoch, examples = self.plan[number]
        samples = [example.sample for example in examples]
        began, computed = time.monotonic(), self._network.computed_tokens
        rate = self.rate * rate_factor(
            number, len(self.plan), self._settings.schedule, self._steps_in_epoch
        )
        loss, norm = self._try_step(examples, rate, None)
        repeated = not math.isfinite(norm) and self._network.dtype != torch.float32
        if repeated:
            loss, norm = self._try_step(examples, rate, torch.float32)
        for each in self._replans:
            yield Replanned(step=number + 1, text=each.text, budget_bytes=each.budget_bytes)
        self._replans.clear()
        bad = not math.isfinite(norm)
        self.place = replace(
            self.place,
            step=number + 1,
            updates=self.place.updates + (not bad),
            bad=self.place.bad + bad,
            bad_row=self.place.bad_row + 1 if bad else 0,
        )
        self._took = [*self._took, time.monotonic() - began][-_RATE_STEPS:]
        done = StepDone(
            step=number + 1,
            steps=len(self.plan),
            epoch=epoch + 1,
            loss=loss,
            rate=rate,
            grad_norm=norm,
            answers=len(examples),
            tokens=self._network.computed_tokens - computed,
            labels=sum(len(sample.label_positions) for sample in samples),
            seconds=self._took[-1],
            seconds_left=self._seconds_left(),
            peak_bytes=self._peak.nbytes,
            held_out=self._last("held_out"),
            repeated=repeated,
        )
        self._peak.reset()
        self._add(
            {
                "step": done.step,
                "epoch": done.epoch,
                "loss": loss,
                "tokens": sum(sample.input_ids.shape[1] for sample in samples),
                "labels": done.labels,
                "lr": rate,
                "grad_norm": norm,
                "seconds": round(done.seconds, 3),
                "peak_bytes": done.peak_bytes,
                "computed": done.tokens,
            }
        )
        yield done
        if bad:
            rows, saved = [each.row for each in examples], self._folder.saved_step
            text = failures.not_finite(self.place, rows, self.rate, saved)
            yield Notice(step=done.step, text=text)
        notice = self._watch.step(loss)
        if notice is not None:
            yield Notice(step=done.step, text=notice)

    def _try_step(
        self, examples: Sequence[Example], rate: float, dtype: torch.dtype | None
    ) -> tuple[float, float]:
        """Compute a step and apply it if it is finite; return its loss and gradient norm."""
        loss = self._network.accumulate([example.sample for example in examples], dtype)
        norm = self._optimizer.step(rate) if math.isfinite(loss) else self._optimizer.skip()
        return loss, norm

    def _seconds_left(self) -> float:
        recent = sum(self._took) / len(self._took)
        evaluations = sum(end >= self.place.step for end in self._ends)
        steps = len(self.plan) - self.place.step
        return recent * steps + self._evaluation_seconds * evaluations

    def _add(self, entry: dict[str, Any]) -> None:
        self._folder.log.add({**entry, "time": round(time.time(), 3)})

    def _first(self, key: str) -> float | None:
        return next((each[key] for each in self.log if key in each), None)

    def _last(self, key: str) -> float | None:
        found = (each[key] for each in reversed(self.log) if key in each)
        return next(found, None)

    # --- evaluations ------------------------------------------------------------------------------

    def held_out_loss(self) -> float:
        """Return the mean loss over the label tokens of the held-out answers."""
        loss = mean_loss(self._network, self._held_out.examples, Cancel())
        assert loss is not None
        return loss

    def _evaluate_if_due(self, cancel: Cancel) -> Generator[LearnEvent, None, bool]:
        """Measure the held-out answers; return whether that was done.

        An evaluation that is cancelled is done again as a whole.
        """
        step = self.place.step
        if step not in self._ends or self.place.evaluated >= step:
            return False
        began = time.monotonic()
        # 1. Losses.
        loss = mean_loss(self._network, self._held_out.examples, cancel)
        old = mean_loss(self._network, self._held_out.old, cancel)
        if loss is None:
            return False
        # 2. The model's own answers.
        answers = yield from self._answers(step, cancel)
        if cancel.is_set:
            return False
        # 3. The best adapter. Step 0 has none.
        least = math.inf if self.place.best_loss is None else self.place.best_loss
        best = bool(step) and loss < least
        if best:
            self.place = replace(self.place, best_loss=loss, best_step=step)
            self._best = {name: tensor.clone() for name, tensor in self.tensors.items()}
        self.place = replace(self.place, evaluated=step)
        for answer in answers:
            self._folder.samples.add(asdict(answer))
        entry = {"step": step, "held_out": loss, "best": best}
        self._add(entry if old is None else {**entry, "old": old})
        self._evaluation_seconds = time.monotonic() - began
        yield Evaluated(step=step, loss=loss, best=best, old=old)
        notice = self._watch.evaluated(step, loss)
        if notice is not None:
            yield Notice(step=step, text=notice)
        return bool(step)

    def _answers(self, step: int, cancel: Cancel) -> Generator[LearnEvent, None, list[Sampled]]:
        """Answer held-out questions with the adapter as it is now."""
        if not self._held_out.asks:
            return []
        if step:
            try:
                self._last_folder.write(self.tensors, step, self._loss(None))
            except OSError:  # reported when the state is saved
                return []
        return (yield from self._ask(step, self._last_folder.folder if step else None, cancel))

    def _ask(
        self, step: int, adapter: Path | None, cancel: Cancel
    ) -> Generator[LearnEvent, None, list[Sampled]]:
        """Answer held-out questions; the training does not end if that fails."""
        try:
            with self._network.released():
                return (yield from self._held_out.answers(step, adapter, cancel))
        except CogVLM2LiteError as error:
            yield Notice(step=self.place.step, text=failures.not_answered(error))
            return []

    # --- saving -----------------------------------------------------------------------------------

    def _save(self) -> Iterator[LearnEvent]:
        if self.place.bad_row and not self.done:
            return  # the numbers before these steps may be their cause
        try:
            self._write_everything()
        except OSError as error:
            self._unsaved = error
            text = failures.not_saved_yet(self._folder.out, error)
            yield Notice(step=self.place.step, text=text)
            return
        self._unsaved, self._saved_at = None, time.monotonic()
        yield Saved(step=self.place.step)

    def _write_everything(self) -> None:
        """Write adapters, log and state, the state last: it counts only with the others."""
        tensors, step = self.tensors, self.place.step
        for name, tensor in tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise failures.not_finite_numbers(step, name, self.rate, self._folder.saved_step)
        if self._best is not None:
            self._out.write(self._best, self.place.best_step, self._loss(self.place.best_loss))
            self._best = None
        measured = self._last("held_out") if self.place.evaluated == step else None
        self._last_folder.write(tensors, step, self._loss(measured))
        if not self._held_out.examples:
            self._out.write(tensors, step, None)
        self._folder.save(self.place, {**tensors, **self._optimizer.state()})

    def _loss(self, after: float | None) -> HeldOutLoss | None:
        if not self._held_out.examples:
            return None
        return HeldOutLoss(before=self._first("held_out"), after=after)

    # --- the end ----------------------------------------------------------------------------------

    def _finish(self, cancel: Cancel) -> Generator[LearnEvent, None, bool]:
        """Answer what was not asked before, and measure the adapter as peft uses it.

        Returns False if it was cancelled.
        """
        if not self.place.best_step:
            return True
        # 1. Answers; `--answers` may be larger than in the run so far.
        for step, adapter in ((0, None), (self.place.best_step, self._folder.out)):
            known = {line["number"] for line in self.samples if line["step"] == step}
            if len(known) < len(self._held_out.asked):
                for answer in (yield from self._ask(step, adapter, cancel)):
                    if answer.number not in known:
                        self._folder.samples.add(asdict(answer))
        if cancel.is_set:
            return False
        # 2. What the adapter is worth, here and in other programs.
        before, best = self._first("held_out"), self.place.best_loss
        assert before is not None
        assert best is not None
        if best >= before:
            yield Notice(step=self.place.step, text=failures.no_help(best, before))
        measure = self._held_out.loss_in_peft
        if measure is not None and self._out.loss_in_peft is None:
            loss = self._out.loss_in_peft = measure(self._folder.out)
            yield Notice(step=self.place.step, text=failures.in_peft(best, loss))
        return True
