"""When a step is taken for hung, and when it is only slow."""

from __future__ import annotations

from cogvlm2_lite.worker.heartbeat import (
    FIRST_STEP_S,
    HEARTBEAT_S,
    LEAST_STEP_S,
    TIMES_THE_LONGEST,
    StepTimer,
)


def looked(timer: StepTimer, kind: str, steps: int, times: int) -> StepTimer:
    for _ in range(times):
        timer.look(kind, steps, busy=True)
    return timer


def test_a_first_step_may_take_long() -> None:
    timer = looked(StepTimer(), "decode", 0, 50)
    assert timer.stalled_s == 49 * HEARTBEAT_S
    assert timer.plausible_s == FIRST_STEP_S


def test_what_is_plausible_follows_the_longest_step_of_the_same_kind() -> None:
    timer = looked(StepTimer(), "encode", 0, 31)
    timer.look("decode", 1, busy=True)
    assert timer.plausible_s == FIRST_STEP_S, "of decoding nothing is known yet"
    timer.look("decode", 2, busy=True)
    assert timer.plausible_s == LEAST_STEP_S
    timer.look("encode", 3, busy=True)
    assert timer.plausible_s == TIMES_THE_LONGEST * 30 * HEARTBEAT_S


def test_waiting_for_work_is_no_step() -> None:
    timer = StepTimer()
    for _ in range(500):
        timer.look("decode", 7, busy=False)
    assert timer.stalled_s == 0
    timer.look("decode", 7, busy=True)
    assert timer.stalled_s == 0
    assert timer.longest_s("decode") is None
