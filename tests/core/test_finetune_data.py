"""Which pictures are learnt and which held out, and when too many rows are lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from cogvlm2_lite.config import read_config
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.finetune.data import Example, Pictures, check_skipped, make_examples, split
from cogvlm2_lite.finetune.samples import TrainingPicture, TrainingSample
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.rows.labels import Labeller
from cogvlm2_lite.rows.read import Reason, Row, Rows, Skipped, Turn

DEMO = Path(model_folder("demo"))
CONFIG = read_config(DEMO)


def row(picture: Path | bytes | None, question: str = "What?", answer: str = "red") -> Row:
    return Row(source="x", line=1, turns=(Turn(question, answer),), picture=picture)


def made(rows: Sequence[Row], *, upright: bool = True) -> list[Example | Skipped]:
    labeller = Labeller(Tokenizer.from_folder(DEMO), CONFIG)
    return list(make_examples(rows, labeller, Pictures(CONFIG.vision, upright=upright)))


def groups(rows: Sequence[Row], *, upright: bool = True) -> list[str]:
    examples = made(rows, upright=upright)
    return [example.group for example in examples if isinstance(example, Example)]


def example(group: str | None, question: str = "What?") -> Example:
    tokens = torch.zeros((1, 3), dtype=torch.int64)
    picture = None if group is None else TrainingPicture(key=group, pixels=lambda: tokens)
    sample = TrainingSample(input_ids=tokens, token_type_ids=tokens, labels=tokens, picture=picture)
    return Example(row=row(None, question), turn=1, sample=sample)


@pytest.fixture
def picture(tmp_path: Path) -> Image.Image:
    image = Image.new("RGB", (6, 4), "red")
    image.putpixel((0, 0), (0, 255, 0))
    return image


def test_a_picture_is_its_pixels_not_its_name_or_format(
    tmp_path: Path, picture: Image.Image
) -> None:
    names = [tmp_path / name for name in ("a.png", "b.bmp", "c.webp")]
    for name in names:
        picture.save(name, lossless=True)
    shown: list[Path | bytes] = [*names, names[0].read_bytes()]
    found = groups([row(each, f"{number}?") for number, each in enumerate(shown)])
    assert len(found) == 4
    assert len(set(found)) == 1


def test_a_picture_is_what_the_model_sees_of_it(tmp_path: Path, picture: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.png", exif=exif)
    picture.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "right.png")
    picture.save(tmp_path / "stored.png")
    rows = [row(tmp_path / f"{name}.png", name) for name in ("turned", "right", "stored")]
    turned, right, stored = groups(rows)
    assert turned == right != stored
    turned, right, stored = groups(rows, upright=False)
    assert turned == stored != right


def test_the_same_conversation_about_the_same_picture_counts_once(
    tmp_path: Path, picture: Image.Image
) -> None:
    names = [tmp_path / name for name in ("a.png", "b.png")]
    for name in names:
        picture.save(name)
    first, second, third = made([row(names[0]), row(names[1]), row(names[1], "Where?")])
    assert isinstance(second, Skipped)
    assert second.reason is Reason.TWICE
    assert isinstance(first, Example)
    assert isinstance(third, Example)


def test_pictures_that_can_not_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.new("1", (10_000, 8_901)).save(tmp_path / "large.png")
    found = made([row(tmp_path / "broken.png"), row(tmp_path / "large.png")])
    assert [each.reason for each in found if isinstance(each, Skipped)] == [
        Reason.UNREADABLE, Reason.PIXELS,
    ]  # fmt: skip


def test_rows_without_a_picture_are_split_by_their_first_question() -> None:
    examples = [example(None, f"{number // 2}? ") for number in range(40)]
    learnt, held_out = split(examples, "10%", seed=0)
    assert len(held_out) == 4
    asked = [{each.question for each in side} for side in (learnt, held_out)]
    assert asked[0].isdisjoint(asked[1])


def test_at_least_one_picture_and_at_most_500_rows_are_held_out() -> None:
    texts = [example(None, f"{number}?") for number in range(60)]
    for seed in range(5):
        _, held_out = split([*texts, example("p1"), example("p2")], "10%", seed=seed)
        assert any(each.sample.picture is not None for each in held_out)
    many = [example(f"p{number // 70}") for number in range(7000)]
    for seed in range(3):
        assert 430 < len(split(many, "10%", seed=seed)[1]) <= 500
    assert len(split(many, "630", seed=0)[1]) == 630
    with pytest.raises(UsageError, match="nothing to learn from") as found:
        split([example("p"), example("p")], "10%", seed=0)
    assert "0 to hold out none" in found.value.hint


def test_the_five_commonest_reasons_stop_a_run_and_repeated_rows_do_not() -> None:
    rows = Rows(form="JSON", rows=tuple(row(None) for _ in range(80)), skipped=())
    reasons = [Reason.MISSING] * 5 + [Reason.JSON] * 4 + [Reason.ROLES] * 3
    reasons += [Reason.ENCODING] * 2 + [Reason.LARGE] * 2 + [Reason.ROLE]
    skipped = [Skipped(source="x", line=n, reason=each) for n, each in enumerate(reasons)]
    with pytest.raises(UsageError) as found:
        check_skipped(rows, skipped, allowed=False)
    assert str(found.value) == (
        "17 of 80 rows can't be used: 5 picture missing, 4 invalid JSON, 3 roles do not alternate, "
        "2 invalid UTF-8, 2 picture larger than 50 MB."
    )
    check_skipped(rows, skipped, allowed=True)
    twice = [Skipped(source="x", line=n, reason=Reason.TWICE) for n in range(40)]
    check_skipped(rows, twice, allowed=False)
    one_row = [Skipped(source="x", line=1, reason=Reason.TOO_LONG, detail=f"{n}") for n in range(9)]
    check_skipped(rows, one_row, allowed=False)
