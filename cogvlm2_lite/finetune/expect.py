"""What to expect of a training run: bytes, operations and seconds, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cogvlm2_lite.architectures.architecture import ModelConfig, Part, expected_tensors
from cogvlm2_lite.finetune.settings import PRESETS, TrainingSettings
from cogvlm2_lite.memory.inventory import UnitKey
from cogvlm2_lite.memory.plan import DeviceBudget, MemoryPlan, Offload, Workload, plan_memory
from cogvlm2_lite.memory.training import PACK_ROWS, TALK_ROWS, Training
from cogvlm2_lite.weights.adapter_names import ALL_ROWS


@dataclass(frozen=True, kw_only=True)
class TalkSize:
    """The size of a conversation: the answers about one picture.

    ends         tokens of each answer with its question and past, without bos and the picture
    labels       positions whose next token is learnt
    has_picture  False: one answer, with its bos among the tokens
    """

    ends: tuple[int, ...]
    labels: int
    has_picture: bool = True

    @property
    def tokens(self) -> int:
        """Tokens behind the picture."""
        return sum(self.ends)

    def rows(self, prefix: int) -> list[int]:
        """Return the rows of the parts that it is split into; a part is in one pack.

        prefix  rows of bos and the picture that are in each part; 0: in none
        """
        shared, packs = prefix if self.has_picture else 0, [0]
        for end in self.ends:
            if packs[-1] and shared + packs[-1] + end > TALK_ROWS:
                packs.append(0)
            packs[-1] += end
        return [shared + rows for rows in packs]


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
    packs = [talk.rows(prefix if all_rows else 0) for talk in talks]
    totals = sorted((sum(rows) for rows in packs), reverse=True)
    step_tokens = sum(totals[: settings.step])
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
        tokens=max(min(PACK_ROWS, step_tokens), max(max(rows) for rows in packs)),
        step_tokens=step_tokens,
        step_pictures=min(settings.step, sum(talk.has_picture for talk in talks)),
        pictures=pictures,
        prefix=0 if all_rows else prefix,
        numbers=sum(numbers.values()),
        block_numbers=max(numbers.values()),
        matrix_numbers=largest,
        vision_expert=all_rows and shown,
        tower=shown and Part.VISION in PRESETS[settings.preset].parts,
    )


def plan_training(
    config: ModelConfig,
    sizes: Mapping[UnitKey, int],
    budget: DeviceBudget,
    training: Training,
    *,
    itemsize: int,
    offload: Offload = Offload.AUTO,
) -> MemoryPlan:
    """Return the plan of a run on one device.

    sizes     bytes in memory of every unit, as for `plan_memory`
    itemsize  bytes of the compute dtype

    Raises DoesNotFitError as `plan_memory` does.
    """
    workload = Workload.of_training(training, itemsize=itemsize)
    return plan_memory(config, sizes, [budget], workload, offload=offload)
