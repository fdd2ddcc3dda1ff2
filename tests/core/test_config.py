"""config.json is read strictly: a wrong guess would be a wrong answer."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from cogvlm2_lite.config import parse_config, read_config
from cogvlm2_lite.errors import CheckpointError
from tests.helpers.shapes import REAL, REAL_JSON


def test_the_released_file_gets_the_defaults_it_leaves_out() -> None:
    assert "num_multi_query_heads" not in REAL_JSON
    assert REAL.num_multi_query_heads == 8
    assert REAL.qkv_rows == 6144
    assert REAL.eos_token_ids == (128001, 128009)


def test_a_single_end_token_is_a_list_of_one() -> None:
    assert parse_config({**REAL_JSON, "eos_token_id": 128001}).eos_token_ids == (128001,)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"rope_scaling": {"factor": 2}}, "rope_scaling"),
        ({"hidden_size": "4096"}, "hidden_size"),
        ({"hidden_size": 4095}, "num_attention_heads"),
        ({"hidden_size": -1}, "hidden_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be a whole number from 1 to 1024"),
        ({"num_hidden_layers": 1.5}, "num_hidden_layers"),
        ({"num_multi_query_heads": 5}, "num_multi_query_heads"),
        ({"num_multi_query_heads": True}, "num_multi_query_heads"),
        ({"tie_word_embeddings": True}, "tied"),
        ({"eos_token_id": None}, "eos_token_id"),
        ({"eos_token_id": []}, "eos_token_id"),
        ({"eos_token_id": 999_999}, "vocab_size"),
        ({"template_version": "other"}, "template_version"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"vision_config": None}, "vision_config"),
        ({"hidden_size": math.nan}, "hidden_size"),
        ({"rms_norm_eps": math.inf}, "rms_norm_eps"),
        ({"rms_norm_eps": math.nan}, "rms_norm_eps must be a number from 0"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps"),
        ({"hidden_act": 1}, "hidden_act must be a string"),
        ({"bos_token_id": -1}, "bos_token_id"),
        ({"num_hidden_layers": 10**30}, "num_hidden_layers"),
        ({"num_hidden_layers": 1025}, "num_hidden_layers must be a whole number from 1 to 1024"),
        ({"max_position_embeddings": 0}, "max_position_embeddings"),
        ({"intermediate_size": 0}, "intermediate_size must be a whole number"),
        ({"eos_token_id": True}, "eos_token_id"),
        ({"hidden_size": 32 * 33}, "even"),
    ],
)
def test_a_wrong_value_is_named(change: dict[str, Any], word: str) -> None:
    with pytest.raises(CheckpointError, match=word):
        parse_config({**REAL_JSON, **change})


@pytest.mark.parametrize("key", ["hidden_size", "bos_token_id", "rms_norm_eps"])
def test_a_missing_number_is_named(key: str) -> None:
    raw = {name: value for name, value in REAL_JSON.items() if name != key}
    with pytest.raises(CheckpointError, match=key):
        parse_config(raw)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"num_positions": 1025}, "num_positions"),
        ({"patch_size": 0}, "patch_size must be a whole number from 1"),
        ({"num_heads": 5}, "num_heads"),
        ({"in_channels": 1}, "in_channels"),
        ({"image_size": 14, "num_positions": 2}, "2 x 2 patches"),
        ({"hidden_act": "quick_gelu"}, "hidden_act"),
    ],
)
def test_a_wrong_vision_number_is_named(change: dict[str, Any], word: str) -> None:
    vision = {**REAL_JSON["vision_config"], **change}
    with pytest.raises(CheckpointError, match=word):
        parse_config({**REAL_JSON, "vision_config": vision})


def test_a_whole_number_with_a_point_is_a_count() -> None:
    config = parse_config({**REAL_JSON, "hidden_size": 4096.0})
    assert type(config.hidden_size) is int


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"hidden_size": 1', '{"hidden_size": NaN}', "[" * 100_000]
)
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_config(tmp_path)


def test_a_folder_without_config_says_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_config(tmp_path)
    assert "safetensors" in caught.value.hint


def test_the_golden_checkpoint_is_read() -> None:
    folder = Path(__file__).parents[1] / "golden" / "a" / "checkpoint"
    config = read_config(folder)
    raw = json.loads((folder / "config.json").read_text())
    assert config.vision.image_tokens == 11
    assert config.num_multi_query_heads == raw["num_multi_query_heads"]
