"""The status line: phase, share and time left, which are true and do not jump."""

from __future__ import annotations

from itertools import pairwise

import pytest

from cogvlm2_lite.events import Event, ImageEncoded, Prefilled, Progress, Replanned, TextDelta
from cogvlm2_lite.text import Text
from gui.chat.progress import Estimate, Phase, describe, format_left
from tests.helpers.desk import Desk, Script

GIB = 1 << 30


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def encode(done: int, total: int = 63) -> Progress:
    return Progress(phase="encode", done=done, total=total, held_bytes=GIB)


def test_share_and_time_left_follow_the_blocks() -> None:
    clock = Clock()
    estimate = Estimate(100, clock)
    assert estimate.phase() == Phase(name="start")
    shares, left = [], []
    for block in range(1, 64):
        clock.now += 2.0  # weights come from the disk
        estimate.see(encode(block))
        phase = estimate.phase()
        assert phase.name == "encode"
        shares.append(phase.share)
        if phase.left_s is not None:
            left.append(phase.left_s - 2.0 * (63 - block))
    assert shares == [block / 63 for block in range(1, 64)]
    assert all(abs(error) < 3 for error in left)
    assert len(left) > 58


def test_time_left_counts_down_between_two_events_and_does_not_jump() -> None:
    clock = Clock()
    estimate = Estimate(100, clock)
    shown = []
    for block in range(1, 64):
        for _ in range(10):
            clock.now += 0.1 if block % 2 else 0.4  # some blocks are resident, others are not
            left = estimate.phase().left_s
            if left is not None:
                shown.append(left)
        estimate.see(encode(block))
    steps = [after - before for before, after in pairwise(shown)]
    assert max(steps) < 4
    assert sum(step > 1 for step in steps) < 6


def test_an_event_of_the_past_does_not_take_the_share_back_but_a_new_plan_does() -> None:
    clock = Clock()
    estimate = Estimate(100, clock)
    estimate.see(encode(30))
    estimate.see(encode(10))
    assert estimate.phase().share == 30 / 63
    estimate.see(Replanned(text=Text("Memory ran out."), budget_bytes=(1,)))
    assert estimate.phase().share is None
    estimate.see(encode(1))
    assert estimate.phase().share == 1 / 63


def test_the_phases_of_an_answer_follow_each_other() -> None:
    clock = Clock()
    estimate = Estimate(11, clock)
    seen = []
    events: list[Event] = [
        encode(1),
        ImageEncoded(image_tokens=3, seconds=1, reused=False),
        Progress(phase="prefill", done=1, total=2),
        Prefilled(tokens=3, reused_tokens=0, seconds=1),
        Progress(phase="prefill", done=1, total=2),  # the answer that is continued
        *(TextDelta(text="a") for _ in range(6)),
    ]
    for event in events:
        clock.now += 2
        estimate.see(event)
        seen.append(estimate.phase().name)
    assert list(dict.fromkeys(seen)) == ["encode", "prefill", "decode", "resume"]
    assert seen[-1] == "decode"
    phase = estimate.phase()
    assert phase.tokens == 6
    assert phase.token_s == pytest.approx(2.0)
    assert phase.left_s == pytest.approx(10.0, abs=3)


@pytest.mark.parametrize(
    ("phase", "text"),
    [
        (Phase(name="start"), "Preparing…"),
        (
            Phase(name="encode", share=0.437, left_s=21.0, held_bytes=3 * GIB),
            "Looking at the picture: 43 %, about 20 s left, 3.00 GiB",
        ),
        (Phase(name="prefill", share=0.5, left_s=0.2), "Reading the question: 50 %"),
        (
            Phase(name="decode", share=0.1, left_s=300, tokens=5, token_s=0.25),
            "Answering: 4.0 tokens/s, at most 5 min left",
        ),
        (
            Phase(name="decode", tokens=5, token_s=12.0, next_s=7.6),
            "Answering: 12.0 s per token, the next in 8 s",
        ),
        (
            Phase(name="decode", tokens=5, token_s=12.0, token_share=0.36, next_s=7.6),
            "Answering: 12.0 s per token, next token 36 %, the next in 8 s",
        ),
        (
            Phase(name="decode", share=0.1, left_s=5000, tokens=5, token_s=12.0),
            "Answering: 12.0 s per token, at most 1 h 25 min left",
        ),
    ],
)
def test_a_phase_in_words(phase: Phase, text: str) -> None:
    assert describe(phase) == text


