"""Where drafts come from: n-grams, earlier answers, a text that the answer resembles."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.engine import drafted_text
from cogvlm2_lite.engine.draft_length import draft_lengths
from cogvlm2_lite.engine.drafted_text import closest_end, continue_text, correct_words
from cogvlm2_lite.engine.drafts import Drafter, EarlierAnswers, NGrams
from cogvlm2_lite.inputs.tokenizer import Tokenizer

TEXT = (
    "The market opens at seven in the morning. Farmers from the valley bring apples, cheese and "
    "bread, and most of them have been there for many years. In winter the stalls are fewer: some "
    "of the roads are closed by snow, and people buy what the shops of the town have left. "
    "A train from the coast comes twice a day, at 9:40 and 17:25, and costs 12 crowns."
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_folder(checkpoint_folder())


def passes(ids: Sequence[int], drafter: Drafter, slope: float = 0.1) -> int:
    """Return how many decode steps an answer takes that is known beforehand."""
    ready: list[int] = []
    count = 0
    for token in ids:
        drafter.push(token)
        if ready and ready[0] == token:
            ready.pop(0)
            continue
        draft = drafter.propose(31)
        assert len(draft.tokens) == len(draft.chances) <= 31
        assert list(draft.chances) == sorted(draft.chances, reverse=True)
        (length,) = draft_lengths([draft.chances], lambda rows: 1 + slope * (rows - 1))
        ready, count = list(draft.tokens[:length]), count + 1
    return count


# --- n-grams --------------------------------------------------------------------------------------


def test_the_longest_match_decides_and_the_latest_of_equal_ones() -> None:
    ngrams = NGrams([[1, 2, 3, 4, 50], [9, 2, 3, 4, 60], [8, 3, 4, 70]])
    for token in (1, 2, 3, 4):
        ngrams.push(token)
    match, place = ngrams.find()
    assert (match, ngrams.following(place, 5)) == (
        5,
        [50],
    )  # with the beginning; not beyond the end of a text
    other = NGrams([[2, 3, 4, 50], [2, 3, 4, 60]])
    for token in (2, 3, 4):
        other.push(token)
    match, place = other.find()
    assert (match, other.following(place, 1)) == (4, [60])


def test_an_answer_that_begins_like_an_earlier_one_is_drafted_after_its_first_token() -> None:
    ngrams = NGrams([[5, 1, 2, 3], [9, 1, 4]])
    ngrams.push(5)
    match, place = ngrams.find()
    assert (match, ngrams.following(place, 5)) == (2, [1, 2, 3])


def test_what_repeats_itself_is_continued() -> None:
    ngrams = NGrams()
    for token in (5, 1, 2, 3, 1, 2, 3):
        ngrams.push(token)
    match, place = ngrams.find()
    assert (match, ngrams.following(place, 7)) == (3, [1, 2, 3, 1, 2, 3, 1])


def test_texts_are_not_joined_and_one_token_is_no_match() -> None:
    ngrams = NGrams([[1, 2], [3, 4]])
    for token in (2, 3):
        ngrams.push(token)
    assert ngrams.find() == (0, 0)
    ngrams.push(4)
    assert ngrams.find()[0] == 0 or ngrams.following(ngrams.find()[1], 3) == []


def test_found_matches_are_right_in_random_texts() -> None:
    chance = random.Random(1)
    for _ in range(50):
        ids = [chance.randrange(4) for _ in range(60)]
        ngrams, whole = NGrams(), [-1, *ids]
        for number, token in enumerate(ids, 2):
            ngrams.push(token)
            match, place = ngrams.find()
            if match:
                assert whole[place - match : place] == whole[number - match : number]
                assert place < number
                assert match >= 2


def test_earlier_answers_are_bounded_and_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EarlierAnswers, "MOST_TOKENS", 20)
    earlier = EarlierAnswers()
    earlier.note("a", [1] * 6)
    earlier.note("a", [2] * 6)
    earlier.note("a", [1] * 6)
    assert earlier.of("a") == ((2,) * 6, (1,) * 6)
    earlier.note("b", [3] * 6)
    assert earlier.of("a") == ((2,) * 6, (1,) * 6)
    earlier.note("b", [4] * 9)
    assert (earlier.of("a"), len(earlier.of("b"))) == ((), 2)
    earlier.note("c", [5] * 50)
    assert (earlier.of("b"), earlier.of("c")) == ((), ())
    earlier.note("d", [6])
    assert earlier.of("d") == ((6,),)


# --- a text that the answer resembles -------------------------------------------------------------


def edits(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for number, letter in enumerate(a, 1):
        before, row[0] = row[0], number
        for place, other in enumerate(b, 1):
            before, row[place] = (
                row[place],
                min(row[place] + 1, row[place - 1] + 1, before + (letter != other)),
            )
    return row[-1]


def test_the_closest_end_is_that_of_the_fewest_edits() -> None:
    chance = random.Random(2)
    for _ in range(150):
        text = "".join(chance.choice("abc") for _ in range(chance.randrange(12)))
        pattern = "".join(chance.choice("abc") for _ in range(chance.randrange(1, 9)))
        expected = chance.randrange(12)
        distances = {
            end: min(edits(pattern, text[begin:end]) for begin in range(end + 1))
            for end in range(len(text) + 1)
        }
        least = min(distances.values())
        found, end = closest_end(pattern, text, expected)
        assert found == least == distances[end]
        nearest = min(abs(other - expected) for other, d in distances.items() if d == least)
        assert abs(end - expected) == nearest


@pytest.mark.parametrize("word", ["", " ma", "The mark", " mar"])
def test_a_text_continues_a_word_in_the_tokens_of_the_whole(
    tokenizer: Tokenizer, word: str
) -> None:
    text = "ket opens, für 12 € – 🙂 und so"
    pairs = continue_text(tokenizer, word, text)
    data = b"".join(tokenizer.token_bytes(token) for token, _ in pairs)
    assert data.decode() == text
    ends = [end for _, end in pairs]
    assert ends == sorted(ends)
    assert ends[-1] == len(text)


def noisy(share: float, seed: int) -> str:
    chance = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    return "".join(
        chance.choice(letters) if c.isalpha() and chance.random() < share else c for c in TEXT
    )


def test_a_right_text_is_taken_in_few_passes(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(" " + TEXT)
    assert passes(ids, Drafter(tokenizer, resembled=TEXT)) < len(ids) / 10


@pytest.mark.parametrize("seed", range(3))
def test_a_text_with_a_tenth_of_the_letters_wrong_saves_most_passes(
    tokenizer: Tokenizer, seed: int
) -> None:
    ids = tokenizer.encode(" " + TEXT)
    drafter = Drafter(tokenizer, resembled=noisy(0.1, seed))
    assert passes(ids, drafter) < len(ids) / 3


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[120:] + text[:120],  # another order
        lambda text: text[:100] + text[180:],  # a part is missing
        lambda text: "PAGE 7 of 12\n\n" + text.replace(" ", "\n"),
        lambda text: text[:90] + "x" * 300 + text[90:],
    ],
)
def test_parts_that_are_elsewhere_missing_or_added_are_passed_over(
    tokenizer: Tokenizer, change: Callable[[str], str]
) -> None:
    ids = tokenizer.encode(" " + TEXT)
    drafter = Drafter(tokenizer, resembled=change(TEXT))
    assert passes(ids, drafter) < len(ids) / 2


def test_another_text_costs_no_more_than_none(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(" " + TEXT)
    alone = passes(ids, Drafter(tokenizer))
    other = "0123456789 " * 60
    assert passes(ids, Drafter(tokenizer, resembled=other)) <= alone + 5


@pytest.mark.parametrize("text", ["\ud800 x", "<|end_of_text|>", "   ", "\0", "🙂" * 500, "é" * 99])
def test_any_text_can_be_a_draft(tokenizer: Tokenizer, text: str) -> None:
    drafter = Drafter(tokenizer, resembled=text, draftable=lambda t: t < 600)
    for token in [*tokenizer.encode(" Well 🙂 é"), 5, 690, 700, 3]:
        drafter.push(token)
        assert all(token < 600 for token in drafter.propose(31).tokens)
    assert drafter.propose(0).tokens == ()


class Words:
    """A tokenizer whose single tokens are the words of a list; the first ones are common."""

    def __init__(self, *words: str) -> None:
        self._words = [" " + word for word in words]

    def find_token(self, text: str) -> int | None:
        return self._words.index(text) if text in self._words else None


def test_a_wrong_letter_is_replaced_if_a_common_word_results() -> None:
    words = Words("the", "house", "mouse", "fox", "REPORT", "Farmers")
    text = "t8e xouse, the fox! REP0RT: Farmexs Zxqvy 12345"
    found = correct_words(words, text)  # type: ignore[arg-type]
    assert found == "the house, the fox! REPORT: Farmers Zxqvy 12345"
    assert len(found) == len(text)


def test_letters_that_look_like_others_are_tried_first_and_two_of_them_in_a_word() -> None:
    words = Words("house", "horse", "modern", "window")
    text = "hocse rnodem wlndovv 2l9.5O S8 l6"
    found = correct_words(words, text)  # type: ignore[arg-type]
    assert found == "house modern window 219.50 58 16"
    assert correct_words(words, "hoxse modern") == "house modern"  # type: ignore[arg-type]


def test_a_text_with_few_rare_words_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    words = Words("the", "house")
    text = "the hause " + "the house " * 10
    assert correct_words(words, text) == text  # type: ignore[arg-type]
    monkeypatch.setattr(drafted_text, "_NOISY", 0.01)
    assert correct_words(words, text).startswith("the house")  # type: ignore[arg-type]


# --- what must follow -----------------------------------------------------------------------------


def test_required_bytes_continue_the_answers_last_word(tokenizer: Tokenizer) -> None:
    required = [b""]

    def after(text: str) -> bytes | None:
        return None if text else required[0]

    drafter = Drafter(tokenizer, required=after, allowed=len)
    for token in tokenizer.encode('{"in'):
        drafter.push(token)
    required[0] = 'voice_number": "é'.encode()[:-1]  # the last character is not complete
    draft = drafter.propose(31)
    data = b"".join(map(tokenizer.token_bytes, draft.tokens))
    assert data.decode() == 'voice_number": "'
    assert draft.chances[0] > 0.8


def test_a_draft_ends_before_what_is_not_allowed(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT)
    drafter = Drafter(tokenizer, texts=[ids], allowed=lambda tokens: min(2, len(tokens)))
    for token in ids[:5]:
        drafter.push(token)
    assert drafter.propose(31).tokens == tuple(ids[5:7])


def test_chances_become_what_they_are_also_if_no_draft_is_computed(tokenizer: Tokenizer) -> None:
    """Every match of these tokens is followed by one of six at random."""
    chance, drafter, found = random.Random(3), Drafter(tokenizer), []
    for _ in range(600):
        drafter.push(chance.randrange(300, 306))
        found.append(next(iter(drafter.propose(1).chances), 0.0))
    late = found[300:]
    assert 0.05 < sum(late) / len(late) < 0.35


def test_a_text_that_is_often_wrong_is_proposed_less_after_matches_of_any_length(
    tokenizer: Tokenizer,
) -> None:
    """The answer puts something else behind one, two or three words of the text in turn."""
    resembled = "red small round soft green large square hard blue thin long warm"
    words = resembled.split()
    drafter, expected, place = Drafter(tokenizer, resembled=resembled), list[float](), 0
    for count in (1, 2, 3, 1, 2, 3):
        for word in words[place : place + count]:
            for token in tokenizer.encode(" " + word):
                drafter.push(token)
        expected.append(sum(drafter.propose(31).chances))
        place += count
        for token in tokenizer.encode(" |"):
            drafter.push(token)
    assert max(expected[3:]) < expected[0] / 2
