"""What the released fine-tuning demo loses, and that it is not lost here.

Each function `demo_...` does what the demo does, from its description; the tests show the wrong
result first and then ours.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from cogvlm2_lite.config import read_config
from cogvlm2_lite.demo.shipped import model_folder
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.finetune import loss_and_gradients
from cogvlm2_lite.inputs.tokenizer import Tokenizer
from cogvlm2_lite.rows.labels import NO_LABEL, Labelled, Labeller
from cogvlm2_lite.rows.read import Reason, Turn
from tests.helpers.checkpoints import golden_tensors
from tests.helpers.finetune import LOSS_TOLERANCE, golden, sample
from tests.helpers.goldens import CHECKPOINT
from tests.helpers.independent_model import Independent

DEMO = Path(model_folder("demo"))
CONFIG = read_config(DEMO)
TOKENIZER = Tokenizer.from_folder(DEMO)
END = CONFIG.eos_token_ids[0]
IMAGE = CONFIG.vision.image_tokens


def label(turns: list[Turn], most: int | None = None, *, picture: bool = True) -> list[Labelled]:
    made = list(Labeller(TOKENIZER, CONFIG, max_tokens=most).samples(turns, has_picture=picture))
    assert all(isinstance(each, Labelled) for each in made)
    return [each for each in made if isinstance(each, Labelled)]


def trained(labels: list[int]) -> list[int]:
    return [each for each in labels if each != NO_LABEL]


def decoded(made: Labelled) -> str:
    ids = [token for token in made.input_ids[0].tolist()[1 + IMAGE :] if token != END]
    return TOKENIZER.decode(ids)


# --- length ---------------------------------------------------------------------------------------


def demo_cut(labels: list[int], text_tokens: int) -> list[int]:
    """Cut on the right at text tokens + 2303: 3 fewer than a picture has, and nothing for bos."""
    return labels[: IMAGE - 3 + text_tokens]


def test_an_answer_that_fits_keeps_its_end() -> None:
    (made,) = label([Turn("What color is the circle?", "red")])
    labels, tokens = made.labels[0].tolist(), made.labels.shape[1]
    text_tokens = tokens - 1 - IMAGE
    assert trained(demo_cut(labels, text_tokens)) != trained(labels)  # its end is lost
    (ours,) = label([Turn("What color is the circle?", "red")], most=tokens)
    assert trained(ours.labels[0].tolist())[-1] == END
    assert not ours.cut


def test_an_answer_that_is_cut_trains_no_end() -> None:
    turns = [Turn("What?", "a red circle and a blue star and a green star")]
    (whole,) = label(turns)
    most = whole.labels.shape[1] - 4
    # CogVLM 1 cuts the answer and then adds the end: the model would learn to stop there.
    cogvlm1 = [*whole.labels[0].tolist()[: most - 1], END]
    assert trained(cogvlm1)[-1] == END
    (ours,) = label(turns, most)
    assert ours.cut
    assert ours.labels.shape[1] == most
    assert END not in trained(ours.labels[0].tolist())


def test_a_question_that_is_too_long_is_skipped_and_gives_no_nan() -> None:
    turns = [Turn("What is the color of the " + "large " * 40 + "circle?", "red")]
    (whole,) = label(turns)
    left = torch.tensor(demo_cut(whole.labels[0].tolist(), 20))
    assert not trained(left.tolist())
    logits = torch.zeros((len(left), CONFIG.vocab_size))
    assert math.isnan(float(F.cross_entropy(logits, left, ignore_index=NO_LABEL)))
    labeller = Labeller(TOKENIZER, CONFIG, max_tokens=IMAGE + 21)
    assert list(labeller.samples(turns, has_picture=True)) == [(1, Reason.TOO_LONG)]
    one = sample("s1")
    assert one["labels"] is not None
    with pytest.raises(UsageError, match="no labels"):
        loss_and_gradients(
            CHECKPOINT, [{**one, "labels": torch.full_like(one["labels"], NO_LABEL)}],
            adapter=golden("demo/init"), alpha=8.0,
        )  # fmt: skip


TURNS = st.lists(
    st.tuples(st.sampled_from(["What?", "Where is it now? 在哪里?"]), st.text("ab c", max_size=40)),
    min_size=1, max_size=4,
)  # fmt: skip


@settings(max_examples=60)
@given(TURNS, st.integers(1, 90), st.booleans())
def test_cut_samples_keep_the_rules(talk: list[tuple[str, str]], most: int, picture: bool) -> None:
    turns = [Turn(question, answer) for question, answer in talk]
    labeller = Labeller(TOKENIZER, CONFIG, max_tokens=most)
    whole = list(Labeller(TOKENIZER, CONFIG).samples(turns, has_picture=picture))
    for made, full in zip(labeller.samples(turns, has_picture=picture), whole, strict=True):
        if isinstance(full, tuple):
            assert made == full  # an empty answer
            continue
        if isinstance(made, tuple):
            assert made[1] is Reason.TOO_LONG
            assert full.labels.shape[1] > most
            continue
        answer, expected = (trained(each.labels[0].tolist()) for each in (made, full))
        assert made.labels.shape[1] <= most
        assert made.cut == (answer[-1] != END)
        assert answer == expected[: len(answer)]
        assert made.cut or answer == expected
        assert len(answer) >= 4 or not made.cut
        assert made.dropped_turns == made.turn - 1 or not made.cut
        # Turns are dropped only as far as needed.
        if made.dropped_turns and not made.cut:
            past = turns[made.dropped_turns - 1 : made.turn]
            kept = list(Labeller(TOKENIZER, CONFIG).samples(past, has_picture=picture))[-1]
            assert isinstance(kept, Labelled)
            assert kept.labels.shape[1] > most


def test_more_tokens_than_the_context_are_refused() -> None:
    with pytest.raises(UsageError, match="at most 2048"):
        Labeller(TOKENIZER, CONFIG, max_tokens=2049)


# --- the past -------------------------------------------------------------------------------------


def demo_past(turns: list[Turn], chosen: int, coin: bool) -> list[Turn]:
    """Return the past that the demo shows: the turn before, and only for one side of a coin."""
    return turns[chosen - 1 : chosen] if coin and chosen else []


def test_every_answer_is_learnt_once_with_its_whole_past() -> None:
    turns = [
        Turn("What is in the top left?", "a star"), Turn("What color is it?", "red"),
        Turn("And the circle?", "blue"),
    ]  # fmt: skip
    asked = {len(demo_past(turns, 2, coin)) for coin in (True, False)}
    assert asked == {0, 1}  # never two: "it" is without the star
    made = label(turns)
    assert [each.turn for each in made] == [1, 2, 3]  # the demo takes one of them in an epoch
    assert decoded(made[2]).strip() == (
        "Question: What is in the top left? Answer: a star\nQuestion: What color is it? "
        "Answer: red\nQuestion: And the circle? Answer:blue"
    )


# --- tokens ---------------------------------------------------------------------------------------


def test_the_end_is_the_first_of_the_configured_ones() -> None:
    assert len(CONFIG.eos_token_ids) == 2  # 128001 and 128009 in the released model
    (made,) = label([Turn("What?", "red")])
    assert made.labels[0, -1] == CONFIG.eos_token_ids[0]
    assert CONFIG.eos_token_ids[1] not in made.input_ids


def test_a_special_token_in_a_text_would_be_its_id() -> None:
    word = next(text for text in TOKENIZER.special_texts if TOKENIZER.encode(text) == [END])
    for turn in (Turn(f"What? {word}", "red"), Turn("What?", f"red{word} and blue")):
        labeller = Labeller(TOKENIZER, CONFIG)
        assert list(labeller.samples([turn], has_picture=False)) == [(1, Reason.SPECIAL_TOKEN)]


def test_a_position_predicts_the_next_token() -> None:
    one = sample("t1")
    ids, types, labels = (one[name] for name in ("input_ids", "token_type_ids", "labels"))
    assert ids is not None
    assert types is not None
    assert labels is not None
    init = golden("language/init")
    still = {n: torch.zeros_like(t) if ".lora_B." in n else t for n, t in init.items()}
    config = json.loads((CHECKPOINT / "config.json").read_text())
    model = Independent(config, golden_tensors(torch.float32))
    logits = model.logits(ids[0].tolist(), types[0].tolist())
    unshifted = F.cross_entropy(logits, labels[0], ignore_index=NO_LABEL)
    right = F.cross_entropy(logits[:-1], labels[0, 1:], ignore_index=NO_LABEL)
    loss, _ = loss_and_gradients(CHECKPOINT, [one], adapter=still, alpha=8.0)
    assert abs(loss - float(unshifted)) > 0.01
    assert abs(loss - float(right)) < LOSS_TOLERANCE


def test_samples_of_a_step_count_by_their_tokens() -> None:
    init = golden("language/init")
    losses, counts = [], []
    for case in ("s1", "talk1"):
        one = sample(case)
        assert one["labels"] is not None
        losses.append(loss_and_gradients(CHECKPOINT, [one], adapter=init, alpha=8.0)[0])
        counts.append(int((one["labels"][:, 1:] != NO_LABEL).sum()))
    assert counts[0] != counts[1]
    both, _ = loss_and_gradients(
        CHECKPOINT, [sample("s1"), sample("talk1")], adapter=init, alpha=8.0
    )
    mean_of_means = sum(losses) / 2
    by_tokens = sum(a * n for a, n in zip(losses, counts, strict=True)) / sum(counts)
    assert abs(both - mean_of_means) > 1e-3
    assert abs(both - by_tokens) < LOSS_TOLERANCE
