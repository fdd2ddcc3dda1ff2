"""What to expect of a training run: bytes, operations and seconds, before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cogvlm2_lite.architectures.architecture import ModelConfig, Part, expected_tensors
from cogvlm2_lite.finetune.settings import PRESETS, TrainingSettings
from cogvlm2_lite.memory.training import Training
from cogvlm2_lite.weights.adapter_names import ALL_ROWS


@dataclass(frozen=True, kw_only=True)
class TalkSize:
    """The size of what is computed together: the answers about one picture, packed behind it.

    tokens       of all questions, histories and answers, without bos and the picture
    labels       positions whose next token is learnt
    answers      samples that are packed
    has_picture  False: a single sequence, with its bos among the tokens
    """

    tokens: int
    labels: int
    answers: int = 1
    has_picture: bool = True


def training_of(
    config: ModelConfig, settings: TrainingSettings, talks: Sequence[TalkSize], *, pictures: int
) -> Training:
    """Return the facts from which the memory of a run is planned.

    talks     of the run: learnt, replayed and held out
    pictures  different ones among them

    A step has at most `settings.step` talks, because each has an answer; the largest step is taken
    to have the largest ones.
    """
    all_rows = settings.acts_on == ALL_ROWS
    shown = any(talk.has_picture for talk in talks)
    prefix = 1 + config.vision.image_tokens if shown else 0
    sizes = sorted(
        (talk.tokens + (prefix if all_rows and talk.has_picture else 0) for talk in talks),
        reverse=True,
    )
    specs = expected_tensors(config)
    numbers: dict[tuple[Part, int | None], int] = {}
    largest = 0
    for name, (rows, columns) in settings.matrices(config).items():
        # Both experts of a decoder block are loaded together.
        part = specs[name].part
        group = Part.LANGUAGE_EXPERT if part is Part.VISION_EXPERT else part
        key = (group, specs[name].block)
        numbers[key] = numbers.get(key, 0) + settings.rank * (rows + columns)
        largest = max(largest, settings.rank * max(rows, columns))
    return Training(
        tokens=sizes[0],
        step_tokens=sum(sizes[: settings.step]),
        step_pictures=min(settings.step, sum(talk.has_picture for talk in talks)),
        pictures=pictures,
        prefix=0 if all_rows else prefix,
        numbers=sum(numbers.values()),
        block_numbers=max(numbers.values()),
        matrix_numbers=largest,
        vision_expert=all_rows and shown,
        tower=shown and Part.VISION in PRESETS[settings.preset].parts,
    )
