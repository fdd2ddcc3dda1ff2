"""Measures a model on rows that an adapter did not learn: loss, and answers that are right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cogvlm2_lite
from cogvlm2_lite.config import read_config
from cogvlm2_lite.devices import choose_compute
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.events import Finished
from cogvlm2_lite.finetune.data import Example, Pictures, make_examples
from cogvlm2_lite.finetune.network import LearningNetwork
from cogvlm2_lite.finetune.samples import TrainedPair
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.model.rotary import RopeMode
from cogvlm2_lite.rows.labels import Labeller
from cogvlm2_lite.rows.read import read_rows
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.weights.adapter import Adapter
from cogvlm2_lite.weights.adapter_names import ALL_ROWS
from cogvlm2_lite.weights.catalog import Catalog

_TOGETHER = 16
"""Answers whose loss is computed together: their activations are in memory."""
_ANSWER_TOKENS = 128


def read_examples(model: Path, data: Path, adapter: Adapter, most: int) -> list[Example]:
    """Return the first answers of DATA, in the form that the adapter was trained with.

    Raises UsageError if there are none.
    """
    config = read_config(model)
    labeller = Labeller(
        Tokenizer.from_folder(model), config, template=adapter.template, space=adapter.answer_space
    )
    made = make_examples(read_rows(data).rows, labeller, Pictures(config.vision, upright=True))
    examples: list[Example] = []
    for each in made:
        if isinstance(each, Example):
            examples.append(each)
        if len(examples) == most:
            break
    if not examples:
        raise UsageError(
            "{file} has no rows that can be used.",
            hint="Rows need an answer, and a picture that can be opened.",
            file=data,
        )
    return examples


def mean_loss(model: Path, examples: Sequence[Example], adapter: Adapter | None) -> float:
    """Return the mean loss over the answers' tokens, computed on the CPU."""
    compute = choose_compute("cpu", "auto")
    pairs = {} if adapter is None else adapter.pairs
    network = LearningNetwork(
        Catalog.open(model, read_config(model)),
        {n: TrainedPair(down=p.down, up=p.up * p.scale) for n, p in pairs.items()},
        scale=1.0,
        acts_on=ALL_ROWS if adapter is None else adapter.acts_on,
        device=compute.device,
        dtype=compute.dtype,
        rope=RopeMode("reference"),
    )
    total, count = 0.0, 0
    for first in range(0, len(examples), _TOGETHER):
        samples = [example.sample for example in examples[first : first + _TOGETHER]]
        total += sum(network.losses(samples))
        count += sum(len(sample.label_positions) for sample in samples)
    return total / count


def answers(
    model: Path,
    examples: Sequence[Example],
    adapter: Path | None,
    template: str | None,
    *,
    upright: bool = True,
) -> Iterator[str]:
    """Yield the model's own answer to the question of each example."""
    loaded = cogvlm2_lite.load(model, device="cpu", adapter=adapter, any_base=True)
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
        yield last.text.strip()
