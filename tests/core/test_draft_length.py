"""How many draft tokens a decode step computes follows from chances and from measured times."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cogvlm2_lite.engine.draft_length import PassTimes, draft_lengths


def linear(slope: float) -> Callable[[int], float]:
    return lambda rows: 1 + slope * (rows - 1)


SURE = [1.0] * 31
LIKELY = [0.8**n for n in range(1, 32)]


def test_certain_tokens_fill_the_step_where_rows_are_cheap() -> None:
    assert draft_lengths([SURE], linear(0.1)) == [31]
    assert draft_lengths([SURE], linear(0.0)) == [31]
    assert sum(draft_lengths([SURE, SURE, []], linear(0.0))) == 29


def test_a_draft_that_costs_more_than_it_may_save_is_not_computed() -> None:
    assert draft_lengths([[0.3, 0.1]], linear(0.5)) == [0]
    assert draft_lengths([SURE], linear(1.0)) == [0]
    assert draft_lengths([[0.05]], linear(0.04)) == [0]  # it would gain less than 2 %


def test_lengths_grow_with_the_chances_and_with_cheap_rows() -> None:
    lengths = [draft_lengths([LIKELY], linear(slope))[0] for slope in (0.5, 0.2, 0.05, 0.0)]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1] == 31 - LIKELY.count(0.0)
    unsure = [0.5**n for n in range(1, 32)]
    assert draft_lengths([unsure], linear(0.1)) < draft_lengths([LIKELY], linear(0.1))


def test_one_good_draft_does_not_make_the_other_answers_much_slower() -> None:
    others: list[list[float]] = [[]] * 7
    step = linear(0.1)
    length, *rest = draft_lengths([SURE, *others], step)
    assert rest == [0] * 7
    assert step(8 + length) < 1.5 * step(8)


def test_no_more_rows_than_the_plan_has_room_for() -> None:
    assert sum(draft_lengths([SURE] * 5, linear(0.0))) == 27
    assert draft_lengths([SURE] * 40, linear(0.0)) == [0] * 40
    assert draft_lengths([], linear(0.0)) == []


def test_times_that_are_not_measured_follow_from_those_that_are() -> None:
    times = PassTimes()
    assert times.seconds(1) == 1
    assert 1 < times.seconds(8) < 4
    times.note(1, 2.0)
    assert times.seconds(1) == 2
    assert times.seconds(8) == pytest.approx(2 * PassTimes().seconds(8))
    times.note(8, 2.1)  # as where weights are streamed
    assert times.seconds(8) == pytest.approx(2.1)
    assert 2.1 < times.seconds(16) < 2 * times.seconds(8)
    times.forget()
    assert times.seconds(1) == 1


def test_a_single_slow_step_and_old_ones_do_not_count() -> None:
    times = PassTimes()
    for seconds in (1.0, 50.0, 1.0):
        times.note(1, seconds)
    assert times.seconds(1) == 1
    times.note(4, 100.0)
    for _ in range(64):
        times.note(1, 1.0)
    assert times.seconds(4) < 2


def test_a_larger_step_never_takes_less_time() -> None:
    times = PassTimes()
    times.note(1, 3.0)
    times.note(16, 1.0)
    found = [times.seconds(rows) for rows in range(1, 40)]
    assert found == sorted(found)
