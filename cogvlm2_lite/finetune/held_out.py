"""Measures a model on rows that an adapter did not learn: loss, and answers that are right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from cogvlm2_lite.config import read_config
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.engine.model import Model, load_with
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.events import Finished
from cogvlm2_lite.finetune.data import Example, Pictures, make_examples
from cogvlm2_lite.finetune.network import LearningNetwork
from cogvlm2_lite.finetune.samples import TrainedPair, TrainingSample
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.model.rotary import RopeMode
from cogvlm2_lite.rows.labels import Labeller
from cogvlm2_lite.rows.read import Row, read_rows
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.weights.adapter import Adapter
from cogvlm2_lite.weights.adapter_choice import AdapterChoice
from cogvlm2_lite.weights.adapter_names import ALL_ROWS
from cogvlm2_lite.weights.catalog import Catalog

_TOGETHER = 16
"""Answers whose loss is computed together: their activations are in memory."""
_ANSWER_TOKENS = 128


def read_examples(model: Path, data: Path, adapter: Adapter, most: int) -> list[Example]:
    """Return the first answers of DATA, in the form that the adapter was trained with.

    Raises UsageError if there are none.
    """
    examples = examples_of(model, read_rows(data).rows, adapter, most)
    if not examples:
        raise UsageError(
            "{file} has no rows that can be used.",
            hint="Rows need an answer, and a picture that can be opened.",
            file=data,
        )
    return examples


def examples_of(
    model: Path, rows: Iterable[Row], adapter: Adapter, most: int, *, upright: bool = True
) -> list[Example]:
    """Return the first answers of rows, in the form that the adapter was trained with."""
    config = read_config(model)
    labeller = Labeller(
        Tokenizer.from_folder(model), config, template=adapter.template, space=adapter.answer_space
    )
    made = make_examples(rows, labeller, Pictures(config.vision, upright=upright))
    return list(islice((each for each in made if isinstance(each, Example)), most))


def mean_loss(model: Path, examples: Sequence[Example], adapter: Adapter | None) -> float:
    """Return the mean loss over the answers' tokens, computed on the CPU."""
    acts_on = ALL_ROWS if adapter is None else adapter.acts_on
    network = _network(model, adapter, acts_on, examples)
    total, count = 0.0, 0
    for samples in _groups(examples):
        total += sum(network.losses(samples))
        count += sum(len(sample.label_positions) for sample in samples)
    return total / count


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A model compared with another one at every token of some answers.

    answers      number of them so far
    tokens       of these answers
    first_loss   mean loss per token
    second_loss  the same of the other model
    kl           mean KL(first || second), nats per token
    same         share of the tokens at which both have the same first choice
    """

    answers: int
    tokens: int
    first_loss: float
    second_loss: float
    kl: float
    same: float


def compare(
    first: tuple[Path, Adapter | None], second: Path, examples: Sequence[Example]
) -> Iterator[Compared]:
    """Yield how a model with an adapter and another model without one differ.

    Computed on the CPU, a few answers at a time; the last value is about all of them.
    """
    model, adapter = first
    acts_on = ALL_ROWS if adapter is None else adapter.acts_on
    # With equal rows to act on, both compute the tokens in the same order.
    networks = (
        _network(model, adapter, acts_on, examples),
        _network(second, None, acts_on, examples),
    )
    totals = torch.zeros(5, dtype=torch.float64)
    done = 0
    for samples in _groups(examples):
        for (labels, ours), (_, theirs) in zip(*(n.scores(samples) for n in networks), strict=True):
            totals += _totals(labels, ours.double(), theirs.double())
        done += len(samples)
        tokens, first_loss, second_loss, kl, same = totals.tolist()
        yield Compared(
            answers=done,
            tokens=int(tokens),
            first_loss=first_loss / tokens,
            second_loss=second_loss / tokens,
            kl=max(kl / tokens, 0.0),
            same=same / tokens,
        )


def _totals(labels: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the sums over tokens: their number, both losses, KL, and equal first choices."""
    same = (first.argmax(-1) == second.argmax(-1)).sum()
    losses = [F.cross_entropy(logits, labels, reduction="sum") for logits in (first, second)]
    kl = F.kl_div(second.log_softmax(-1), first.log_softmax(-1), reduction="sum", log_target=True)
    return torch.stack([torch.tensor(float(len(labels))), *losses, kl, same]).double()


def _network(
    model: Path, adapter: Adapter | None, acts_on: str, examples: Sequence[Example]
) -> LearningNetwork:
    compute = choose_compute("cpu", "auto")
    pairs = {} if adapter is None else adapter.pairs
    return LearningNetwork.for_samples(
        Catalog.open(model, read_config(model)),
        {n: TrainedPair(down=p.down, up=p.up * p.scale) for n, p in pairs.items()},
        [example.sample for example in examples],
        scale=1.0,
        acts_on=acts_on,
        compute=compute,
        rope=RopeMode("reference"),
    )


def _groups(examples: Sequence[Example]) -> Iterator[list[TrainingSample]]:
    for begin in range(0, len(examples), _TOGETHER):
        yield [example.sample for example in examples[begin : begin + _TOGETHER]]


def answers(
    model: Path,
    examples: Sequence[Example],
    adapters: Sequence[AdapterChoice],
    template: str | None,
    *,
    upright: bool = True,
) -> Iterator[str]:
    """Yield the model's own answer to the question of each example, computed on the CPU.

    adapters  of one name, which act together; empty: the base model answers
    """
    loaded = load_with(
        LoadOptions(folder=model, device="cpu", adapters=tuple(adapters), any_base=True)
    )
    for last in finished(loaded, examples, template, upright=upright):
        yield last.text.strip()


def finished(
    loaded: Model, examples: Sequence[Example], template: str | None, *, upright: bool = True
) -> Iterator[Finished]:
    """Yield how the answer to the question of each example ended."""
    sampling = Sampling(max_new_tokens=_ANSWER_TOKENS, repetition_guard=False)
    for example in examples:
        *_, last = loaded.answer(
            example.question,
            example.row.picture,
            example.history,
            sampling=sampling,
            template=template,
            upright=upright,
        )
        assert isinstance(last, Finished)
        yield last
