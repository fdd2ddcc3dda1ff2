"""Weights of tokens: how much the model's answers depend on what a matrix computes for each.

A token's weight for a matrix follows from the gradient of the log-probabilities at the matrix's
output. They are those of labels that the original model draws itself, so the mean of the squared
gradient is the Fisher information: how much the answers change if this output changes a little.

A picture and the questions about it go through the original model, forward and backward, one part
of a block after another. The inputs of all parts are on the disk meanwhile, and each part is
computed again with gradients. Gradients reach activations only. What is found of a picture is kept
in a file, so a killed run continues after the last one:

    calibration/token_weights/N    squared gradients, one tensor per matrix and sample
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from cogvlm2_lite.engine.activations import Key
from cogvlm2_lite.engine.layer_major import LayerMajorWalk
from cogvlm2_lite.model.decoder import TokenEmbedding
from cogvlm2_lite.weights.slots import StoredWeight
from cogvlm2_lite.weights.writer import write_file_durably
from quantize.calibration.network import Network
from quantize.calibration.stages import group_numbers
from quantize.calibration.steps import RoundingStage, SharedInputs, rounding_stages

_ANSWER, _QUESTION = 4.0, 1.0
"""How much the log-probability of a drawn label counts in an answer, and in a question."""
_LEAST, _MOST = 1e-3, 50.0
"""Bounds of a squared gradient, as a multiple of the mean."""
_ROWS = 64
"""Positions whose logits are in memory at a time."""


class TokenWeights:
    """Computes and holds the weights of the tokens that rounding is fitted to.

    network   of the original weights, in float32
    held_out  numbers of the groups that rounding is not fitted to, which get no weights
    """

    def __init__(self, network: Network, folder: Path, held_out: frozenset[int]) -> None:
        self._network, self._folder = network, folder
        self._held_out = held_out
        self._means: dict[str, float] = {}
        self._file_of: dict[int, Path] = {}

    def compute(self) -> Iterator[tuple[int, int]]:
        """Compute what is missing; yield how many groups of samples are done, and of how many."""
        groups = self._groups
        self._folder.mkdir(parents=True, exist_ok=True)
        for number, (picture, samples) in enumerate(groups):
            file = self._folder / str(number)
            if not file.exists():
                # Weights and activations of `Calibrator.run` can't be used with gradients.
                with torch.inference_mode(False), torch.enable_grad():
                    found = self._squared_gradients(picture, samples)
                write_file_durably(file, save(found))
            if picture is not None:
                self._file_of[_tower(picture)] = file
            self._file_of |= dict.fromkeys(samples, file)
            yield number + 1, len(groups)
        shutil.rmtree(self._inputs_folder, ignore_errors=True)

    def of(self, stage: RoundingStage, shared: SharedInputs, key: Key) -> Tensor:
        """Return the weights of a sample's rows that reach some matrices, [rows] float32."""
        name = shared.linears[0].name
        if name not in self._means:
            found = [
                self._read(name, sample, stage)
                for group, (sample, _) in zip(stage.groups, stage.keys, strict=True)
                if group not in self._held_out
            ]
            squares = torch.cat(found)
            self._means[name] = float(squares.double().mean()) if len(squares) else 0.0
        return weights_of(self._read(name, key[0], stage), self._means[name])

    def _read(self, name: str, number: int, stage: RoundingStage) -> Tensor:
        owner = _tower(number) if stage.of_pictures else number
        with safe_open(self._file_of[owner], "pt") as content:
            found: Tensor = content.get_tensor(_name(name, number))
        return found

    @cached_property
    def _groups(self) -> list[tuple[int | None, list[int]]]:
        """Each picture and the samples about it, and all samples without a picture."""
        network, found = self._network, dict[int | None, list[int]]()
        for sample, (group, picture) in enumerate(
            zip(group_numbers(network), network.picture_of, strict=True)
        ):
            if group not in self._held_out:
                found.setdefault(picture, []).append(sample)
        return list(found.items())

    # --- forward and backward ---------------------------------------------------------------------

    @property
    def _inputs_folder(self) -> Path:
        return self._folder.with_name("token_weights_inputs")

    def _squared_gradients(self, picture: int | None, samples: Sequence[int]) -> dict[str, Tensor]:
        """Return the squared gradients of a picture and its samples by matrix and number."""
        inner = [] if picture is None else [(picture, 0)]
        keys = [(sample, 0) for sample in samples]
        stages = [
            replace(stage, keys=inner if stage.of_pictures else keys)
            for stage in rounding_stages(self._network)
            if inner or not stage.of_pictures
        ]
        store = _InputFiles(self._inputs_folder)
        walk = LayerMajorWalk(stages, self._network.load_weights, store)
        for number in walk.forward:
            with walk.visit(number) as visit, torch.no_grad():
                for key in visit.keys:
                    visit.advance(key)
        gradients = {key: self._at_the_end(store.read(len(stages), key), key) for key in keys}
        found: dict[str, Tensor] = {}
        for number in walk.backward:
            stage = stages[number]
            with walk.visit_backward(number) as visit:
                if isinstance(stage.piece, TokenEmbedding):
                    gradients = self._of_features(gradients, inner)
                elif number:
                    watched = _watch(stage)
                    for key in visit.keys:
                        x = visit.input(key)
                        assert x is not None
                        torch.autograd.backward(
                            stage.run(key, x.requires_grad_()), gradients.pop(key)
                        )
                        assert x.grad is not None
                        gradients[key] = x.grad
                        for name, squares in watched.taken():
                            found[_name(name, key[0])] = squares
        return found

    def _at_the_end(self, hidden: Tensor, key: Key) -> Tensor:
        """Return the gradient at the output of the last block."""
        head, tokens = self._network.parts.decoder.head, self._network.tokens[key[0]]
        shown = tokens.token_type_ids[0].nonzero()[0]
        first = int(shown[-1]) if len(shown) else 0
        chance = torch.Generator().manual_seed(key[0])
        gradient = torch.zeros_like(hidden)
        with self._network.load_weights(head):
            for begin in range(first, hidden.shape[1], _ROWS):
                rows = torch.arange(begin, min(begin + _ROWS, hidden.shape[1]))
                some = self._network.put(hidden[:, rows]).requires_grad_()
                logs = head(some)[0].log_softmax(-1)
                with torch.no_grad():
                    drawn = torch.multinomial(logs.exp().cpu(), 1, generator=chance)
                counts = torch.where(rows >= tokens.scored, _ANSWER, _QUESTION)
                own = logs.gather(1, drawn.to(logs.device))[:, 0]
                torch.autograd.backward((own * counts.to(own.device)).sum())
                assert some.grad is not None
                gradient[:, rows] = some.grad.cpu()
        return self._network.put(gradient)

    def _of_features(
        self, gradients: dict[Key, Tensor], pictures: Sequence[Key]
    ) -> dict[Key, Tensor]:
        """Return the gradient at a picture's features: the sum over the samples about it."""
        parts = []
        for (sample, _), gradient in gradients.items():
            types = self._network.tokens[sample].token_type_ids[0]
            parts.append(gradient[:, torch.from_numpy(types == 1)])
        return {key: torch.stack(parts).sum(dim=0) for key in pictures}


