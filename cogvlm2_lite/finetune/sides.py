"""Divides the data of a run: what is learnt, and what is held out and measured."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.finetune.data import Example, is_amount, split

_OLD_SHARE, _MOST_OLD = "10%", 50
"""Of the replayed pictures, and answers about them, that show what the model forgets."""


@dataclass(frozen=True, kw_only=True)
class Sides:
    """The data of a run. A picture is on one side only, whatever its name and data set.

    learnt, held_out      of the data
    replayed, old         of the replayed data: learnt, and held out
    removed               answers that are not learnt, because their pictures are held out
    """

    learnt: list[Example]
    held_out: list[Example]
    replayed: list[Example]
    old: list[Example]
    removed: int


def held_out_file(word: str) -> Path | None:
    """Return the file or folder that `--held-out` names; None: it is an amount.

    Raises UsageError for a word that is neither.
    """
    if is_amount(word):
        return None
    path = Path(word)
    if not word or not path.exists():
        raise UsageError(
            "--held-out must be a share such as 10%, a number of answers, 0, or a file of rows, "
            "not {value}.",
            value=word,
        )
    return path


def divide(
    examples: Sequence[Example],
    measured: Sequence[Example] | None,
    replay: Sequence[Example],
    held_out: str,
    seed: int,
) -> Sides:
    """Divide examples.

    measured  held-out ones of a file of their own; None: they are taken from the examples
    held_out  an amount, if there is no such file

    Raises UsageError if nothing is left to learn from.
    """
    if measured is None:
        learnt, taken = split(examples, held_out, seed)
    else:
        taken = list(measured)
        learnt = _without(examples, taken)
        if not learnt:
            raise UsageError(
                "All pictures are held out by {file}, so there is nothing to learn from.",
                hint="Use other rows for --held-out.",
                file=held_out,
            )
    again = _without(replay, taken)
    removed = len(replay) - len(again)
    if measured is not None:
        removed += len(examples) - len(learnt)
    old: list[Example] = []
    if taken:
        old = _some_of(_without(again, learnt), seed)
        again = _without(again, old)
    return Sides(learnt=learnt, held_out=taken, replayed=again, old=old, removed=removed)


def _some_of(examples: Sequence[Example], seed: int) -> list[Example]:
    """Return a tenth of the pictures, if there are several."""
    if len({example.group for example in examples}) < 2:
        return []
    taken = split(examples, _OLD_SHARE, seed)[1]
    kept: list[Example] = []
    for example in taken:
        if len(kept) < _MOST_OLD or example.group == kept[-1].group:
            kept.append(example)
    return kept


def _without(examples: Sequence[Example], others: Collection[Example]) -> list[Example]:
    """Return the examples about pictures of which the others have none."""
    groups = {other.group for other in others}
    return [example for example in examples if example.group not in groups]
