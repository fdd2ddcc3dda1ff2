"""Storage kinds, files and offsets, decided before any number is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cogvlm2_lite.architectures.architecture import ModelConfig, Part, Role, expected_tensors
from cogvlm2_lite.config import parse_config
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.weights.catalog import Catalog, StoredTensor
from cogvlm2_lite.weights.header import DTYPE_BYTES, Piece
from quantize.recipe import Keep, QuantizeOptions, Recipe, make_recipe, quant_state_text
from tests.helpers.shapes import REAL, REAL_JSON


def catalog_of(config: ModelConfig, dtype: str = "BF16") -> Catalog:
    """Make a catalog without any file."""
    tensors = {}
    for name, spec in expected_tensors(config).items():
        size = spec.numel * DTYPE_BYTES[dtype]
        piece = Piece(file=Path("none"), dtype=dtype, shape=spec.shape, begin=0, end=size)
        tensors[name] = StoredTensor(spec=spec, kind="dense", pieces={"weight": piece})
    return Catalog(folder=Path("none"), config=config, tensors=tensors, shards=())


def kinds(recipe: Recipe, part: Part) -> set[str]:
    return {
        t.kind
        for t in recipe.tensors
        if t.source.spec.part is part and t.source.spec.role is Role.LINEAR
    }


REAL_CATALOG = catalog_of(REAL)
REAL_RECIPE = make_recipe(REAL_CATALOG, QuantizeOptions())


def test_the_real_model_comes_to_the_bytes_of_the_arithmetic() -> None:
    recipe = REAL_RECIPE
    rounded = [t for t in recipe.tensors if t.kind == "nf4"]
    assert sum(t.source.spec.numel for t in rounded) == 18_419_548_160
    # 4 bits, 8 bits per 64 and 32 bits per 64 * 256 weights; the rest is maps and JSON.
    plain = sum(t.source.spec.numel for t in rounded) * (4 + 8 / 64 + 32 / (64 * 256)) / 8
    kept = 2 * 1_083_559_168  # the parameters of spec section 11 and 2048 inv_freq values
    extra = recipe.nbytes - plain - kept
    assert 0 < extra < 3_000_000
    assert 11.66e9 < recipe.nbytes < 11.68e9


def test_without_double_quantization_the_real_model_is_larger() -> None:
    recipe = make_recipe(REAL_CATALOG, QuantizeOptions(double_quant=False))
    assert 12.52e9 < recipe.nbytes < 12.54e9


def test_files_stay_below_the_limit_and_hold_every_tensor_once() -> None:
    recipe = REAL_RECIPE
    assert [s.name for s in recipe.shards] == [
        f"model-{i:05d}-of-00003.safetensors" for i in (1, 2, 3)
    ]
    assert all(shard.layout.size <= 5e9 + 1e6 for shard in recipe.shards)
    assert sorted(t.name for t in recipe.tensors) == sorted(REAL_CATALOG.tensors)


def test_tensors_of_the_real_model_stay_in_the_order_of_use() -> None:
    recipe = REAL_RECIPE
    assert [t.name for t in recipe.tensors] == list(REAL_CATALOG.tensors)


def test_only_linears_become_nf4_and_lm_head_stays() -> None:
    recipe = REAL_RECIPE
    for tensor in recipe.tensors:
        spec = tensor.source.spec
        linear = spec.role is Role.LINEAR and spec.part is not Part.LM_HEAD
        assert tensor.kind == ("nf4" if linear else "dense"), tensor.name
    assert [t.name for t in recipe.kept()] == ["lm_head.weight"]


def test_the_last_matching_keep_counts() -> None:
    keep = (
        Keep(pattern="vision-expert", kind="int8"),
        Keep(pattern="model.layers.3.*", kind="bf16"),
        Keep(pattern="model.layers.3.mlp.vision_mlp.up_proj", kind="int8"),
    )
    recipe = make_recipe(REAL_CATALOG, QuantizeOptions(keep=keep, lm_head="nf4"))
    found = {t.name: t.kind for t in recipe.tensors}
    assert found["model.layers.2.mlp.vision_mlp.up_proj.weight"] == "int8"
    assert found["model.layers.3.mlp.vision_mlp.gate_proj.weight"] == "dense"
    assert found["model.layers.3.mlp.vision_mlp.up_proj.weight"] == "int8"
    assert found["model.layers.2.mlp.language_mlp.up_proj.weight"] == "nf4"
    assert found["lm_head.weight"] == "nf4"


@pytest.mark.parametrize("kind", ["bf16", "nf4", "int8"])
def test_lm_head_becomes_what_was_asked_for(kind: str) -> None:
    recipe = make_recipe(REAL_CATALOG, QuantizeOptions(lm_head=kind))
    assert kinds(recipe, Part.LM_HEAD) == {"dense" if kind == "bf16" else kind}


@pytest.mark.parametrize(
    "pattern", ["vision-tower", "projector", "vision-expert", "language-expert", "lm-head"]
)
def test_every_part_can_be_kept_by_its_name(pattern: str) -> None:
    recipe = make_recipe(REAL_CATALOG, QuantizeOptions(keep=(Keep(pattern=pattern, kind="int8"),)))
    parts = {t.source.spec.part for t in recipe.tensors if t.kind == "int8"}
    assert len(parts) == 1


def test_a_pattern_that_matches_nothing_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match="vision-towr=int8 matches none of the 577") as caught:
        make_recipe(REAL_CATALOG, QuantizeOptions(keep=(Keep(pattern="vision-towr", kind="int8"),)))
    assert "Did you mean vision-tower?" in caught.value.hint


def test_columns_that_groups_do_not_divide_keep_their_matrix_as_it_is() -> None:
    raw = {**REAL_JSON, "intermediate_size": 100, "num_hidden_layers": 1}
    recipe = make_recipe(catalog_of(parse_config(raw)), QuantizeOptions())
    name = "model.layers.0.mlp.language_mlp.down_proj.weight"
    tensor = next(t for t in recipe.tensors if t.name == name)
    assert tensor.kind == "dense"
    assert tensor.reason == "its 100 columns are not a multiple of 64"


@settings(max_examples=60, deadline=None)
@given(
    hidden=st.sampled_from([12, 64, 68, 128]),
    inner=st.integers(1, 200),
    vocab=st.integers(3, 70),
    vision=st.sampled_from([2, 10, 64, 70]),
    dtype=st.sampled_from(["BF16", "F16", "F32"]),
    double_quant=st.booleans(),
    shard_bytes=st.integers(1, 60_000),
    keep=st.sampled_from([(), (Keep(pattern="*mlp*", kind="int8"),)]),
)
def test_every_piece_lies_at_its_own_alignment_without_holes(
    hidden: int,
    inner: int,
    vocab: int,
    vision: int,
    dtype: str,
    double_quant: bool,
    shard_bytes: int,
    keep: tuple[Keep, ...],
) -> None:
    tower = {**REAL_JSON["vision_config"], "num_hidden_layers": 2, "hidden_size": vision}
    tower |= {"num_heads": 2, "intermediate_size": inner, "image_size": 28, "num_positions": 5}
    raw = REAL_JSON | {
        "vision_config": tower, "hidden_size": hidden, "intermediate_size": inner,
        "num_attention_heads": 2, "num_multi_query_heads": 1, "num_hidden_layers": 2,
        "vocab_size": vocab, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
    }  # fmt: skip
    wanted = QuantizeOptions(double_quant=double_quant, shard_bytes=shard_bytes, keep=keep)
    recipe = make_recipe(catalog_of(parse_config(raw), dtype), wanted)
    names = []
    for shard in recipe.shards:
        position = len(shard.layout.header)
        for piece in shard.layout.pieces:
            assert shard.layout.begins[piece.name] == position
            assert position % DTYPE_BYTES[piece.dtype] == 0, piece.name
            position += piece.nbytes
            names.append(piece.name)
        assert shard.layout.size == position
    assert len(names) == len(set(names))


@given(offset=st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_quant_state_fits_its_place_whatever_the_mean_of_the_scales_is(offset: float) -> None:
    tensor = next(t for t in REAL_RECIPE.tensors if t.kind == "nf4")
    text = quant_state_text(tensor.source, nested_offset=float(np.float32(offset)))
    assert len(text) <= tensor.pieces["quant_state"].nbytes


def test_the_table_adds_up_to_the_whole() -> None:
    recipe = REAL_RECIPE
    rows = recipe.by_part()
    headers = sum(len(shard.layout.header) for shard in recipe.shards)
    assert sum(row.source_bytes for row in rows) == 39_006_214_656
    assert sum(row.result_bytes for row in rows) == recipe.nbytes - headers
    experts = [row for row in rows if row.part is Part.LANGUAGE_EXPERT]
    assert experts[0].bits_per_weight == pytest.approx(4.127, abs=0.001)