def weighing_bytes(network: Network) -> int:
    """Return the disk space that the weights need: the inputs of all parts for one picture and its
    samples, or for all samples without one, and what is found of all of them."""
    words: dict[int | None, int] = {}
    for tokens, picture in zip(network.tokens, network.picture_of, strict=True):
        words[picture] = words.get(picture, 0) + tokens.input_ids.size
    config, vision = network.config, network.config.vision
    tower = vision.num_positions * vision.hidden_size * vision.num_hidden_layers
    decoder = max(words.values()) * config.hidden_size * config.num_hidden_layers
    # A block stores 1, 2 and 1 tensors of its width, and has a number for each of four products.
    numbers = 4 * (tower * bool(network.pictures) + decoder)
    numbers += 4 * len(network.pictures) * vision.num_positions * vision.num_hidden_layers
    numbers += 4 * sum(words.values()) * config.num_hidden_layers
    return 4 * numbers


def weights_of(squares: Tensor, mean: float) -> Tensor:
    """Return the weights of tokens from their squared gradients and the mean over all tokens.

    The square root gives tokens of little influence a part in the fit, too.
    """
    if not 0 < mean < float("inf"):
        return torch.ones_like(squares)
    return (squares / mean).clamp(_LEAST, _MOST).sqrt()


def _name(matrix: str, number: int) -> str:
    return f"{matrix} {number}"


