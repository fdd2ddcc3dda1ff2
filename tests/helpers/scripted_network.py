"""A network of a training run whose losses are given, for tests of what a run does with them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from cogvlm2_lite.config import read_config
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.finetune.samples import TrainedPair, TrainingPicture, TrainingSample

MATRICES = {
    "model.layers.0.mlp.language_mlp.down_proj.weight": (6, 4),
    "model.layers.1.mlp.language_mlp.down_proj.weight": (6, 4),
}


class ScriptedNetwork:
    """Returns given losses; gradients follow from the samples, the numbers and nothing else.

    loss      of a step: called with the number of the step, and whether it is in float32
    held_out  of an evaluation: called with its number; None: it falls as the numbers grow
    """

    def __init__(
        self,
        loss: Callable[[int, bool], float] = lambda step, exact: 1.0,
        held_out: Callable[[int], float] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config, self.dtype = read_config(model_folder("demo")), dtype
        generator = torch.Generator().manual_seed(0)
        self.pairs = {
            name: TrainedPair(
                down=_leaf(torch.rand((2, columns), generator=generator)),
                up=_leaf(torch.zeros(rows, 2)),
            )
            for name, (rows, columns) in MATRICES.items()
        }
        self._loss, self._held_out = loss, held_out
        self.steps = self.evaluations = 0
        self.repeated: list[int] = []
        self.known: list[str] = []
        self.room = 1000
        self.computed_tokens = 0

    def accumulate(
        self, samples: Sequence[TrainingSample], dtype: torch.dtype | None = None
    ) -> float:
        again = dtype is not None
        if again:
            self.repeated.append(self.steps)
        else:
            self.steps += 1
        self.computed_tokens += sum(s.input_ids.shape[1] for s in samples)
        ids = [s.input_ids.tolist() for s in samples]
        seed = int.from_bytes(hashlib.sha256(repr(ids).encode()).digest()[:4], "little")
        generator = torch.Generator().manual_seed(seed)
        loss = self._loss(self.steps, again or self.dtype == torch.float32)
        for pair in self.pairs.values():
            for leaf in (pair.down, pair.up):
                assert leaf.grad is not None
                leaf.grad += torch.rand(leaf.shape, generator=generator) + leaf.detach()
                if not math.isfinite(loss):
                    leaf.grad += loss
        return loss

    def knows(self, picture: str) -> bool:
        return picture in self.known

    def encode(self, pictures: Sequence[TrainingPicture]) -> bool:
        self.known += [each.key for each in pictures][: self.room - len(self.known)]
        return len(self.known) < self.room

    @contextmanager
    def released(self) -> Iterator[None]:
        yield

    def losses(self, samples: Sequence[TrainingSample]) -> list[float]:
        self.evaluations += 1
        if self._held_out is None:
            value = 1 / (
                1 + sum(float(pair.up.detach().abs().sum()) for pair in self.pairs.values())
            )
        else:
            value = self._held_out(self.evaluations - 1)
        return [value * len(sample.label_positions) for sample in samples]


def _leaf(tensor: Tensor) -> Tensor:
    leaf = tensor.requires_grad_()
    leaf.grad = torch.zeros_like(leaf)
    return leaf
