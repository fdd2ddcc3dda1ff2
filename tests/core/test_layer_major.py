"""Walking many samples through a model layer by layer, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cogvlm2_lite.architectures.architecture import Phase
from cogvlm2_lite.engine.activations import Activations, Key, MemoryActivations
from cogvlm2_lite.engine.layer_major import LayerMajorWalk, LayerStage
from cogvlm2_lite.memory.residency import HasSlots
from cogvlm2_lite.units import MIB
from cogvlm2_lite.weights.slots import Linear, WeightSlot
from tests.helpers.answers import opened
from tests.helpers.folders import random_folder

SAMPLES = 3


class Layer:
    """A matrix between two stores of activations."""

    def __init__(self, number: int) -> None:
        self.number = number
        generator = torch.Generator().manual_seed(number)
        self.weight = torch.randn(4, 4, generator=generator)
        self.here = False

    def slots(self) -> list[WeightSlot]:
        return []

    def __call__(self, x: Tensor) -> Tensor:
        assert self.here, f"layer {self.number} is not in memory"
        return (x @ self.weight.t()).tanh()


class Weights:
    """Brings layers in, and notes which way the walk goes."""

    def __init__(self) -> None:
        self.brought: list[tuple[int, bool]] = []

    @contextmanager
    def __call__(self, piece: HasSlots, *, backward: bool = False) -> Iterator[None]:
        assert isinstance(piece, Layer)
        self.brought.append((piece.number, backward))
        piece.here = True
        yield
        piece.here = False


def walk_over(layers: list[Layer], weights: Weights, activations: Activations) -> LayerMajorWalk:
    """Return a walk whose first stage makes an input of each sample's number."""

    def work(layer: Layer) -> Callable[[Key, Tensor | None], Tensor]:
        def run(key: Key, x: Tensor | None) -> Tensor:
            return layer(torch.full((1, 4), 0.1 * (1 + key[0])) if x is None else x)

        return run

    keys = [(number, 0) for number in range(SAMPLES)]
    stages = [
        LayerStage(name=str(layer.number), piece=layer, keys=keys, run=work(layer))
        for layer in layers
    ]
    return LayerMajorWalk(stages, weights, activations)


def go_forward(walk: LayerMajorWalk, stop_in: int | None = None) -> None:
    for number in walk.forward:
        with walk.visit(number) as stage:
            for key in stage.keys:
                stage.advance(key)
            if number == stop_in:
                raise InterruptedError


def test_weights_come_in_once_for_all_samples() -> None:
    layers, weights, kept = [Layer(n) for n in range(4)], Weights(), MemoryActivations()
    walk = walk_over(layers, weights, kept)
    go_forward(walk)
    assert weights.brought == [(0, False), (1, False), (2, False), (3, False)]
    for sample in range(SAMPLES):
        x = torch.full((1, 4), 0.1 * (1 + sample))
        for layer in layers:
            layer.here = True
            x = layer(x)
        assert torch.equal(kept.read(4, (sample, 0)), x)


def test_a_walk_goes_on_behind_the_last_finished_stage() -> None:
    layers, weights, kept = [Layer(n) for n in range(4)], Weights(), MemoryActivations()
    walk = walk_over(layers, weights, kept)
    with pytest.raises(InterruptedError):
        go_forward(walk, stop_in=2)
    go_forward(walk_over(layers, weights, kept))
    assert [number for number, _ in weights.brought] == [0, 1, 2, 2, 3]


def test_a_backward_walk_gives_the_gradients_of_the_whole_from_stored_inputs() -> None:
    """What a training step does: each layer runs again from its input, with gradients."""
    layers, weights = [Layer(n) for n in range(4)], Weights()
    kept = MemoryActivations(keep_inputs=True)
    walk = walk_over(layers, weights, kept)
    with torch.no_grad():
        go_forward(walk)
    whole = {(n, 0): kept.read(1, (n, 0)).clone().requires_grad_() for n in range(SAMPLES)}
    for x in whole.values():
        y = x
        for layer in layers[1:]:
            layer.here = True
            y = layer(y)
        y.sum().backward()
    for layer in layers:
        layer.here = False

    gradients = {key: torch.ones(1, 4) for key in whole}
    weights.brought.clear()
    for number in walk.backward:
        if number == 0:
            break
        with walk.visit_backward(number) as stage:
            for key in stage.keys:
                start = stage.input(key)
                assert start is not None
                start = start.requires_grad_()
                stage.stage.run(key, start).backward(gradients[key])
                assert start.grad is not None
                gradients[key] = start.grad
    assert weights.brought == [(3, True), (2, True), (1, True)]
    for key, x in whole.items():
        assert x.grad is not None
        torch.testing.assert_close(gradients[key], x.grad)
    assert kept.held_bytes == SAMPLES * 16  # the outputs of the last stage


@pytest.mark.parametrize("budget", [36 * MIB, 1024 * MIB], ids=["streamed", "resident"])
def test_a_backward_walk_finds_its_weights_and_stays_in_the_budget(
    tmp_path: Path, budget: int
) -> None:
    model = opened(random_folder(tmp_path / "random"), budget)
    residency, blocks = model.runtime.residency, model.runtime.parts.decoder.blocks
    phase = Phase.PREFILL_TEXT
    seen: list[tuple[int, int]] = []

    def look(key: Key, _: Tensor | None) -> Tensor:
        filled = [
            slot.name
            for slot in blocks[at].slots()
            if isinstance(slot, Linear) and slot.stored is not None
        ]
        seen.append((at, len(filled)))
        assert sum(arena.held_bytes for arena in model.runtime.arenas) <= budget
        return torch.zeros(1)

    stages = [LayerStage(name="block", piece=block, keys=[(0, 0)], run=look) for block in blocks]
    walk = LayerMajorWalk(stages, partial(residency.at, phase), MemoryActivations(keep_inputs=True))
    for at in walk.forward:
        with walk.visit(at) as stage:
            stage.advance((0, 0))
    for at in walk.backward:
        with walk.visit_backward(at) as stage:
            stage.output((0, 0))
    numbers = list(range(len(blocks)))
    assert [number for number, _ in seen] == numbers + numbers[::-1]
    assert all(count >= 5 for _, count in seen)
    if budget < 1024 * MIB:
        assert model.plan.devices[0].phase(phase).streamed
