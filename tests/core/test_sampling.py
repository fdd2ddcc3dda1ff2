"""How tokens are chosen and answers ended."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cogvlm2_lite.engine.choose import (
    RepetitionGuard,
    StopTexts,
    TokenChooser,
    keep_likeliest,
    penalize,
    subtract_penalties,
)
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.sampling import Sampling

CPU = torch.device("cpu")


def test_the_default_takes_the_likeliest_token() -> None:
    logits = torch.tensor([0.1, 2.0, 1.9])
    assert TokenChooser(Sampling(), [], CPU).choose(logits) == 1


def test_top_k_one_is_greedy_at_any_temperature() -> None:
    logits = torch.tensor([0.1, 2.0, 1.9])
    chooser = TokenChooser(Sampling(temperature=5.0, top_k=1), [], CPU)
    assert {chooser.choose(logits) for _ in range(50)} == {1}


def test_a_seed_repeats_its_choices() -> None:
    logits = torch.zeros(100)
    runs = []
    for seed in (7, 7, 8):
        chooser = TokenChooser(Sampling(temperature=1.0, seed=seed), [], CPU)
        runs.append([chooser.choose(logits) for _ in range(20)])
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_samples_follow_the_probabilities() -> None:
    logits = torch.log(torch.tensor([0.7, 0.2, 0.1]))
    chooser = TokenChooser(Sampling(temperature=1.0, seed=1), [], CPU)
    counts = torch.bincount(torch.tensor([chooser.choose(logits) for _ in range(4000)]))
    assert torch.allclose(counts / 4000, torch.tensor([0.7, 0.2, 0.1]), atol=0.03)


def test_top_k_keeps_that_many() -> None:
    kept = keep_likeliest(torch.tensor([1.0, 4.0, 3.0, 2.0]), top_k=2, top_p=1.0)
    assert kept.isfinite().tolist() == [False, True, True, False]


def test_top_p_keeps_the_token_that_crosses_the_line() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    assert keep_likeliest(logits, 0, 0.6).isfinite().tolist() == [True, True, False, False]
    assert keep_likeliest(logits, 0, 0.5).isfinite().tolist() == [True, False, False, False]
    assert keep_likeliest(logits, 0, 1e-9).isfinite().tolist() == [True, False, False, False]


def test_the_penalty_makes_seen_tokens_less_likely_whatever_their_sign() -> None:
    logits = torch.tensor([2.0, -2.0, 1.0])
    assert penalize(logits, torch.tensor([0, 1]), 2.0).tolist() == [1.0, -4.0, 1.0]
    assert logits.tolist() == [2.0, -2.0, 1.0]


def test_the_penalty_counts_the_prompt_and_the_answer() -> None:
    chooser = TokenChooser(Sampling(repetition_penalty=10.0), [0], CPU)
    logits = torch.tensor([5.0, 4.0, 3.0])
    assert [chooser.choose(logits) for _ in range(3)] == [1, 2, 0]


def test_openais_penalties_count_the_answer_and_not_the_prompt() -> None:
    logits = torch.tensor([5.0, 4.5, 4.25])
    chooser = TokenChooser(Sampling(frequency_penalty=0.4), [0], CPU)
    # 5 | 4.6 4.5 | 4.2 4.5 | 4.2 4.1 4.25: a token loses 0.4 for each time it was chosen.
    assert [chooser.choose(logits) for _ in range(4)] == [0, 0, 1, 2]
    chooser = TokenChooser(Sampling(presence_penalty=2.0), [0], CPU)
    assert [chooser.choose(logits) for _ in range(4)] == [0, 1, 2, 0]
    found = subtract_penalties(logits, torch.tensor([2.0, 0.0, 1.0]), 0.5, -1.0)
    assert found.tolist() == pytest.approx([5.0, 4.5, 4.75])


@pytest.mark.parametrize(
    "settings",
    [
        {"frequency_penalty": 2.1},
        {"presence_penalty": -2.1},
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_k": -1},
        {"repetition_penalty": 0.0},
        {"max_new_tokens": 0},
        {"seed": -3},
        {"stop": ("",)},
        {"temperature": float("nan")},
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict[str, float]) -> None:
    name = "stop" if "stop" in settings else next(iter(settings))
    with pytest.raises(UsageError, match=name):
        Sampling(**settings)  # type: ignore[arg-type]


def feed(guard: RepetitionGuard, tokens: list[int]) -> int | None:
    """Index at which the guard speaks up, or None."""
    return next((i for i, token in enumerate(tokens) if guard.push(token)), None)


@pytest.mark.parametrize("period", [1, 2, 7, 24, 40, 64])
def test_a_loop_of_any_period_is_noticed(period: int) -> None:
    start = list(range(1000, 1050))
    found = feed(RepetitionGuard(), start + list(range(period)) * 300)
    assert found is not None
    assert found < len(start) + 5 * max(96, period)


def test_honest_repetition_is_left_alone() -> None:
    table_rule = [5] * 60
    refrain = list(range(30)) * 3
    assert feed(RepetitionGuard(), [*table_rule, 1, 2, 3, *refrain, 9]) is None


@given(st.lists(st.integers(0, 3), max_size=80))
def test_short_answers_never_trip_the_guard(tokens: list[int]) -> None:
    assert feed(RepetitionGuard(), tokens) is None


def test_a_stop_text_split_over_pieces_is_found_and_not_shown() -> None:
    stops = StopTexts(["\n\nHuman:"])
    shown = [stops.push(piece) for piece in ["Yes.", "\n", "\nHu", "man: no"]]
    assert shown == [("Yes.", False), ("", False), ("", False), ("", True)]


def test_what_only_looked_like_a_stop_text_is_shown_in_the_end() -> None:
    stops = StopTexts(["END"])
    assert stops.push("E") == ("", False)
    assert stops.push("N") == ("", False)
    assert stops.push("X") == ("ENX", False)
    assert stops.push("EN") == ("", False)
    assert stops.finish() == "EN"


@given(st.lists(st.text("ab", max_size=4), max_size=12), st.text("ab", min_size=1, max_size=4))
def test_stopping_equals_cutting_the_whole_text(pieces: list[str], stop: str) -> None:
    stops, shown = StopTexts([stop]), ""
    for piece in pieces:
        text, done = stops.push(piece)
        shown += text
        if done:
            break
    else:
        shown += stops.finish()
    assert shown == "".join(pieces).split(stop)[0]
