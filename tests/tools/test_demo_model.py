"""The generator and the training forward pass of the demo model."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

import pytest
import torch
from tokenizers import Tokenizer

pytest.importorskip("font_roboto", reason="needs the fonts of tools/demo_model/README.md")
pytest.importorskip("font_source_serif_pro", reason="needs the fonts of the same page")

from tools.demo_model.batches import Encoder, make_batch, make_encoder
from tools.demo_model.drawing import Scene, Shape, Sign
from tools.demo_model.evaluate import evaluate, summarise
from tools.demo_model.generator import Split, samples
from tools.demo_model.network import (
    Dims,
    Packed,
    Weights,
    decode,
    encode_patches,
    first_weight,
    project,
    weight_shapes,
)
from tools.demo_model.optimizer import orthogonalise
from tools.demo_model.questions import Builder, Conversation, Dice, ask_at, ask_scene_caption
from tools.demo_model.words import is_held_out

CHECKPOINT = Path(__file__).resolve().parents[2] / "cogvlm2_lite" / "demo" / "checkpoint"


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    """The shipped tokenizer."""
    return make_encoder(Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json")))


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Random weights in float32."""
    generator = torch.Generator().manual_seed(0)
    shapes = weight_shapes(Dims())
    return {name: first_weight(name, shape, generator) for name, shape in shapes.items()}


def scene() -> Scene:
    """A red circle in the top left and a blue star in the center."""
    shapes = (
        Shape(name="circle", color="red", cell=0, x=1 / 6, y=1 / 6, radius=0.1),
        Shape(name="star", color="blue", cell=4, x=0.5, y=0.5, radius=0.1),
    )
    return Scene(background=(255, 255, 255), shapes=shapes)


def ask(build: Builder, chinese: bool = False) -> Conversation:
    """The first question that the builder finds about the scene."""
    dice = Dice(random=Random(3), chinese=chinese, held_out=True)
    asked = build(dice, scene())
    assert asked is not None
    return asked


def test_the_same_seed_gives_the_same_pictures_and_questions() -> None:
    first, second = (list(islice(samples("train", 5, 6), 20)) for _ in range(2))
    assert [one.conversations for one in first] == [one.conversations for one in second]
    assert all(
        one.image.tobytes() == other.image.tobytes()
        for one, other in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_a_split_shows_and_asks_only_its_own_strings(split: Split) -> None:
    for sample in islice(samples(split, 11, 8), 300):
        if not isinstance(sample.picture, Sign):
            continue
        words = {sample.picture.text}
        for asked in sample.conversations:
            if asked.task.startswith("says"):
                words |= set(
                    "".join(mark if mark.isascii() and mark.isalnum() else " "
                            for mark in asked.question).split()
                )  # fmt: skip
        strings = {word for word in words if word.isupper() or word.isdigit()}
        assert all(is_held_out(word) == (split == "held-out") for word in strings if word[1:])


def test_answers_say_what_is_in_the_picture() -> None:
    assert ask(ask_scene_caption).answer == "A red circle and a blue star."
    assert ask(ask_scene_caption, chinese=True).answer == "红色圆形和蓝色星形。"
    asked = ask(ask_at)
    where = {"top left": "a red circle", "center": "a blue star"}
    place = asked.question.removesuffix("?").partition(" in the ")[2]
    assert asked.answer == where.get(place, "nothing")


def test_a_packed_question_is_computed_as_if_it_were_alone(
    weights: Weights, encoder: Encoder
) -> None:
    dims = Dims()
    batch = make_batch("held-out", 2, 3, 96, dims, encoder)
    assert batch.text is not None
    features = project(weights, dims, encode_patches(weights, dims, batch.patches))
    packed = replace(batch.text.packed, mask=batch.text.packed.mask.float())
    together, _ = decode(weights, dims, features, packed, encoder.bos)
    first = dims.image_tokens + 3
    for row in range(3):
        ends = [0, *(packed.positions[row].diff() < 0).nonzero().flatten().add(1).tolist()]
        start, end = ends[1], ends[2]
        keep = torch.tensor([*range(first), *range(first + start, first + end)])
        alone = Packed(
            ids=packed.ids[row : row + 1, start:end],
            positions=packed.positions[row : row + 1, start:end],
            mask=packed.mask[row : row + 1][:, :, keep][:, :, :, keep],
        )
        single, _ = decode(weights, dims, features[row : row + 1], alone, encoder.bos)
        torch.testing.assert_close(single[0], together[row, start:end], atol=1e-4, rtol=1e-4)


def test_orthogonalising_brings_all_singular_values_near_one() -> None:
    stack = torch.randn(2, 48, 16, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalise(stack))
    assert values.min() > 0.5
    assert values.max() < 1.4


def test_the_shipped_model_answers_held_out_questions(encoder: Encoder) -> None:
    from safetensors.torch import load_file

    stored = load_file(CHECKPOINT / "model.safetensors")
    total = summarise(evaluate(stored, Dims(), encoder, seed=77, images=48))
    assert total.questions > 200
    assert total.exact_match > 0.85
