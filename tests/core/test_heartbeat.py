"""When a step is taken for hung, and when it is only slow."""

from __future__ import annotations

from cogvlm2_lite.worker.heartbeat import (
    BEAT_S,
    FIRST_STEP_S,
    LEAST_STEP_S,
    TIMES_THE_LONGEST,
    Pulse,
)


def looked(pulse: Pulse, kind: str, steps: int, times: int) -> Pulse:
    for _ in range(times):
        pulse.look(kind, steps, busy=True)
    return pulse


def test_a_first_step_may_take_long() -> None:
    pulse = looked(Pulse(), "decode", 0, 50)
    assert pulse.still_s == 49 * BEAT_S
    assert pulse.plausible_s == FIRST_STEP_S


def test_what_is_plausible_follows_the_longest_step_of_the_same_kind() -> None:
    pulse = looked(Pulse(), "encode", 0, 31)
    pulse.look("decode", 1, busy=True)
    assert pulse.plausible_s == FIRST_STEP_S, "of decoding nothing is known yet"
    pulse.look("decode", 2, busy=True)
    assert pulse.plausible_s == LEAST_STEP_S
    pulse.look("encode", 3, busy=True)
    assert pulse.plausible_s == TIMES_THE_LONGEST * 30 * BEAT_S


def test_waiting_for_work_is_no_step() -> None:
    pulse = Pulse()
    for _ in range(500):
        pulse.look("decode", 7, busy=False)
    assert pulse.still_s == 0
    pulse.look("decode", 7, busy=True)
    assert pulse.still_s == 0
    assert pulse.longest_s("decode") is None
