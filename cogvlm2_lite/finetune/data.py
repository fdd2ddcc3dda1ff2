"""The data of one run: samples with identified pictures, learnt or held out."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cogvlm2_lite.architectures.architecture import VisionConfig
from cogvlm2_lite.errors import ImageError, TooManyPixelsError, UsageError
from cogvlm2_lite.finetune.samples import TrainingPicture, TrainingSample
from cogvlm2_lite.inputs.image import OpenedImage, open_image, pixel_values
from cogvlm2_lite.inputs.limits import ImageLimits
from cogvlm2_lite.rows.labels import NO_LABEL, Labelled, Labeller
from cogvlm2_lite.rows.read import Reason, Row, Rows, Skipped

_MOST_HELD_OUT = 500
"""Held-out rows at most, without a number or file given."""
_LIMITS = ImageLimits(max_pixels=89_000_000)
"""Pictures for training are smaller than those for questions: each of thousands is decoded."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One answer to be learnt or held out.

    row     the row it comes from, for messages and for asking the question
    turn    number of the answer in its conversation, from 1
    sample  its tokens
    """

    row: Row
    turn: int
    sample: TrainingSample

    @property
    def question(self) -> str:
        return self.row.turns[self.turn - 1].question.strip()

    @property
    def answer(self) -> str:
        return self.row.turns[self.turn - 1].answer.strip()

    @property
    def history(self) -> list[tuple[str, str]]:
        """Past questions and answers."""
        past = self.row.turns[: self.turn - 1]
        return [(turn.question.strip(), turn.answer.strip()) for turn in past]

    @property
    def group(self) -> str:
        """The picture, or for rows without one their first question: never on both sides."""
        if self.sample.picture is not None:
            return self.sample.picture.key
        return "text " + hashlib.sha256(self.row.turns[0].question.strip().encode()).hexdigest()


class Pictures:
    """Opens the pictures of rows and identifies them by their decoded pixels.

    A file is decoded once for its identity and again when its pixels are needed.
    """

    def __init__(self, vision: VisionConfig, *, upright: bool) -> None:
        self._vision, self._upright = vision, upright
        self._known: dict[Path | bytes, TrainingPicture] = {}

    def picture(self, source: Path | bytes) -> TrainingPicture:
        """Return a picture. Raises ImageError."""
        if source not in self._known:

            def pixels() -> torch.Tensor:
                return torch.from_numpy(pixel_values(self._open(source), self._vision))

            self._known[source] = TrainingPicture(key=self._open(source).sha256, pixels=pixels)
        return self._known[source]

    def _open(self, source: Path | bytes) -> OpenedImage:
        return open_image(source, upright=self._upright, limits=_LIMITS)


def make_examples(
    rows: Iterable[Row], labeller: Labeller, pictures: Pictures
) -> Iterator[Example | Skipped]:
    """Yield an example for each trained answer, or why it is skipped.

    A conversation that is there twice about the same picture, under any name, counts once.
    """
    seen: set[tuple[object, ...]] = set()
    for row in rows:
        reason, detail, picture = None, "", None
        try:
            picture = None if row.picture is None else pictures.picture(row.picture)
        except TooManyPixelsError as error:
            reason, detail = Reason.PIXELS, str(error)
        except ImageError as error:
            reason, detail = Reason.UNREADABLE, str(error)
        else:
            content = (None if picture is None else picture.key, row.turns)
            reason = Reason.TWICE if content in seen else None
            seen.add(content)
        if reason is not None:
            yield Skipped(source=row.source, line=row.line, reason=reason, detail=detail)
            continue
        for made in labeller.samples(row.turns, has_picture=picture is not None):
            if isinstance(made, tuple):
                turn, reason = made
                yield Skipped(
                    source=row.source, line=row.line, reason=reason, detail=f"answer {turn}"
                )
            else:
                yield Example(row=row, turn=made.turn, sample=_sample(made, picture))


def _sample(made: Labelled, picture: TrainingPicture | None) -> TrainingSample:
    return TrainingSample(
        input_ids=torch.from_numpy(made.input_ids),
        token_type_ids=torch.from_numpy(made.token_type_ids),
        labels=torch.from_numpy(made.labels),
        picture=picture,
    )


def split(
    examples: Sequence[Example], held_out: str, seed: int
) -> tuple[list[Example], list[Example]]:
    """Return examples to learn from and held-out ones; a picture is on one side only.

    held_out  "10%", a number of answers, or "0"

    Raises UsageError for another word, or if nothing is left to learn from.
    """
    wanted = _wanted(held_out, len(examples))
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.group, []).append(example)
    order = sorted(groups, key=lambda key: hashlib.sha256(f"{seed}|{key}".encode()).digest())
    taken: list[Example] = []
    for key in _pictures_first(order, groups):
        if len(taken) >= wanted:
            break
        # A share is limited; the first picture is taken in any case.
        if not taken or not held_out.endswith("%") or _fits(taken, groups[key]):
            taken += groups.pop(key)
    learnt = [example for example in examples if example.group in groups]
    if not learnt:
        raise UsageError(
            "All {count} answers are held out, so there is nothing to learn from.",
            hint="Choose a smaller --held-out, or 0 to hold out none.",
            count=len(examples),
        )
    return learnt, taken


def _pictures_first(order: list[str], groups: Mapping[str, list[Example]]) -> list[str]:
    """Return the order with a picture at its beginning, so that at least one is held out."""
    first = next((key for key in order if groups[key][0].sample.picture is not None), None)
    return order if first is None else [first, *(key for key in order if key != first)]


def _fits(taken: Sequence[Example], more: Sequence[Example]) -> bool:
    return len(taken) + len(more) <= _MOST_HELD_OUT


def is_amount(held_out: str) -> bool:
    """Return whether a word is a share such as "10%", or a number."""
    return re.fullmatch(r"\d{1,9}|\d{1,2}(\.\d{1,9})?%", held_out, re.ASCII) is not None


def _wanted(held_out: str, count: int) -> int:
    if not is_amount(held_out):
        raise UsageError(
            "--held-out must be a share such as 10%, a number of answers or 0, not {value}.",
            value=held_out,
        )
    if not held_out.endswith("%"):
        return int(held_out)
    share = float(held_out.removesuffix("%"))
    return min(max(int(count * share / 100), 1 if share else 0), _MOST_HELD_OUT)


def talks(examples: Sequence[Example]) -> list[list[Example]]:
    """Return the examples about each picture together, in their order."""
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.group, []).append(example)
    return list(groups.values())


def steps_of_epoch(
    groups: Sequence[Sequence[Example]], answers: int, seed: int, epoch: int
) -> list[list[Example]]:
    """Return the examples of each step of an epoch: whole pictures until enough answers.

    The order depends on nothing but the seed and the epoch, so a resumed run has the same.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    steps: list[list[Example]] = []
    current: list[Example] = []
    for index in torch.randperm(len(groups), generator=generator).tolist():
        current += groups[index]
        if len(current) >= answers:
            steps.append(current)
            current = []
    if current:
        steps.append(current)
    return steps


