"""Small benchmark data, answers and scores for tests of reports and exports."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from cogvlm2_lite.errors import ImageError
from cogvlm2_lite.evaluate.answers import Answered
from cogvlm2_lite.evaluate.items import Data, DataFile, Item
from cogvlm2_lite.evaluate.paired import Paired
from cogvlm2_lite.evaluate.totals import ItemScore, Part, Score


@dataclass(frozen=True)
class Drawn:
    """A picture in memory. color: None, the picture is damaged"""

    name: str
    color: str | None = "teal"

    @property
    def key(self) -> str:
        return self.name

    def read(self) -> bytes:
        if self.color is None:
            raise ImageError("{file} is damaged.", file=self.name)
        out = io.BytesIO()
        Image.new("RGB", (1600, 900), self.color).save(out, "PNG")
        return out.getvalue()


def item(number: int, **values: Any) -> Item:
    """Return a question with one picture."""
    name = str(number)
    given: dict[str, Any] = {
        "id": name, "group": name, "question": f"Question {name}?", "answers": (f"right {name}",),
        "pictures": (Drawn(f"p{name}"),), **values,
    }  # fmt: skip
    return Item(**given)


def data(benchmark: str, items: Sequence[Item], name: str = "") -> Data:
    """Return data with one file."""
    file = DataFile(path=Path(f"{benchmark}.tsv"), size=1 << 20, md5="0" * 32, known=True)
    return Data(benchmark=benchmark, name=name or benchmark, files=(file,), items=tuple(items))


def answered(found: Item, answer: str, **values: Any) -> Answered:
    """Return an answer to a question."""
    given: dict[str, Any] = {
        "id": found.id, "group": found.group, "picture": "0" * 64, "query": found.question,
        "answer": answer, "reason": "eos", "tokens": 3, "seconds": 1.0, **values,
    }  # fmt: skip
    return Answered(**given)


def score(of: Data, answers: Mapping[str, Answered], right: Sequence[str], **values: Any) -> Score:
    """Return a score of right and wrong answers. right: ids"""
    share = 100 * len(right) / max(len(answers), 1)
    given: dict[str, Any] = {
        "benchmark": of.benchmark, "rules": "official", "value": share, "low": share - 5,
        "high": share + 5, "unit": "points", "asked": len(answers), "of": len(of.items),
        "parts": (Part(name="Art", value=share, asked=len(answers), kind="discipline"),),
        "beside": {}, "counts": {},
        "items": {name: ItemScore(score=float(name in right)) for name in answers}, **values,
    }  # fmt: skip
    return Score(**given)


PAIRED = Paired(
    questions=500, pictures=480, both=300, only_a=12, only_b=4, neither=184, mean_a=62.4,
    mean_b=60.8, loss=1.6, low=0.02, high=3.5, p=0.049, changed=0.183,
    verdict="a loss is shown", needed=None,
)  # fmt: skip
UNDECIDED = replace(
    PAIRED, only_a=8, only_b=10, loss=-0.4, low=-2.3, high=1.4, p=0.65, needed=4321,
    verdict="not decided with 500 questions",
)  # fmt: skip
