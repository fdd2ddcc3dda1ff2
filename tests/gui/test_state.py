"""Conversations without a screen: branches, transitions, and what the model is shown."""

from __future__ import annotations

import pytest

from cogvlm2_lite.events import FinishReason
from gui.data.state import Conversation, Status, TransitionError, Turn, title_of
from tests.helpers.desk import finished


def talk(*pairs: tuple[str, str]) -> Conversation:
    conversation = Conversation(id=1)
    for number, (question, answer) in enumerate(pairs, 1):
        conversation.add(Turn(id=number, parent=conversation.leaf, question=question))
        conversation.finish(number, finished(answer))
    return conversation


def test_a_turn_goes_from_waiting_to_done() -> None:
    conversation = Conversation(id=1)
    conversation.add(Turn(id=1, parent=None, question="What?"))
    assert conversation.running is not None
    assert conversation.append(1, "A ").status is Status.STREAMING
    conversation.append(1, "dog")
    done = conversation.finish(1, finished("A dog."))
    assert (done.answer, done.status) == ("A dog.", Status.DONE)
    assert conversation.running is None


def test_nothing_is_added_to_an_answer_that_is_over() -> None:
    conversation = talk(("a", "b"))
    with pytest.raises(TransitionError):
        conversation.append(1, "more")
    with pytest.raises(TransitionError):
        conversation.fail(1, "late")


def test_only_one_answer_comes_at_a_time() -> None:
    conversation = Conversation(id=1)
    conversation.add(Turn(id=1, parent=None, question="a"))
    with pytest.raises(TransitionError):
        conversation.add(Turn(id=2, parent=None, question="b"))
    with pytest.raises(TransitionError):
        conversation.choose(1)


def test_asking_again_makes_a_branch_and_loses_nothing() -> None:
    conversation = talk(("a", "1"), ("b", "2"))
    conversation.add(Turn(id=3, parent=1, question="b"))
    conversation.finish(3, finished("other"))
    assert [turn.id for turn in conversation.path()] == [1, 3]
    assert [turn.id for turn in conversation.siblings(conversation.turns[3])] == [2, 3]
    conversation.choose(2)
    assert [turn.answer for turn in conversation.path()] == ["1", "2"]


def test_the_model_sees_its_branch_and_no_empty_answers() -> None:
    conversation = talk(("a", "1"), ("b", ""), ("c", "3"))
    last = Turn(id=9, parent=conversation.leaf, question="d")
    conversation.add(last)
    assert conversation.before(last) == (("a", "1"), ("c", "3"))


def test_a_stopped_answer_keeps_its_text() -> None:
    conversation = Conversation(id=1)
    conversation.add(Turn(id=1, parent=None, question="a"))
    done = conversation.finish(1, finished("half", FinishReason.CANCELLED))
    assert (done.status, done.answer) == (Status.STOPPED, "half")


def test_a_cut_answer_goes_on_and_its_first_word_holds_what_was_said() -> None:
    conversation = Conversation(id=1)
    conversation.add(Turn(id=1, parent=None, question="a"))
    cut = conversation.finish(1, finished("half", FinishReason.CANCELLED, token_ids=(1, 2)))
    assert conversation.can_continue(cut)
    assert conversation.reopen(1).answer == "half"  # a crash now loses nothing
    assert conversation.append(1, "half ").answer == "half "
    assert conversation.append(1, "done").answer == "half done"
    done = conversation.finish(1, finished("half done", token_ids=(1, 2, 3)))
    assert done.stats is not None
    assert (done.stats.completion_tokens, done.stats.decode_s) == (10, 2.0)
    assert done.stats.token_ids == (1, 2, 3)
    assert not conversation.can_continue(done)


@pytest.mark.parametrize(
    ("reason", "answer", "can"),
    [
        (FinishReason.EOS, "a", False),
        (FinishReason.STOP, "a", False),
        (FinishReason.LENGTH, "a", True),
        (FinishReason.CANCELLED, "a", True),
        (FinishReason.CANCELLED, " ", False),
        (FinishReason.REPETITION, "a", False),
    ],
)
def test_only_what_was_cut_goes_on(reason: FinishReason, answer: str, can: bool) -> None:
    conversation = Conversation(id=1)
    conversation.add(Turn(id=1, parent=None, question="a"))
    turn = conversation.finish(1, finished(answer, reason))
    assert conversation.can_continue(turn) is can
    if not can:
        with pytest.raises(TransitionError):
            conversation.reopen(1)


def test_an_answer_with_a_question_behind_it_does_not_go_on() -> None:
    conversation = Conversation(id=1)
    conversation.add(Turn(id=1, parent=None, question="a"))
    cut = conversation.finish(1, finished("half", FinishReason.CANCELLED))
    conversation.add(Turn(id=2, parent=1, question="b"))
    conversation.finish(2, finished("x"))
    assert not conversation.can_continue(cut)


def test_a_rate_leaves_out_the_token_that_prefill_made() -> None:
    stats = talk(("a", "b")).turns[1].stats
    assert stats is not None
    assert stats.tokens_per_s == 4.0


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("What is this?", "What is this?"),
        ("\n\n  Read it\nall", "Read it"),
        ("word " * 30, "word word word word word word word word word word word word…"),
        ("这" * 70, "这" * 60 + "…"),
        ("   ", ""),
    ],
)
def test_titles_are_first_lines_cut_at_words(question: str, title: str) -> None:
    assert title_of(question) == title
