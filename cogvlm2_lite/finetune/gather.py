"""The rows of a task as examples: in both forms of answers, learnt, held out or replayed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.finetune.data import Example, Pictures, check_skipped, make_examples
from cogvlm2_lite.finetune.sides import Sides, divide, held_out_file
from cogvlm2_lite.finetune.task import TrainingTask
from cogvlm2_lite.rows.labels import Encodes, Labeller
from cogvlm2_lite.rows.read import Row, Rows, Skipped, read_rows
from cogvlm2_lite.weights.writer import write_file_durably

Tell = Callable[[int, int], None]
"""Is told how many rows of how many are read."""


def tell_nobody(done: int, total: int) -> None:
    """Do nothing."""


class Gathered:
    """The rows of a task as examples, with and without a space before answers.

    Raises UsageError if too many rows can't be used, or none can, or if nothing is left to learn.
    """

    def __init__(
        self, task: TrainingTask, config: ModelConfig, tokenizer: Encodes, tell: Tell
    ) -> None:
        self._task = task
        self._without, self._with_space = (
            Labeller(
                tokenizer,
                config,
                template=task.template,
                space=space,
                max_tokens=task.max_tokens,
            )
            for space in (False, True)
        )
        self._file = held_out_file(task.held_out)
        self._pictures = Pictures(config.vision, upright=task.upright)
        rows = read_rows(task.data, form=task.form, labels=task.labels, ask=task.ask)
        paths = (self._file, task.replay)
        self._others = [
            None if path is None else read_rows(path, labels=task.labels, ask=task.ask)
            for path in paths
        ]
        self.form, self.remarks = rows.form, rows.remarks
        self.plain, self.skipped = self._usable(rows, task.data, self._without, tell)
        self.spaced, _ = _examples(rows.rows, self._with_space, self._pictures)
        more: list[list[Example]] = []
        for other, path in zip(self._others, paths, strict=True):
            made: list[Example] = []
            lost: list[Skipped] = []
            if other is not None and path is not None:
                made, lost = self._usable(other, path, self._with_space, tell)
            more.append(made)
            self.skipped += lost
        self.all = [*self.spaced, *more[0], *more[1]]
        # Nothing to learn from is refused before any weights are loaded.
        self._divide(self.plain, None if self._file is None else more[0], more[1])

    def sides(self, *, space: bool) -> Sides:
        """Return what is learnt, held out and replayed, in one of the forms."""
        labeller = self._with_space if space else self._without
        measured, replay = (
            None if other is None else _examples(other.rows, labeller, self._pictures)[0]
            for other in self._others
        )
        task = self._task
        replay = _share_of(replay or [], task.replay_share, task.settings.seed)
        return self._divide(self.spaced if space else self.plain, measured, replay)

    def _divide(
        self,
        examples: Sequence[Example],
        measured: Sequence[Example] | None,
        replay: Sequence[Example],
    ) -> Sides:
        task = self._task
        return divide(examples, measured, replay, task.held_out, task.settings.seed)

    def _usable(
        self, rows: Rows, file: Path, labeller: Labeller, tell: Tell
    ) -> tuple[list[Example], list[Skipped]]:
        """Return the examples of rows, and what is skipped of them.

        Raises UsageError if there are none, or if too many are skipped.
        """
        made, skipped = _examples(rows.rows, labeller, self._pictures, tell)
        skipped = [*rows.skipped, *skipped]
        check_skipped(rows, skipped, allowed=self._task.allow_skipped)
        if not made:
            raise UsageError(
                "{file} has no rows that can be used.",
                hint="Rows need an answer, and a picture that can be opened.",
                file=file,
            )
        return made, skipped


def _examples(
    rows: Sequence[Row], labeller: Labeller, pictures: Pictures, tell: Tell = tell_nobody
) -> tuple[list[Example], list[Skipped]]:
    made: list[Example] = []
    skipped: list[Skipped] = []
    for each in make_examples(_counted(rows, tell), labeller, pictures):
        if isinstance(each, Example):
            made.append(each)
        else:
            skipped.append(each)
    return made, skipped


def _counted(rows: Sequence[Row], tell: Tell) -> Iterator[Row]:
    for number, row in enumerate(rows, 1):
        yield row
        tell(number, len(rows))


def _share_of(examples: Sequence[Example], share: float, seed: int) -> list[Example]:
    """Return the examples of a share of the pictures."""
    groups = sorted({example.group for example in examples})
    groups.sort(key=lambda key: hashlib.sha256(f"replay {seed}|{key}".encode()).digest())
    kept = set(groups[: round(len(groups) * share)])
    return [example for example in examples if example.group in kept]


def fingerprint(learnt: Sequence[Example], held_out: Sequence[Example]) -> str:
    """Return a hash of all tokens, labels and pictures, in their order."""
    digest = hashlib.sha256()
    for name, examples in (("learnt", learnt), ("held out", held_out)):
        digest.update(name.encode())
        for example in examples:
            sample = example.sample
            key = "" if sample.picture is None else sample.picture.key
            digest.update(f"{key} {sample.input_ids.tolist()} {sample.labels.tolist()}".encode())
    return digest.hexdigest()


def write_skipped(file: Path, skipped: Sequence[Skipped]) -> None:
    """Write which rows are not used, and why."""
    lines = [
        json.dumps(
            {
                "source": each.source,
                "line": each.line,
                "reason": each.reason.value,
                "detail": each.detail,
            },
            ensure_ascii=False,
        )
        for each in skipped
    ]
    write_file_durably(file, "".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
