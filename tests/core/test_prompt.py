"""The prompt of the released model: words, ids, positions, routing and the context."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file

from cogvlm2_lite.config import read_config
from cogvlm2_lite.errors import PromptTooLongError, UsageError
from cogvlm2_lite.events import Turn
from cogvlm2_lite.inputs.prompt import (
    build_prompt,
    choose_vision_expert,
    derive_position_ids,
    encode_prompt,
    token_types,
)

GOLDEN = Path(__file__).parents[1] / "golden"
PROMPTS = json.loads((GOLDEN / "prompts.json").read_text(encoding="utf-8"))
NUMBERS = load_file(GOLDEN / "a" / "golden_fp32.safetensors")
CONFIG = read_config(GOLDEN / "a" / "checkpoint")  # context 512, 11 image tokens
LAYOUTS = ["one_image", "text_only", "multi_turn", "image_mid", "two_images"]


class Letters:
    """A tokenizer with one id per UTF-8 byte, as the prompt goldens were counted with."""

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, text: str) -> list[int]:
        self.calls += 1
        return list(text.encode())


@pytest.mark.parametrize("case", PROMPTS["cases"])
def test_the_prompt_equals_the_released_one_character_for_character(case: dict[str, Any]) -> None:
    text = build_prompt(case["query"], case["history"], template=case["template_version"])
    assert text == case["text"]


@pytest.mark.parametrize("case", PROMPTS["cases"])
def test_the_ids_are_bos_then_placeholders_then_text(case: dict[str, Any]) -> None:
    ids = encode_prompt(
        Letters(), CONFIG, case["query"], history=case["history"] or (),
        has_image=case["has_image"], template=case["template_version"],
    )  # fmt: skip
    image = case["n_vision_tokens"]
    expected = [500] + [502] * image + list(case["text"].encode())
    assert ids.input_ids.tolist() == [expected]
    assert ids.tokens == case["n_tokens"]
    assert ids.image_tokens == image
    assert ids.token_type_ids.tolist() == [[0] + [1] * image + [0] * len(case["text"].encode())]
    assert ids.dropped_turns == 0
    assert {a.dtype for a in (ids.input_ids, ids.token_type_ids, ids.position_ids)} == {
        np.dtype(np.int64)
    }


def test_a_turn_and_a_pair_give_the_same_prompt() -> None:
    assert build_prompt("c", [Turn("a", "b")]) == build_prompt("c", [("a", "b")])


def test_an_unknown_template_is_refused_with_the_known_ones() -> None:
    for template in ("foo", "Chat", ""):
        with pytest.raises(UsageError) as caught:
            build_prompt("q", template=template)
        assert "chat, vqa, base" in caught.value.hint


def test_the_template_of_the_config_is_the_default() -> None:
    short = replace(CONFIG, template_version="vqa")
    ids = encode_prompt(Letters(), short, "What?").input_ids[0, 1:]
    assert bytes(ids.tolist()) == b"Question: What? Short answer:"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_positions_and_experts_equal_the_released_ones(layout: str) -> None:
    types = NUMBERS[f"{layout}.token_type_ids"]
    np.testing.assert_array_equal(derive_position_ids(types), NUMBERS[f"{layout}.position_ids"])
    np.testing.assert_array_equal(
        choose_vision_expert(types), NUMBERS[f"{layout}.vision_expert_mask"].astype(bool)
    )


def test_positions_of_a_padded_batch_equal_the_released_ones() -> None:
    found = derive_position_ids(
        NUMBERS["leftpad.token_type_ids"], NUMBERS["leftpad.attention_mask"]
    )
    np.testing.assert_array_equal(found, NUMBERS["leftpad.position_ids"])
    assert found.dtype == np.int64


def test_the_worked_example_of_the_rule_holds() -> None:
    types = np.array([[0, 1, 1, 1, 1, 0, 0]])
    assert derive_position_ids(types).tolist() == [[0, 1, 2, 2, 3, 4, 5]]
    assert choose_vision_expert(types).tolist() == [[False, True, True, True] + [False] * 3]


def test_the_real_picture_takes_three_new_positions() -> None:
    types = token_types(image_tokens=2306, text_tokens=2)
    positions = derive_position_ids(types)[0]
    assert positions[[0, 1, 2, 2305, 2306, 2307, 2308]].tolist() == [0, 1, 2, 2, 3, 4, 5]
    assert int(choose_vision_expert(types).sum()) == 2305
    assert types.shape == (1, 2309)


def slow_positions(types: list[int], mask: list[int]) -> list[int]:
    """The rule word by word: one token after the other, no vector arithmetic."""
    kinds = [
        "pad" if not real else "language" if kind == 0 else "vision"
        for kind, real in zip(types, mask, strict=True)
    ]
    boundary = []
    for i, kind in enumerate(kinds):
        left = i == 0 or kinds[i - 1] == "language"
        right = i == len(kinds) - 1 or kinds[i + 1] == "language"
        boundary.append(kind == "vision" and (left or right))
    counted = [kind == "language" or edge for kind, edge in zip(kinds, boundary, strict=True)]
    positions = [0] if kinds else []
    for i in range(1, len(kinds)):
        after_counted = kinds[i] == "vision" and counted[i - 1]
        positions.append(positions[-1] + (1 if counted[i] or after_counted else 0))
    return positions


def slow_experts(types: list[int]) -> list[bool]:
    return [types[i] == 1 and i + 1 < len(types) and types[i + 1] == 1 for i in range(len(types))]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), max_size=40))
def test_positions_follow_the_written_rule_for_any_layout(row: list[tuple[int, int]]) -> None:
    types = [kind for kind, _ in row]
    mask = [real for _, real in row]
    array, real = np.array([types], dtype=np.int64), np.array([mask], dtype=np.int64)
    ones = [1] * len(row)
    assert derive_position_ids(array).tolist() == [slow_positions(types, ones)]
    assert derive_position_ids(array, real).tolist() == [slow_positions(types, mask)]
    assert choose_vision_expert(array).tolist() == [slow_experts(types)]


@given(st.integers(1, 4), st.integers(1, 12), st.randoms(use_true_random=False))
def test_rows_of_a_batch_do_not_see_each_other(batch: int, tokens: int, random) -> None:  # type: ignore[no-untyped-def]
    rows = [[random.randint(0, 1) for _ in range(tokens)] for _ in range(batch)]
    types: NDArray[np.int64] = np.array(rows, dtype=np.int64)
    alone = [derive_position_ids(types[i : i + 1])[0].tolist() for i in range(batch)]
    assert derive_position_ids(types).tolist() == alone


def conversation(turns: int) -> list[Turn]:
    return [Turn(f"question {i}", f"answer {i}") for i in range(turns)]


def test_the_oldest_turns_are_dropped_when_the_context_is_full() -> None:
    history = conversation(40)
    ids = encode_prompt(Letters(), CONFIG, "last?", history=history, has_image=True)
    assert 0 < ids.dropped_turns < 40
    kept = build_prompt("last?", history[ids.dropped_turns :])
    assert bytes(ids.input_ids[0, 12:].tolist()).decode() == kept
    assert ids.image_tokens == 11  # the picture stays
    # A quarter of 512 stays free for the answer, and one turn more would not have left it.
    longer = build_prompt("last?", history[ids.dropped_turns - 1 :])
    assert ids.room >= 128
    assert 512 - 12 - len(longer.encode()) < 128
    assert ids.tokens + ids.room == 512


def test_a_short_answer_needs_less_room() -> None:
    history = conversation(40)
    few = encode_prompt(Letters(), CONFIG, "last?", history=history, max_new_tokens=8)
    many = encode_prompt(Letters(), CONFIG, "last?", history=history, max_new_tokens=100_000)
    assert few.dropped_turns < many.dropped_turns
    assert few.room >= 8


def test_a_long_history_is_cut_with_few_encodings() -> None:
    letters = Letters()
    ids = encode_prompt(letters, CONFIG, "last?", history=conversation(5000))
    kept = 5000 - ids.dropped_turns
    assert letters.calls < 25 + kept


def test_all_turns_go_when_the_question_needs_the_whole_context() -> None:
    ids = encode_prompt(Letters(), CONFIG, "q" * 470, history=conversation(3))
    assert ids.dropped_turns == 3
    assert ids.room >= 8


def test_a_question_longer_than_the_context_is_refused_with_numbers() -> None:
    with pytest.raises(PromptTooLongError) as caught:
        encode_prompt(Letters(), CONFIG, "q" * 500, has_image=True, history=conversation(2))
    assert "518 tokens and the picture 11" in caught.value.message
    assert "512" in caught.value.message
    assert "Shorten" in caught.value.hint


def test_a_question_that_leaves_no_room_for_an_answer_is_refused() -> None:
    fits = 512 - 1 - len(build_prompt("").encode()) - 8
    assert encode_prompt(Letters(), CONFIG, "q" * fits).room == 8
    with pytest.raises(PromptTooLongError):
        encode_prompt(Letters(), CONFIG, "q" * (fits + 1))


def test_a_smaller_planned_context_is_kept_to() -> None:
    whole = encode_prompt(Letters(), CONFIG, "last?", history=conversation(30))
    small = encode_prompt(Letters(), CONFIG, "last?", history=conversation(30), context=128)
    assert small.tokens + small.room == 128
    assert small.dropped_turns > whole.dropped_turns
    with pytest.raises(PromptTooLongError) as caught:
        encode_prompt(Letters(), CONFIG, "q" * 130, context=128)
    assert "the context has room for 128" in caught.value.message
    assert "at most 512 tokens" in caught.value.hint
    # More than the model has is no more than the model has.
    assert encode_prompt(Letters(), CONFIG, "a?", context=9999).room == whole.room + (
        whole.tokens - encode_prompt(Letters(), CONFIG, "a?").tokens
    )


@pytest.mark.parametrize("has_image", [True, False])
def test_boundaries_are_after_the_picture_and_after_each_kept_turn(has_image: bool) -> None:
    history = conversation(30)
    ids = encode_prompt(Letters(), CONFIG, "last?", history=history, has_image=has_image)
    kept = history[ids.dropped_turns :]
    image_end = 12 if has_image else 1
    texts = [build_prompt("", kept[:n])[: -len("Question:  Answer:")] for n in range(len(kept) + 1)]
    expected = [image_end + len(text.encode()) for text in texts]
    assert list(ids.boundaries) == (expected if has_image else expected[1:])


def test_the_next_question_shares_all_boundaries_of_the_one_before() -> None:
    first = encode_prompt(Letters(), CONFIG, "a?", history=conversation(2), has_image=True)
    later = encode_prompt(Letters(), CONFIG, "b?", history=conversation(3), has_image=True)
    assert later.boundaries[: len(first.boundaries)] == first.boundaries
    shared = first.boundaries[-1]
    assert first.input_ids[0, :shared].tolist() == later.input_ids[0, :shared].tolist()


class Greedy(Letters):
    """Joins a line's end with the letter after it into one token."""

    def encode(self, text: str) -> list[int]:
        return list(text.replace("\nQ", "\1").encode())


def test_a_token_across_the_end_of_a_turn_makes_it_no_boundary() -> None:
    ids = encode_prompt(Greedy(), CONFIG, "q", history=conversation(3), has_image=True)
    assert ids.boundaries == (12,)


def test_base_keeps_no_history_and_so_drops_none() -> None:
    ids = encode_prompt(Letters(), CONFIG, "q", history=conversation(500), template="base")
    assert ids.dropped_turns == 0
    assert ids.tokens == 2


def test_prompt_ids_are_frozen() -> None:
    ids = encode_prompt(Letters(), CONFIG, "q")
    with pytest.raises(FrozenInstanceError):
        ids.room = 3