def check_skipped(rows: Rows, skipped: Sequence[Skipped], *, allowed: bool) -> None:
    """Raise UsageError if more than a tenth of the rows can't be used."""
    total = len(rows.rows) + len(rows.skipped)
    # The first reason of each row: a conversation may have several answers that can't be used.
    first: dict[tuple[str, int], Reason] = {}
    for each in skipped:
        first.setdefault((each.source, each.line), each.reason)
    lost = [reason for reason in first.values() if reason.is_loss]
    if allowed or len(lost) <= total / 10:
        return
    worst = Counter(lost).most_common(5)
    raise UsageError(
        "{count} of {total} rows can't be used: {reasons}.",
        hint="Correct them, or use --allow-skipped to train without them.",
        count=len(lost),
        total=total,
        reasons=", ".join(f"{count} {reason.value}" for reason, count in worst),
    )


def first_tokens(example: Example, count: int = 2) -> TrainingSample:
    """Return a sample of which only the first trained tokens count."""
    sample = example.sample
    labels = sample.labels.clone()
    places = (labels[0] != NO_LABEL).nonzero().squeeze(1)[count:]
    labels[0, places] = NO_LABEL
    return TrainingSample(
        input_ids=sample.input_ids,
        token_type_ids=sample.token_type_ids,
        labels=labels,
        picture=sample.picture,
    )
