"""Conversations to tokens and labels, against the released builder and our own rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cogvlm2_lite.config import read_config
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.inputs.prompt import derive_position_ids
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.rows.labels import NO_LABEL, Labelled, Labeller
from cogvlm2_lite.rows.read import Turn
from tests.helpers.finetune import FINETUNE

CASES: list[dict[str, Any]] = json.loads((FINETUNE / "labels.json").read_text())["conversations"]
DEMO = Path(model_folder("demo"))


def turns(case: dict[str, Any]) -> list[Turn]:
    talk = [entry["content"] for entry in case["conversation"]]
    return [Turn(q, a) for q, a in zip(talk[::2], talk[1::2], strict=True)]


def label(case: dict[str, Any]) -> list[Labelled | tuple[int, Any]]:
    labeller = Labeller(
        Tokenizer.from_folder(DEMO),
        read_config(DEMO),
        template=case["template"],
        max_tokens=case["max_tokens"],
    )
    return list(labeller.samples(turns(case), has_picture=case["picture"]))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_ids_types_positions_and_labels(case: dict[str, Any]) -> None:
    ours = label(case)
    assert len(ours) == len(case["samples"])
    for made, wanted in zip(ours, (sample["ours"] for sample in case["samples"]), strict=True):
        if "skipped" in wanted:
            assert isinstance(made, tuple)
            assert made[1].value == wanted["skipped"]
            continue
        assert isinstance(made, Labelled)
        for name in ("input_ids", "token_type_ids", "labels"):
            assert getattr(made, name)[0].tolist() == wanted[name]
        assert derive_position_ids(made.token_type_ids)[0].tolist() == wanted["position_ids"]
        for name in ("dropped_turns", "cut", "trained_tokens"):
            assert getattr(made, name) == wanted[name]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_where_the_released_code_is_right_we_do_the_same(case: dict[str, Any]) -> None:
    # What it does otherwise is told by the names of the cases.
    if any(word in case["name"] for word in ("too long", "white space", "empty", "special")):
        pytest.skip("the released code loses something here")
    for made, sample in zip(label(case), case["samples"], strict=True):
        assert isinstance(made, Labelled)
        for name in ("input_ids", "token_type_ids", "labels"):
            assert getattr(made, name)[0].tolist() == sample["released"][name]


def test_the_released_width_of_a_picture_would_lose_the_end() -> None:
    """Its padding counts 2303 image tokens where 2306 are used, so long answers lose their end."""
    cut = [
        sample["demo_with_28_text_tokens"]
        for case in CASES
        for sample in case["samples"]
        if not sample.get("demo_with_28_text_tokens", {}).get("end_is_trained", True)
    ]
    assert cut
    for case in CASES:
        for made in label({**case, "max_tokens": 128}):
            if isinstance(made, Labelled):
                trained = made.labels[made.labels != NO_LABEL]
                assert trained[-1] == read_config(DEMO).eos_token_ids[0]
                assert not made.cut


def test_a_past_that_is_only_shown_gets_no_sample() -> None:
    labeller = Labeller(Tokenizer.from_folder(DEMO), read_config(DEMO))
    talk = [Turn("What color?", "red", trained=False), Turn("And now?", "blue")]
    (made,) = labeller.samples(talk, has_picture=True)
    assert isinstance(made, Labelled)
    assert made.turn == 2
    spaced = Labeller(Tokenizer.from_folder(DEMO), read_config(DEMO), space=True)
    (other,) = spaced.samples(talk, has_picture=True)
    assert isinstance(other, Labelled)
    assert not np.array_equal(made.labels, other.labels)
