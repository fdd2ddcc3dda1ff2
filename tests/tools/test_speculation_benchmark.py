"""The benchmark of speculation: the engine with known texts in place of a model."""

from __future__ import annotations

import pytest

from benchmarks.speculation import ROWS, TASKS, KnownText, measure_task, seconds_of
from benchmarks.speculation_texts import LETTER, NOTICE_ZH, with_wrong_letters
from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.engine.model import load
from cogvlm2_lite.inputs.tokenizer import Tokenizer


def test_a_share_of_the_letters_is_wrong_and_nothing_else() -> None:
    for text in (LETTER, NOTICE_ZH):
        letters = sum(letter.isalnum() for letter in text)
        assert with_wrong_letters(text, 0.0, 1) == text
        wrong = with_wrong_letters(text, 0.1, 1)
        assert wrong == with_wrong_letters(text, 0.1, 1)
        assert wrong.count("\n") == text.count("\n")
        if len(wrong) == len(text):
            changed = sum(a != b for a, b in zip(wrong, text, strict=True))
            assert 0.05 < changed / letters < 0.15


def test_the_engine_answers_with_a_known_text_in_fewer_passes_where_a_draft_helps() -> None:
    model = load("demo", device="cpu", dtype="float32")
    tokenizer = Tokenizer.from_folder(checkpoint_folder())
    alike = KnownText(model.runtime, tokenizer, dict.fromkeys(ROWS, 0.1))
    gains = {
        title: measure_task(model, alike, tokenizer, TASKS[title])
        for title in ("a second question", "prose")
    }
    assert gains["a second question"]["times_as_fast"] > 2
    assert gains["prose"]["times_as_fast"] >= 1


def test_times_between_those_that_were_measured_are_interpolated() -> None:
    times = {1: 1.0, 4: 2.5, 8: 3.0}
    assert [seconds_of(times, rows) for rows in (1, 2, 4, 6)] == pytest.approx([1, 1.5, 2.5, 2.75])
