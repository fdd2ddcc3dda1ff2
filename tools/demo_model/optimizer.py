"""Muon for matrices and Adam for the rest, over flat tensors that worker processes share."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tools.demo_model.network import Weights

ADAM_BETAS = (0.9, 0.98)
ADAM_EPS = 1e-8
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A range of the flat tensors: a matrix for Muon or any tensor for Adam.

    vision  whether it belongs to the vision tower or the projector
    """

    start: int
    shape: tuple[int, int]
    owner: int
    muon: bool
    vision: bool

    @property
    def end(self) -> int:
        """One past the last element."""
        return self.start + self.shape[0] * self.shape[1]


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Step sizes of one update. Decay is multiplied by the Muon rate.

    vision_scale  factor on both rates for the vision tower and the projector
    """

    muon: float
    adam: float
    momentum: float
    vision_decay: float
    text_decay: float
    vision_scale: float


@dataclass(frozen=True, kw_only=True)
class Store:
    """All trained numbers in shared memory.

    weights   [numbers] bfloat16, what the forward pass reads
    masters   [numbers] float32
    moments   [2, numbers] float32, momentum (both) and second moment (Adam)
    grads     [workers, numbers] bfloat16
    """

    shapes: dict[str, tuple[int, ...]]
    weights: Tensor
    masters: Tensor
    moments: Tensor
    grads: Tensor

    def views(self, flat: Tensor) -> Weights:
        """Name the parts of a flat tensor, without copying."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        parts = torch.split(flat, sizes)
        return {
            name: part.view(shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }


def make_store(shapes: dict[str, tuple[int, ...]], workers: int) -> Store:
    """Allocate zeros in shared memory."""
    count = sum(math.prod(shape) for shape in shapes.values())
    return Store(
        shapes=shapes,
        weights=_shared(count, dtype=torch.bfloat16),
        masters=_shared(count, dtype=torch.float32),
        moments=_shared(2, count, dtype=torch.float32),
        grads=_shared(workers, count, dtype=torch.bfloat16),
    )


def _shared(*shape: int, dtype: torch.dtype) -> Tensor:
    zeros = torch.zeros(shape, dtype=dtype)
    zeros.share_memory_()  # type: ignore[no-untyped-call]
    return zeros


def cut_pieces(shapes: dict[str, tuple[int, ...]], workers: int) -> list[Piece]:
    """Split the flat range into updates, each owned by one worker; fused qkv is cut in three."""
    pieces: list[Piece] = []
    start = 0
    for name, shape in shapes.items():
        count = math.prod(shape)
        matrix = len(shape) in (2, 4) and "embed" not in name and "lm_head" not in name
        matrix = matrix or name.endswith("patch_embedding.proj.weight")
        if not matrix:
            rows = [(1, count)]
        elif "query_key_value" in name:
            side = shape[1]
            other = (shape[0] - side) // 2
            rows = [(side, side), (other, side), (other, side)]
        else:
            rows = [(shape[0], count // shape[0])]
        for cut in rows:
            pieces.append(Piece(start=start, shape=cut, owner=len(pieces) % workers,
                                muon=matrix, vision=name.startswith("model.vision")))  # fmt: skip
            start += cut[0] * cut[1]
    return pieces


def orthogonalise(stack: Tensor) -> Tensor:
    """Map each matrix near the closest one with orthogonal rows: [count, rows, columns]."""
    tall = stack.shape[1] > stack.shape[2]
    x: Tensor = stack.to(torch.bfloat16)
    x = x.transpose(1, 2) if tall else x
    x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).to(x.dtype)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = x @ x.transpose(1, 2)
        x = a * x + (b * square + c * (square @ square)) @ x
    x = x.transpose(1, 2) if tall else x
    return x.float()


def update(store: Store, pieces: list[Piece], rates: Rates, step: int) -> None:
    """Apply one step to the given pieces. `step` counts from 1 (Adam's bias correction)."""
    by_shape: dict[tuple[int, int], list[Piece]] = {}
    for piece in pieces:
        if piece.muon:
            by_shape.setdefault(piece.shape, []).append(piece)
        else:
            _adam(store, piece, rates, step)
    for shape, group in by_shape.items():
        _muon(store, shape, group, rates)


def _mean_grad(store: Store, piece: Piece) -> Tensor:
    return store.grads[:, piece.start : piece.end].float().mean(0)


def _muon(store: Store, shape: tuple[int, int], group: list[Piece], rates: Rates) -> None:
    directions = []
    for piece in group:
        grad = _mean_grad(store, piece)
        momentum = store.moments[0, piece.start : piece.end]
        momentum.lerp_(grad, 1 - rates.momentum)
        directions.append(grad.lerp(momentum, rates.momentum).view(shape))
    steps = orthogonalise(torch.stack(directions))
    stretch = math.sqrt(max(1.0, shape[0] / shape[1]))
    for piece, step in zip(group, steps, strict=True):
        decay = rates.vision_decay if piece.vision else rates.text_decay
        rate = rates.muon * (rates.vision_scale if piece.vision else 1.0)
        master = store.masters[piece.start : piece.end]
        master.mul_(1 - rate * decay).add_(step.flatten(), alpha=-rate * stretch)
        store.weights[piece.start : piece.end] = master


def _adam(store: Store, piece: Piece, rates: Rates, step: int) -> None:
    grad = _mean_grad(store, piece)
    first, second = store.moments[:, piece.start : piece.end]
    first.lerp_(grad, 1 - ADAM_BETAS[0])
    second.lerp_(grad.square(), 1 - ADAM_BETAS[1])
    mean = first / (1 - ADAM_BETAS[0] ** step)
    spread = (second / (1 - ADAM_BETAS[1] ** step)).sqrt() + ADAM_EPS
    master = store.masters[piece.start : piece.end]
    rate = rates.adam * (rates.vision_scale if piece.vision else 1.0)
    master.addcdiv_(mean, spread, value=-rate)
    store.weights[piece.start : piece.end] = master
