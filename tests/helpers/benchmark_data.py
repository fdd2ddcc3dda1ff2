"""Questions and answers of benchmarks for tests of their scores; no file and no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cogvlm2_lite.evaluate.answers import Answered
from cogvlm2_lite.evaluate.items import Data, Item


@dataclass(frozen=True, kw_only=True)
class NamedPicture:
    """A picture that is never read."""

    name: str

    @property
    def key(self) -> str:
        return self.name

    def read(self) -> bytes:
        raise AssertionError("a score needs no picture")


def item_of(
    id: str,
    answers: Sequence[str],
    *,
    group: str = "",
    options: Sequence[str] = (),
    pictures: Sequence[str] = (),
    **labels: str,
) -> Item:
    """Return an item with its own picture, unless pictures are named; "_" in labels is "-"."""
    return Item(
        id=id,
        group=group or id,
        question=f"Question {id}?",
        options=dict(zip("ABCDEFGHI", options, strict=False)),
        answers=tuple(answers),
        pictures=tuple(NamedPicture(name=name) for name in pictures or [f"{id}.png"]),
        labels={name.replace("l2_", "l2-"): text for name, text in labels.items()},
    )


def data_of(benchmark: str, items: Sequence[Item]) -> Data:
    """Return the data of a benchmark."""
    return Data(benchmark=benchmark, name=benchmark, files=(), items=tuple(items))


def answered(item: Item, answer: str, *, reason: str = "eos", error: str = "") -> Answered:
    """Return the answer to an item."""
    return Answered(
        id=item.id,
        group=item.group,
        picture="" if error else f"sha256 of {item.pictures[0].name}",
        query=item.question,
        answer=answer,
        reason="" if error else reason,
        tokens=2,
        seconds=1.0,
        error=error,
    )


def answers_of(items: Sequence[Item], texts: Sequence[str]) -> Mapping[str, Answered]:
    """Return an answer to each item, by id."""
    return {item.id: answered(item, text) for item, text in zip(items, texts, strict=True)}


def rotations(group: int, options: Sequence[str], right: str, **labels: str) -> list[Item]:
    """Return the rows of a question of MMBench: its options moved round by one each time."""
    rows = []
    for n in range(len(options)):
        moved = [*options[len(options) - n :], *options[: len(options) - n]]
        letter = "ABCD"[moved.index(right)]
        rows.append(
            item_of(
                str(group + n * 1_000_000),
                [letter],
                group=str(group),
                options=moved,
                pictures=[f"{group}.png"],
                **labels,
            )
        )
    return rows
