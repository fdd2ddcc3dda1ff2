"""Held-out rows of another file, and of replayed data: a picture is on one side only."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
import torch
from PIL import Image

from cogvlm2_lite.cli.console import Console
from cogvlm2_lite.cli.finetune import main
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.finetune.data import Example
from cogvlm2_lite.finetune.samples import TrainingPicture, TrainingSample
from cogvlm2_lite.finetune.sides import divide, held_out_file
from cogvlm2_lite.rows.read import Row, Turn


def example(picture: int, number: int = 0) -> Example:
    tokens = torch.zeros((1, 3), dtype=torch.int64)
    shown = TrainingPicture(key=f"p{picture}", pixels=lambda: torch.zeros(1))
    sample = TrainingSample(input_ids=tokens, token_type_ids=tokens, labels=tokens, picture=shown)
    row = Row(source="x", line=number, turns=(Turn("q", "a"),))
    return Example(row=row, turn=1, sample=sample)


def keys(examples: list[Example]) -> set[str]:
    return {each.group for each in examples}


def test_pictures_of_held_out_rows_are_neither_learnt_nor_replayed() -> None:
    data, measured = [example(n) for n in range(6)], [example(2), example(9)]
    replay = [example(n) for n in (9, 9, 20, 21)]
    sides = divide(data, measured, replay, "rows.jsonl", seed=0)
    assert keys(sides.learnt) == {"p0", "p1", "p3", "p4", "p5"}
    assert sides.held_out == measured
    assert sides.removed == 3
    assert keys(sides.replayed) | keys(sides.old) == {"p20", "p21"}
    assert len(sides.old) == 1
    with pytest.raises(UsageError, match=r"All pictures are held out by rows\.jsonl"):
        divide(data, data, [], "rows.jsonl", seed=0)


def test_a_part_of_the_replayed_rows_is_held_out_with_the_others_only() -> None:
    data, replay = [example(n) for n in range(10)], [example(n // 3) for n in range(60, 120)]
    sides = divide(data, None, replay, "10%", seed=0)
    assert keys(sides.old).isdisjoint(keys(sides.replayed))
    assert len(sides.old) == 6
    assert len(sides.replayed) == 54
    assert sides.removed == 0
    none = divide(data, None, replay, "0", seed=0)
    assert (none.held_out, none.old, len(none.replayed)) == ([], [], 60)
    many = divide(data, None, [example(n) for n in range(100, 1100)], "10%", seed=0)
    assert len(many.old) == 50
    # A picture that is learnt shows nothing of what is forgotten.
    same = divide(data, None, [example(n) for n in range(10)], "10%", seed=0)
    assert keys(same.old).isdisjoint(keys(same.learnt))


@pytest.mark.parametrize("word", ["10%", "2.5%", "0", "0%", "12"])
def test_amounts_are_no_files(word: str, tmp_path: Path) -> None:
    assert held_out_file(word) is None
    assert held_out_file(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("word", ["", "many", "-1", "100%", "1e3", "٣", "10 %", "no/such.jsonl"])
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(UsageError, match="--held-out must be a share"):
        held_out_file(word)


def picture(folder: Path, name: str, colour: str) -> None:
    Image.new("RGB", (40, 40), colour).save(folder / name)


def test_the_command_takes_held_out_rows_of_another_file(tmp_path: Path) -> None:
    colours = ("red", "green", "blue", "black", "white", "gray")
    for number, colour in enumerate(colours):
        picture(tmp_path, f"{number}.png", colour)
    picture(tmp_path, "again.png", "red")  # the same pixels as 0.png
    for name, pictures in (
        ("train", ["0", "1", "2"]), ("held", ["again", "3"]), ("old", ["2", "4", "5", "3"])
    ):  # fmt: skip
        rows = [
            {"image": f"{each}.png", "question": "Colour?", "answer": f"{name} {each}"}
            for each in pictures
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out, err = StringIO(), StringIO()
    code = main(
        [
            "demo", str(tmp_path / "train.jsonl"), str(tmp_path / "out"), "--rank", "1", "--epochs",
            "1", "--answers", "0", "--answer-space", "yes", "--json", "--held-out",
            str(tmp_path / "held.jsonl"), "--replay", str(tmp_path / "old.jsonl"),
        ],
        console=Console(out, err),
    )  # fmt: skip
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert code == 0
    planned, finished = events[0], events[-1]
    assert planned["answers"] == 2
    assert planned["held_out"] == 2
    assert planned["removed"] == 2  # 0 of the data, 3 of the replayed ones
    assert (planned["replayed"], planned["replayed_held_out"]) == (2, 1)
    assert finished["old_before"] is not None
    assert finished["old"] is not None
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "Loss of old abilities" in page