def _tower(picture: int) -> int:
    """Return the key of a picture among the numbers of samples."""
    return -1 - picture


@dataclass(kw_only=True)
class _WatchedWeight:
    """A stored weight that remembers the squared gradients at its outputs."""

    inner: StoredWeight
    squares: Tensor | None = field(default=None, init=False)

    @property
    def kind(self) -> str:
        return self.inner.kind

    @property
    def nbytes(self) -> int:
        return self.inner.nbytes

    def multiply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Multiply as the inner weight does."""
        return self.inner.multiply(x, bias)

    def multiply_in_bytes(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Multiply as the inner weight does."""
        return self.inner.multiply_in_bytes(x, bias)

    def multiply_each(self, xs: Sequence[Tensor], bias: Tensor | None) -> list[Tensor]:
        """Multiply as the inner weight does."""
        return self.inner.multiply_each(xs, bias)

    def multiply_transposed(self, y: Tensor) -> Tensor:
        """Remember the squared length of each row of y, and multiply as the inner weight does."""
        self.squares = y.square().sum(dim=-1).flatten().cpu()
        return self.inner.multiply_transposed(y)

    def dequantize(self, to: torch.dtype) -> Tensor:
        """Return the inner weight, dequantized."""
        return self.inner.dequantize(to)


class _Watch:
    """The watched weights of a stage, by the first matrix of those that share their inputs."""

    def __init__(self, weights: dict[str, list[_WatchedWeight]]) -> None:
        self._weights = weights

    def taken(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the squared gradients of the last backward pass, summed over shared inputs."""
        for name, weights in self._weights.items():
            squares = [each.squares for each in weights if each.squares is not None]
            yield name, torch.stack(squares).sum(dim=0) if squares else torch.empty(0)
            for each in weights:
                each.squares = None


def _watch(stage: RoundingStage) -> _Watch:
    """Put weights that remember gradients into the slots of a stage."""
    found: dict[str, list[_WatchedWeight]] = {}
    for shared in (each for together in stage.rounds for each in together):
        for linear in shared.linears:
            assert linear.stored is not None
            weight = _WatchedWeight(inner=linear.stored)
            linear.stored = weight
            found.setdefault(shared.linears[0].name, []).append(weight)
    return _Watch(found)


class _InputFiles:
    """The inputs of all stages, float32, in files until the backward walk has used them."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.done = 0
        self._folder = folder
        self._shapes: dict[tuple[int, Key], torch.Size] = {}

    @property
    def held_bytes(self) -> int:
        return sum(4 * shape.numel() for shape in self._shapes.values())

    def write(self, stage: int, key: Key, activation: Tensor) -> None:
        """Store an input of a stage."""
        self._shapes[stage, key] = activation.shape
        activation.detach().float().cpu().numpy().tofile(self._file(stage, key))

    def read(self, stage: int, key: Key) -> Tensor:
        """Return an input of a stage."""
        found = torch.from_numpy(np.fromfile(self._file(stage, key), dtype=np.float32))
        return found.view(self._shapes[stage, key])

    def finish(self, done: int) -> None:
        """Count stages as finished; their inputs are kept."""
        self.done = done

    def forget(self, stage: int) -> None:
        """Delete the inputs of a stage."""
        for each, key in [place for place in self._shapes if place[0] == stage]:
            self._file(each, key).unlink()
            del self._shapes[each, key]

    def _file(self, stage: int, key: Key) -> Path:
        return self._folder / f"{stage}-{key[0]}"
