"""Checkpoints of other shapes than the golden one, through the public functions alone.

The expected numbers come from tests/helpers/independent_model.py, which shares no line with the
product.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import cogvlm2_lite
from cogvlm2_lite.architectures.architecture import expected_tensors
from cogvlm2_lite.engine.chunk import Chunk
from cogvlm2_lite.engine.model import Model
from cogvlm2_lite.engine.runtime import run
from cogvlm2_lite.events import Cancel
from cogvlm2_lite.inputs.prompt import choose_vision_expert, derive_position_ids
from tests.helpers.checkpoints import four_bit, write_folder
from tests.helpers.goldens import make_chunk
from tests.helpers.independent_model import Independent, layout, positions, vision_experts
from tests.helpers.other_shapes import SHAPES, Shape, random_weights
from tests.helpers.shapes import REAL, REAL_JSON

TOLERANCE = 2e-4
STEPS = 6
"""Tokens that are decoded greedily."""


def plain(stored: dict[str, Tensor], name: str, size: tuple[int, ...]) -> Tensor:
    """Return what a 4-bit matrix means: level of the code times scale of the group of 64.

    Not bitsandbytes' function: on the CPU that one is wrong where groups cross rows.
    """
    state = json.loads(bytes(stored[f"{name}.quant_state.bitsandbytes__nf4"].tolist()))
    scales = stored[f"{name}.nested_quant_map"][stored[f"{name}.absmax"].long()]
    scales = scales * stored[f"{name}.nested_absmax"].repeat_interleave(256)[: scales.numel()]
    scales = scales + state["nested_offset"]
    pairs = stored[name].flatten()
    codes = torch.stack((pairs >> 4, pairs & 15), dim=1).flatten()
    levels = stored[f"{name}.quant_map"][codes.long()]
    values: Tensor = levels * scales.repeat_interleave(64)[: levels.numel()]
    return values.view(size)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The product's model and the independent one, of the same checkpoint.

    pixels  [2, 3, image side, image side], two pictures of noise
    """

    model: Model
    independent: Independent
    pixels: Tensor

    def picture(self) -> list[int]:
        """Return the token types of a picture."""
        return [1] * self.model.config.vision.image_tokens


@pytest.fixture(scope="module", params=list(SHAPES.values()), ids=list(SHAPES))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    shape: Shape = request.param
    config, weights = shape.config(), random_weights(shape)
    folder = tmp_path_factory.mktemp("checkpoint")
    stored = weights
    if shape.four_bit:
        linears = tuple(n for n, t in weights.items() if t.dim() == 2 and "embed" not in n)
        stored = four_bit(weights, only=linears)
        weights = {**weights, **{n: plain(stored, n, weights[n].shape) for n in linears}}
    write_folder(folder, stored, shape.shards, config)
    side = config["vision_config"]["image_size"]
    return Pair(
        model=cogvlm2_lite.load(folder, device="cpu", dtype="float32", rope="reference"),
        independent=Independent(config, weights),
        pixels=torch.randn((2, 3, side, side), generator=torch.Generator().manual_seed(11)),
    )


def distance(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours.double() - theirs).abs().max())


def some_ids(count: int) -> list[int]:
    """Return token ids, among them the special ones."""
    return [(37 * i + 80) % 90 for i in range(count)]


def test_features_of_pictures_are_the_described_ones(pair: Pair) -> None:
    features = pair.model.encode_image(pair.pixels)
    for ours, pixels in zip(features, pair.pixels, strict=True):
        assert distance(ours, pair.independent.features(pixels)) < TOLERANCE


def prompts(picture: list[int]) -> dict[str, list[int]]:
    """Return token types: text, a picture at every place, and two of them."""
    return {
        "text": [0] * 9,
        "one token": [0],
        "picture first": [0, *picture, 0, 0, 0, 0],
        "picture in the middle": [0, 0, 0, *picture, 0, 0],
        "picture at the start": [*picture, 0, 0],
        "picture at the end": [0, 0, *picture],
        "two pictures": [0, *picture, 0, 0, *picture, 0],
        "two pictures side by side": [0, *picture, *picture, 0, 0],
    }


