"""Compare a merged model with the adapter next to its base, on held-out rows."""

from __future__ import annotations

import io
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from cogvlm2_lite.config import read_config
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.finetune.data import Example
from cogvlm2_lite.finetune.held_out import (
    Compared,
    answers,
    compare,
    examples_of,
    mean_loss,
    read_examples,
)
from cogvlm2_lite.finetune.report import Answers, exact
from cogvlm2_lite.rows.held_out import NAME, read_held_out
from cogvlm2_lite.rows.read import Row, Turn
from cogvlm2_lite.samples.drawn import drawn_samples
from cogvlm2_lite.samples.samples import Sample
from cogvlm2_lite.text import Text
from cogvlm2_lite.weights.adapter import Adapter
from cogvlm2_lite.weights.adapter_names import ALL_ROWS
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.identity import source_fingerprint
from quantize.events import Event, MergeChecked, MergeChecking
from quantize.merge import Merge

BUILT_IN, NO_CHECK = "built-in", "none"
"""Words for --check instead of data."""

_MOST_LOSSES, _MOST_ANSWERS = 64, 16
_MOST_BY_DEFAULT = 16
"""Answers of a check that nobody asked for."""


@dataclass(frozen=True, kw_only=True)
class MergeCheck:
    """The rows of a check, read before the work begins.

    data      where the rows are from, for the user
    examples  answers whose losses are compared
    original  16-bit folder that the adapter might be merged into instead of the model
    """

    model: Path
    merge: Merge
    adapter: Adapter
    data: str
    examples: list[Example] = field(repr=False)
    original: Path | None = None

    @classmethod
    def read(
        cls, model: Path, merge: Merge, data: str | None, original: Path | None = None
    ) -> MergeCheck | None:
        """Read the adapter and the rows; None if there is nothing to compare on.

        data  a file or folder, "built-in" for drawn pictures, "none"; None: the rows that the
              training held out, if they are there

        Raises UsageError, AdapterError or CheckpointError.
        """
        adapter = merge.read(Catalog.open(model, read_config(model)))
        if original is not None:
            _check_original(model, original)
        if data == BUILT_IN:
            rows = [_row(number, s) for number, s in enumerate(drawn_samples(_MOST_LOSSES), 1)]
            examples = examples_of(model, rows, adapter, _MOST_LOSSES)
        elif data is None:
            held_out = merge.adapters[0].folder / "training" / NAME
            rows, upright = read_held_out(held_out)
            examples = (
                examples_of(model, rows, adapter, _MOST_BY_DEFAULT, upright=upright) if rows else []
            )
            data = str(held_out)
        elif data == NO_CHECK:
            examples = []
        else:
            examples = read_examples(model, Path(data), adapter, _MOST_LOSSES)
        if original is not None and not examples:
            raise UsageError(
                "--original needs rows on which the two models are compared.",
                hint="Add --check with rows that were held out, or --check built-in.",
                param="original",
            )
        if not examples:
            return None
        return cls(
            model=model,
            merge=merge,
            adapter=adapter,
            data=data,
            examples=examples,
            original=original,
        )

    @property
    def note(self) -> Text:
        """A sentence for the plan."""
        return Text(
            "Afterwards, {count} answers of {data} are compared on the CPU with those of MODEL and "
            "the adapter; --check none skips this.",
            count=len(self.examples),
            data=self.data,
        )

    def run(self, merged: Path) -> Generator[Event, None, None]:
        """Compare; yields MergeChecking and, at the end, MergeChecked."""
        asked = self.examples[:_MOST_ANSWERS]
        everywhere = self.adapter.acts_on != ALL_ROWS
        total = len(self.examples) * (1 + everywhere + (self.original is not None)) + 2 * len(asked)
        clock = _Clock(total)
        # 1  Losses, KL and first choices of both, token by token.
        last: Compared | None = None
        for last in compare((self.model, self.adapter), merged, self.examples):
            yield clock.at(last.answers)
        assert last is not None
        # 2  The adapter on all tokens, and in the 16-bit model.
        on_all_rows, done = replace(self.adapter, acts_on=ALL_ROWS), last.answers
        all_rows_loss = original_loss = None
        if everywhere:
            all_rows_loss = mean_loss(self.model, self.examples, on_all_rows)
            done += len(self.examples)
            yield clock.at(done)
        if self.original is not None:
            original_loss = mean_loss(self.original, self.examples, on_all_rows)
            done += len(self.examples)
            yield clock.at(done)
        # 3  Answers of both.
        texts: list[list[str]] = []
        for model, adapters in ((self.model, self.merge.adapters), (merged, ())):
            texts.append([])
            for text in answers(model, asked, adapters, self.adapter.template):
                texts[-1].append(text)
                done += 1
                yield clock.at(done)
        given = _pairs(asked, texts)
        yield MergeChecked(
            data=self.data,
            answers=last.answers,
            tokens=last.tokens,
            adapter_loss=round(last.first_loss, 6),
            merged_loss=round(last.second_loss, 6),
            kl=round(last.kl, 8),
            same_first=round(last.same, 6),
            all_rows_loss=None if all_rows_loss is None else round(all_rows_loss, 6),
            original_loss=None if original_loss is None else round(original_loss, 6),
            original=None if self.original is None else str(self.original),
            asked=len(asked),
            adapter_right=exact(given, after=False),
            merged_right=exact(given, after=True),
        )


class _Clock:
    """Estimates the time that is left."""

    def __init__(self, total: int) -> None:
        self._total, self._started = total, time.monotonic()

    def at(self, done: int) -> MergeChecking:
        spent = time.monotonic() - self._started
        left = spent / done * (self._total - done)
        return MergeChecking(done=done, total=self._total, seconds_left=round(left, 1))


def _pairs(asked: Sequence[Example], texts: Sequence[Sequence[str]]) -> list[Answers]:
    return [
        Answers(question=e.question, expected=e.answer, before=beside, after=after)
        for e, beside, after in zip(asked, *texts, strict=True)
    ]


def _row(number: int, sample: Sample) -> Row:
    """Return a drawn sample as a row."""
    picture = None
    if isinstance(sample.image, Image.Image):
        file = io.BytesIO()
        sample.image.save(file, "PNG")
        picture = file.getvalue()
    turn = Turn(sample.question, sample.answer or "")
    return Row(source=BUILT_IN, line=number, turns=(turn,), picture=picture)


def _check_original(model: Path, original: Path) -> None:
    """Raise UsageError if the model was not made from that folder."""
    ours, theirs = (
        source_fingerprint(Catalog.open(folder, read_config(folder)), folder)
        for folder in (model, original)
    )
    if ours != theirs:
        raise UsageError(
            "{model} was not made from {original}.",
            hint="Give --original the 16-bit folder from which MODEL was quantized.",
            param="original",
            model=model,
            original=original,
        )
