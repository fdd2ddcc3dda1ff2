"""Which questions are asked, and in which order."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.evaluate.benchmarks import BENCHMARKS
from cogvlm2_lite.evaluate.items import Data, Item, picture_key


def countable(data: Data) -> tuple[Item, ...]:
    """Return the items that a score is about: of MMMU, not those of the split "dev"."""
    if data.benchmark != "mmmu":
        return data.items
    return tuple(item for item in data.items if item.labels.get("split") != "dev")


def count_questions(items: Iterable[Item]) -> int:
    """Return the number of questions; all rotations of an MMBench question are one."""
    return len({item.group for item in items})


def choose(data: Data, limit: int | None, seed: int) -> tuple[Item, ...]:
    """Return the items to ask, in the order in which to ask them.

    limit  whole pictures (MMBench: whole questions with their rotations) are taken until there are
           this many questions, or more; None: all

    Subsets of one seed are nested and equal on every computer. The strata of a benchmark (ChartQA's
    splits, OCRBench's and MMBench's categories, MMMU's subjects) are filled in proportion, also in
    every beginning of the order. Items of one picture follow each other.
    Raises UsageError for a limit below 1.
    """
    if limit is not None and limit < 1:
        raise UsageError("The limit must be 1 or more questions, not {limit}.", limit=limit)
    chosen: list[Item] = []
    questions = 0
    for unit in _in_order(_units(data), f"{seed}|{data.benchmark}"):
        if limit is not None and questions >= limit:
            break
        chosen += unit.items
        questions += unit.questions
    return tuple(_by_picture(chosen))


@dataclass(frozen=True, kw_only=True)
class _Unit:
    """Items that are taken together."""

    id: str
    stratum: str
    items: tuple[Item, ...]
    questions: int


def _units(data: Data) -> Iterator[_Unit]:
    rotated = data.benchmark in ("mmbench", "mmbench_cn")
    together: dict[str, list[Item]] = defaultdict(list)
    items = countable(data)
    for item in items:
        together[item.group if rotated else picture_key(item)].append(item)
    ids = dict(zip((item.id for item in items), _stable_ids(data.benchmark, items), strict=True))
    stratum = BENCHMARKS[data.benchmark].stratum
    for one in together.values():
        # An item's place in the file must not matter, so the least id stands for all.
        first = min(one, key=lambda item: (len(ids[item.id]), ids[item.id]))
        yield _Unit(
            id=first.group if rotated else ids[first.id],
            stratum=first.labels.get(stratum, ""),
            items=tuple(one),
            questions=count_questions(one),
        )


def _stable_ids(benchmark: str, items: Sequence[Item]) -> Iterator[str]:
    """Yield ids that do not depend on the file format, where the benchmark has such."""
    places: Counter[str] = Counter()
    for item in items:
        if benchmark == "chartqa":  # has no ids: the place within the split
            split = item.labels.get("split", "")
            yield f"{split}_{places[split]}"
            places[split] += 1
        else:
            yield str(item.fields.get("question_id", item.id))


def _in_order(units: Iterable[_Unit], prefix: str) -> list[_Unit]:
    strata: dict[str, list[tuple[str, _Unit]]] = defaultdict(list)
    for unit in units:
        digest = hashlib.sha256(f"{prefix}|{unit.id}".encode()).hexdigest()
        strata[unit.stratum].append((digest, unit))
    placed: list[tuple[float, str, _Unit]] = []
    for stratum in strata.values():
        stratum.sort(key=lambda pair: pair[0])
        total, before = sum(unit.questions for _, unit in stratum), 0
        for digest, unit in stratum:
            # The middle of the unit within its stratum, from 0 to 1.
            placed.append(((before + unit.questions / 2) / total, digest, unit))
            before += unit.questions
    placed.sort(key=lambda one: one[:2])
    return [unit for _, _, unit in placed]


def _by_picture(items: Iterable[Item]) -> Iterator[Item]:
    together: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        together[picture_key(item)].append(item)
    for one in together.values():
        yield from one
