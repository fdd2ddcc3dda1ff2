"""Subsets are nested, stratified, of whole pictures, and the same on every computer."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.evaluate.find import find_data
from cogvlm2_lite.evaluate.items import Data, Item, picture_key
from cogvlm2_lite.evaluate.subsets import choose, count_questions, countable


@dataclass(frozen=True)
class Drawn:
    """A picture that is only a name."""

    name: str

    @property
    def key(self) -> str:
        return self.name

    def read(self) -> bytes:
        raise AssertionError("pictures are not read to choose questions")


def data_of(benchmark: str, items: list[Item]) -> Data:
    return Data(benchmark=benchmark, name=benchmark, files=(), items=tuple(items))


def documents(count: int = 600) -> Data:
    """Return questions with four to a picture, as DocVQA has."""
    return data_of(
        "docvqa",
        [
            Item(id=str(n), group=str(n), question="q", pictures=(Drawn(f"page {n // 4}"),))
            for n in range(count)
        ],
    )


def rotations(questions: int = 60) -> Data:
    """Return MMBench: four rows of each question, whose passes lie apart; two share a picture."""
    return data_of(
        "mmbench",
        [
            Item(
                id=str(n + turn * 1_000_000),
                group=str(n),
                question="q",
                pictures=(Drawn(f"picture {n // 2}"),),
                labels={"category": f"category {n % 3}"},
            )
            for turn in range(4)
            for n in range(questions)
        ],
    )


def ids(items: tuple[Item, ...]) -> set[str]:
    return {item.id for item in items}


@pytest.mark.parametrize("data", [documents(), rotations()], ids=["docvqa", "mmbench"])
def test_a_smaller_subset_is_part_of_a_larger_one(data: Data) -> None:
    subsets = [ids(choose(data, limit, 0)) for limit in (1, 7, 20, 50, 10_000)]
    assert all(first < second for first, second in pairwise(subsets))
    assert subsets[-1] == ids(data.items)
    assert ids(choose(data, None, 0)) == ids(data.items)


def test_whole_pictures_are_taken_until_there_are_enough() -> None:
    chosen = choose(documents(), 50, 0)
    assert len(chosen) == 52
    assert set(Counter(picture_key(item) for item in chosen).values()) == {4}


def test_whole_groups_of_rotations_are_taken() -> None:
    chosen = choose(rotations(), 9, 0)
    assert count_questions(chosen) == 9
    assert set(Counter(item.group for item in chosen).values()) == {4}


@pytest.mark.parametrize("limit", [None, 30])
@pytest.mark.parametrize("data", [documents(), rotations()], ids=["docvqa", "mmbench"])
def test_items_of_one_picture_follow_each_other(data: Data, limit: int | None) -> None:
    keys = [picture_key(item) for item in choose(data, limit, 0)]
    changes = sum(first != second for first, second in pairwise(keys))
    assert changes == len(set(keys)) - 1


def test_the_seed_and_nothing_else_decides() -> None:
    data = documents()
    turned = data_of("docvqa", list(reversed(data.items)))
    assert ids(choose(data, 50, 0)) == ids(choose(turned, 50, 0))
    assert ids(choose(data, 50, 0)) != ids(choose(data, 50, 1))
    # Other computers and later versions must choose the same: by the least id of a picture.
    digests = {n: hashlib.sha256(f"0|docvqa|{4 * n}".encode()).hexdigest() for n in range(150)}
    first = sorted(digests, key=lambda n: digests[n])[:3]
    assert {picture_key(item) for item in choose(data, 12, 0)} == {f"page {n}" for n in first}


def test_strata_are_filled_in_proportion() -> None:
    sizes = {"Regular": 50, "Scene": 200, "Formulas": 100}
    items = [
        Item(id=f"{name} {n}", group=f"{name} {n}", question="q", labels={"category": name},
             pictures=(Drawn(f"{name} {n}"),))
        for name, size in sizes.items()
        for n in range(size)
    ]  # fmt: skip
    data = data_of("ocrbench", items)
    for limit in (7, 35, 70, 175):
        found = Counter(item.labels["category"] for item in choose(data, limit, 3))
        for name, size in sizes.items():
            assert abs(found[name] - size * limit / 350) <= 1


def test_the_subset_does_not_depend_on_the_format(layouts: Path) -> None:
    def questions(name: str, path: str) -> list[str]:
        return [item.question for item in choose(find_data(name, layouts / path), 3, 0)]

    for name, paths in {
        "chartqa": ("lmudata", "original/chartqa", "hf/chartqa", "hf/chartqa_m4"),
        "mmvet": ("lmudata", "original", "hf/mmvet"),
        "mmmu": ("lmudata", "hf/mmmu", "hf/mmmu_merged"),
        "docvqa": ("lmudata", "original/docvqa", "original/spdocvqa", "hf/docvqa"),
        "textvqa": ("lmudata", "original", "hf/textvqa"),
        "ocrbench": ("lmudata", "original", "hf/ocrbench"),
    }.items():
        found = [sorted(questions(name, path)) for path in paths]
        assert all(one == found[0] for one in found), name


def test_the_questions_of_mmmu_for_development_are_not_asked(layouts: Path) -> None:
    data = find_data("mmmu", layouts / "lmudata" / "MMMU_DEV_VAL.tsv")
    assert len(data.items) == 6
    assert len(countable(data)) == len(choose(data, None, 0)) == 5
    assert "5" not in ids(choose(data, None, 0))


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(UsageError, match="must be 1 or more"):
        choose(documents(), limit, 0)