def test_a_slow_token_is_counted_down() -> None:
    clock = Clock()
    estimate = Estimate(1000, clock)
    for _ in range(4):
        clock.now += 10.0
        estimate.see(TextDelta(text="a"))
    left = []
    for _ in range(12):
        clock.now += 1.0
        left.append(estimate.phase().next_s)
    assert left == pytest.approx([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0, 0.0, 0.0])


def decode(done: int, total: int = 32) -> Progress:
    return Progress(phase="decode", done=done, total=total, held_bytes=GIB)


def test_the_first_token_that_takes_long_has_a_share_and_a_time_left() -> None:
    clock = Clock()
    estimate = Estimate(10, clock)
    estimate.see(Prefilled(tokens=3, reused_tokens=0, seconds=1))
    estimate.see(TextDelta(text="a"))
    shown = []
    for done in range(1, 32):
        clock.now += 1.0
        estimate.see(decode(done))
        shown.append(estimate.phase())
    assert [phase.token_share for phase in shown] == [done / 32 for done in range(1, 32)]
    assert {phase.name for phase in shown} == {"decode"}
    assert {phase.token_s for phase in shown} == {32.0}
    assert [phase.next_s for phase in shown] == [32.0 - done for done in range(1, 32)]
    lefts = [phase.left_s for phase in shown[2:]]
    assert all(
        left is not None and left == pytest.approx(9 * 32 - done, abs=3)
        for done, left in enumerate(lefts, 3)
    )
    clock.now += 1.0
    estimate.see(TextDelta(text="b"))
    assert estimate.phase().token_share is None
    assert estimate.phase().token_s == 32.0


def test_a_token_that_is_slower_than_the_others_gets_its_own_time_left() -> None:
    clock = Clock()
    estimate = Estimate(10, clock)
    for _ in range(3):
        clock.now += 4.0
        estimate.see(TextDelta(text="a"))
    clock.now += 6.0
    estimate.see(decode(8))
    assert estimate.phase().next_s == pytest.approx(18.0)


def test_tokens_of_an_answer_that_is_continued_keep_its_phase() -> None:
    estimate = Estimate(10, Clock())
    estimate.see(Prefilled(tokens=3, reused_tokens=0, seconds=1))
    estimate.see(Progress(phase="prefill", done=1, total=4))
    estimate.see(decode(16))
    assert (estimate.phase().name, estimate.phase().share) == ("resume", 0.25)


def test_a_time_left_in_words() -> None:
    times = (0.2, 7.4, 12.9, 57.4, 59.0, 130.0, 3590.0, 4000.0)
    assert [format_left(t) for t in times] == [
        "1 s", "7 s", "15 s", "55 s", "1 min", "2 min", "1 h 0 min", "1 h 5 min",
    ]  # fmt: skip


def test_the_waiting_answer_and_the_status_line_show_the_phase(desk: Desk, script: Script) -> None:
    script.hold, script.events = True, [encode(21)]
    desk.open_demo()
    desk.chat.composer.setPlainText("What?")
    desk.chat.send()
    conversation = desk.chat.conversation
    assert conversation is not None
    text = "Looking at the picture: 33 %, 1.00 GiB"
    desk.qtbot.waitUntil(lambda: desk.chat.status.text() == text)
    view = desk.chat.transcript.view_of(conversation.path()[0].id)
    assert view.answer.toPlainText() == text
    assert desk.chat.progress.isVisible()
    assert desk.chat.progress.value() == 333
    script.events = [TextDelta(text="Red.")]
    desk.engine_says_all()
    desk.qtbot.waitUntil(lambda: not desk.chat.busy)
    assert desk.chat.status.text() == "Ready"
    assert not desk.chat.progress.isVisible()