@pytest.mark.parametrize("case", prompts([1]).keys())
def test_scores_of_all_positions_are_the_described_ones(pair: Pair, case: str) -> None:
    types = prompts(pair.picture())[case]
    ids = some_ids(len(types))
    pictures = sum(types) // len(pair.picture())
    features = pair.model.encode_image(pair.pixels[:pictures]) if pictures else None
    row = torch.tensor([types])
    assert derive_position_ids(row.numpy())[0].tolist() == positions(types)
    assert choose_vision_expert(row.numpy())[0].tolist() == vision_experts(types)
    right = pair.independent.logits(
        ids, types, None if features is None else features.double().flatten(0, 1)
    )
    ours = pair.model.forward(torch.tensor([ids]), row, image_features=features)
    assert ours.dtype == torch.float32
    assert distance(ours[0], right) < TOLERANCE
    given = torch.tensor([positions(types)])
    assert torch.equal(pair.model.forward(torch.tensor([ids]), row, given, features), ours)


def test_given_positions_are_used(pair: Pair) -> None:
    ids, given = some_ids(6), [0, 2, 2, 30, 95, 96]  # 96: one above the configured context
    ours = pair.model.forward(torch.tensor([ids]), position_ids=torch.tensor([given]))
    assert distance(ours[0], pair.independent.logits(ids, [0] * 6, None, given)) < TOLERANCE


def test_greedy_tokens_with_the_cache_are_those_without(pair: Pair) -> None:
    types = [0, *pair.picture(), 0, 0, 0]
    ids = some_ids(len(types))
    features = pair.model.encode_image(pair.pixels[:1])
    runtime, cache = pair.model.runtime, pair.model.runtime.new_cache()
    chunk = make_chunk(torch.tensor([ids]), torch.tensor([types]))
    scores = runtime.compute_logits(run(runtime.prefill(chunk, features, cache, Cancel()))[:, -1:])[
        0, -1
    ]
    chosen: list[int] = []
    for step in range(STEPS):
        chosen.append(int(scores.argmax()))
        scores = runtime.decode_one_token(chosen[-1], chunk.highest + 1 + step, cache)
    assert chosen == pair.independent.greedy(ids, types, features[0].double(), STEPS)


def test_a_prompt_in_pieces_is_a_prompt_in_one(pair: Pair) -> None:
    picture = pair.picture()
    types = [0, *picture, 0, 0, 0, 0]
    ids = some_ids(len(types))
    features = pair.model.encode_image(pair.pixels[:1])
    whole = make_chunk(torch.tensor([ids]), torch.tensor([types]))
    runtime, cache = pair.model.runtime, pair.model.runtime.new_cache()
    scores = []
    end_of_picture, end = 1 + len(picture), len(types)
    # The last two pieces are of one token each: attention has a way of its own for those.
    for piece in (slice(end_of_picture), slice(end_of_picture, -2), slice(-2, -1), slice(-1, end)):
        chunk = Chunk(
            input_ids=whole.input_ids[:, piece],
            image_mask=whole.image_mask[:, piece],
            vision_mask=whole.vision_mask[:, piece],
            position_ids=whole.position_ids[:, piece],
            highest=int(whole.position_ids[:, piece].max()),
            has_image=piece.start is None,
        )
        seen = features if chunk.has_image else None
        scores.append(runtime.compute_logits(run(runtime.prefill(chunk, seen, cache, Cancel())))[0])
    right = pair.independent.logits(ids, types, features[0].double())
    assert distance(torch.cat(scores), right) < TOLERANCE


def test_the_released_layout_has_1221_tensors_and_39_gigabytes() -> None:
    shapes = layout(REAL_JSON)
    assert {n: s.shape for n, s in expected_tensors(REAL).items()} == shapes
    assert len(shapes) == 1221
    assert 2 * sum(map(math.prod, shapes.values())) == 39_006_214_656
