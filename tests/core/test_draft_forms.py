"""Rows of a table and members of JSON repeat their form, not their words and numbers."""

from __future__ import annotations

import pytest

from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.engine.draft_forms import Forms
from cogvlm2_lite.engine.drafts import Drafter
from cogvlm2_lite.inputs.tokenizer import Tokenizer

TOKENIZER = Tokenizer.from_folder(checkpoint_folder())


def expected_after(text: str) -> str:
    """Return what the form proposes behind a text; "": nothing."""
    forms = Forms(TOKENIZER)
    for token in TOKENIZER.encode(text):
        forms.push(token)
    match, place = forms.find()
    return TOKENIZER.decode(forms.following(place, 3)) if match else ""


@pytest.mark.parametrize(
    ("text", "following"),
    [
        ("| 1 | red |\n| 2 | blue", " |\n"),
        ('{"n": 4, "m": 2}, {"n": 6, "m": 5', ', "'),
        ("a, b; 3", ""),
        ("", ""),
    ],
)
def test_what_followed_the_same_form_is_expected(text: str, following: str) -> None:
    assert expected_after(text).startswith(following)
    if not following:
        assert not expected_after(text)


def test_two_words_have_no_form_of_their_own() -> None:
    forms = Forms(TOKENIZER)
    for token in TOKENIZER.encode(" red circle blue square"):
        forms.push(token)
    assert forms.find()[0] != 2


def test_a_drafter_proposes_the_form_and_learns_how_good_it_is() -> None:
    rows = [f"| {n} | {n * 7919 % 997} | {n * 31} |\n" for n in range(10, 22)]
    tokens, right = TOKENIZER.encode("".join(rows)), 0
    drafter = Drafter(TOKENIZER)
    for number, token in enumerate(tokens[:-1]):
        drafter.push(token)
        draft = drafter.propose(4)
        assert len(draft.tokens) == len(draft.chances)
        assert all(0 < chance <= 1 for chance in draft.chances)
        right += draft.tokens[:1] == (tokens[number + 1],)
    assert right > len(tokens) * 0.3
