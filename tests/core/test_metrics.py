"""The numbers that tell how far two models are apart, against cases worked out by hand."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from cogvlm2_lite.evaluate.metrics import (
    TokenComparison,
    divergence,
    interval,
    log_softmax,
    ratio,
    summarise,
)


def tokens_of(
    kl: list[float], agree: list[bool], answer: list[int], picture: list[int]
) -> TokenComparison:
    """Make tokens that the reference always gets right."""
    return TokenComparison(
        kl=np.array(kl),
        agree=np.array(agree),
        reference_right=np.ones(len(kl), dtype=np.bool_),
        other_right=np.array(agree),
        answer=np.array(answer),
        picture=np.array(picture),
    )


def mean(values: np.ndarray, weights: np.ndarray) -> float:
    return float(values @ weights / weights.sum())


def test_scores_become_probabilities_that_sum_to_one_however_large_they_are() -> None:
    found = np.exp(log_softmax(np.array([[0.0, log(3)], [1000.0, 1000.0]], dtype=np.float32)))
    assert found == pytest.approx(np.array([[0.25, 0.75], [0.5, 0.5]]), rel=1e-6)


def test_the_divergence_of_a_fair_from_a_loaded_coin_is_the_textbooks() -> None:
    fair, loaded = np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])
    assert divergence(fair, loaded) == pytest.approx([0.5 * log(2) + 0.5 * log(2 / 3)])
    assert divergence(loaded, fair) == pytest.approx([0.25 * log(0.5) + 0.75 * log(1.5)])


def test_a_model_does_not_diverge_from_itself() -> None:
    same = log_softmax(np.random.default_rng(0).normal(size=(5, 100)))
    assert divergence(same, same).tolist() == [0.0] * 5


def test_words_that_the_reference_excludes_do_not_count() -> None:
    sure = np.array([[0.0, -np.inf]])
    assert divergence(sure, np.log([[0.5, 0.5]])) == pytest.approx([log(2)])


def test_a_summary_counts_words_and_whole_answers() -> None:
    found = summarise(
        tokens_of([0.0, 0.2, 0.0, 0.2], [True, False, True, True], [0, 0, 1, 2], [0] * 4)
    )
    assert found.kl_mean.value == pytest.approx(0.1)
    assert found.kl_p99.value == 0.2
    assert found.top1.value == 0.75
    assert found.changed.value == pytest.approx(1 / 3)
    assert found.reference_exact.value == 1
    assert found.other_exact.value == pytest.approx(2 / 3)
    assert (found.pictures, found.answers, found.tokens) == (1, 3, 4)


def test_no_answers_is_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no answer has a token"):
        summarise(tokens_of([], [], [], []))


def test_the_99th_percentile_passes_over_one_word_in_a_hundred() -> None:
    values = [0.0] * 99 + [5.0]
    found = summarise(tokens_of(values, [True] * 100, [0] * 100, [0] * 100))
    assert found.kl_p99.value == 0.0
    found = summarise(tokens_of([*values[1:], 5.0], [True] * 100, [0] * 100, [0] * 100))
    assert found.kl_p99.value == 5.0


def test_an_interval_is_by_picture_and_not_by_word() -> None:
    """A thousand words of one picture say no more than one: nothing is left to resample."""
    values = np.random.default_rng(0).normal(size=1000)
    one = interval(values, np.zeros(1000, dtype=np.int64), mean)
    assert one.low == one.high == pytest.approx(one.value)
    many = interval(values, np.arange(1000), mean)
    assert many.low < many.value < many.high
    assert many.high - many.low == pytest.approx(2 * 1.96 / 1000**0.5, rel=0.15)


def test_an_interval_is_the_same_for_a_seed() -> None:
    values, pictures = np.arange(30.0), np.arange(30)
    assert interval(values, pictures, mean, seed=1) == interval(values, pictures, mean, seed=1)
    assert interval(values, pictures, mean, seed=1) != interval(values, pictures, mean, seed=2)


def test_a_ratio_is_that_of_the_sums_and_paired_by_picture() -> None:
    below = np.random.default_rng(0).uniform(0, 9, size=60)
    pictures = np.repeat(np.arange(20), 3)
    found = ratio(below / 4, below, pictures)
    assert (found.value, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    with pytest.raises(ValueError, match="zero everywhere"):
        ratio(below, 0 * below, pictures)
