"""CogVLM2 through the Auto classes, `generate` and pipelines of transformers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    AutoTokenizer,
    LogitsProcessor,
    StoppingCriteria,
    TextIteratorStreamer,
    pipeline,
)

import cogvlm2_lite
from benchmarks.fp4_folder import write_fp4
from cogvlm2_lite.demo.shipped import SamplePicture, checkpoint_folder, sample_pictures
from cogvlm2_lite.errors import DoesNotFitError, PromptTooLongError, UsageError
from cogvlm2_lite.events import Finished
from cogvlm2_lite.hf import CogVLM2Config, CogVLM2ForConditionalGeneration, CogVLM2Processor
from tests.helpers.answers import finished
from tests.helpers.conversion import quantize

DEMO = checkpoint_folder()
PICTURES = sample_pictures()


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(DEMO)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForImageTextToText.from_pretrained(DEMO, device_map="cpu", parallel=2)


@pytest.fixture(scope="module")
def ask() -> Callable[..., Finished]:
    ours = cogvlm2_lite.load(DEMO, device="cpu")

    def ask(picture: SamplePicture, number: int) -> Finished:
        sample = picture.questions[number]
        history = [(turn.question, turn.answer) for turn in sample.history]
        return finished(ours.answer(sample.question, picture.path, history))

    return ask


def messages(picture: SamplePicture, number: int = 0) -> list[dict[str, Any]]:
    """Return a question about a picture, with the turns before it."""
    sample = picture.questions[number]
    talk: list[dict[str, Any]] = []
    for turn in sample.history:
        talk += [
            {"role": "user", "content": turn.question},
            {"role": "assistant", "content": turn.answer},
        ]
    part = {"type": "image", "path": str(picture.path)}
    text = {"type": "text", "text": sample.question}
    return [*talk, {"role": "user", "content": [part, text]}]


def inputs(processor: Any, *pictures: SamplePicture, number: int = 0, **settings: Any) -> Any:
    """Return the tensors of questions about pictures."""
    batch = [messages(picture, number) for picture in pictures]
    return processor.apply_chat_template(
        batch if len(batch) > 1 else batch[0],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": len(batch) > 1, **settings},
    )


def answers(output: torch.Tensor, given: Any) -> list[list[int]]:
    """Return the generated tokens of each row, without the end and what follows it."""
    rows = output[:, given["input_ids"].shape[1] :].tolist()
    ends = (1, 3)
    return [row[: next((i for i, t in enumerate(row) if t in ends), len(row))] for row in rows]


def greedy(model: Any, given: Any, **settings: Any) -> list[list[int]]:
    return answers(model.generate(**given, max_new_tokens=40, do_sample=False, **settings), given)


# --- the Auto classes ---------------------------------------------------------------------------


@pytest.mark.parametrize("trust", [None, False, True])
def test_the_auto_classes_return_ours_with_or_without_trust(trust: bool | None) -> None:
    config = AutoConfig.from_pretrained(DEMO, trust_remote_code=trust)
    assert type(config) is CogVLM2Config
    assert (config.vocab_size, config.vision_config.image_size) == (704, 112)
    assert config.image_token_id == config.pad_token_id == 2
    assert type(AutoProcessor.from_pretrained(DEMO, trust_remote_code=trust)) is CogVLM2Processor
    tokenizer = AutoTokenizer.from_pretrained(DEMO, trust_remote_code=trust)
    assert tokenizer.decode(tokenizer("A red", add_special_tokens=False)["input_ids"]) == "A red"


@pytest.mark.parametrize(
    "auto", [AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoModelForCausalLM]
)
def test_every_auto_class_of_generating_models_loads_the_folder(auto: Any) -> None:
    model: Any = auto.from_pretrained(
        DEMO, trust_remote_code=True, dtype=torch.float32, device_map=None
    )
    assert type(model).__name__ == CogVLM2ForConditionalGeneration.__name__
    assert (model.dtype, model.config.dtype) == (torch.float32, torch.float32)
    assert next(model.parameters()).device == model.device
    assert model.can_generate()
    assert model.num_parameters() > 5_000_000
    assert model.to(model.device).eval() is model
    assert model.generation_config.eos_token_id == [1, 3]


# --- the same tokens as ask ---------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, -1], ids=["first", "last"])
@pytest.mark.parametrize("picture", PICTURES[:5], ids=lambda picture: picture.path.stem)
def test_greedy_tokens_are_those_of_ask(
    model: Any, processor: Any, ask: Callable[..., Finished], picture: SamplePicture, number: int
) -> None:
    given = inputs(processor, picture, number=number)
    expected = ask(picture, number)
    assert given["input_ids"].shape[1] == expected.prompt_tokens
    assert greedy(model, given) == [list(expected.token_ids)]
    # The second time, the picture comes from the picture cache.
    assert greedy(model, given) == [list(expected.token_ids)]


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_four_bit_folders_give_the_tokens_of_ask(kind: str, processor: Any, tmp_path: Path) -> None:
    folder = tmp_path / kind
    if kind == "nf4":
        quantize(DEMO, folder)
    else:
        write_fp4(DEMO, folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, device_map="auto")
    given = inputs(AutoProcessor.from_pretrained(folder), PICTURES[1])
    ours = cogvlm2_lite.load(folder)
    expected = finished(ours.answer(PICTURES[1].questions[0].question, PICTURES[1].path))
    assert greedy(model, given) == [list(expected.token_ids)]


def test_a_plan_that_streams_weights_gives_the_same_tokens(model: Any, processor: Any) -> None:
    small: Any = AutoModelForImageTextToText.from_pretrained(
        DEMO, device="cpu", max_memory={"cpu": "424MiB"}, context=256
    )
    assert max(small.engine.plan.streamed_bytes().values()) > 0
    given = inputs(processor, PICTURES[1])
    assert greedy(small, given) == greedy(model, given)


def test_more_rows_than_planned_get_another_plan_or_a_sentence(model: Any, processor: Any) -> None:
    small: Any = AutoModelForImageTextToText.from_pretrained(
        DEMO, device="cpu", max_memory={"cpu": "424MiB"}, context=64
    )
    streamed = max(small.engine.plan.streamed_bytes().values())
    some = processor(text=[f"Question: {n}? Answer:" for n in range(40)], return_tensors="pt",
                     padding=True)  # fmt: skip
    settings = {"max_new_tokens": 4, "do_sample": False}
    assert torch.equal(small.generate(**some, **settings), model.generate(**some, **settings))
    assert small.engine.plan.parallel == 40
    assert max(small.engine.plan.streamed_bytes().values()) > streamed
    many = {key: value.repeat(9, 1) for key, value in some.items()}
    many["input_ids"][:, -1] = torch.arange(360) % 300 + 5
    with pytest.raises(DoesNotFitError, match="360 rows at once do not fit"):
        small(**many, logits_to_keep=1)
    assert small.engine.plan.parallel < 360


# --- batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_of_a_batch_get_the_scores_that_they_get_alone(
    model: Any, processor: Any, side: str
) -> None:
    settings = {"max_new_tokens": 3, "return_dict_in_generate": True, "output_scores": True}
    batch = inputs(processor, *PICTURES[:3], padding_side=side)
    assert not batch["attention_mask"].all()
    together = model.generate(**batch, **settings)
    for row, picture in enumerate(PICTURES[:3]):
        alone = model.generate(**inputs(processor, picture), **settings)
        for ours, its in zip(together.scores, alone.scores, strict=True):
            assert torch.equal(ours[row], its[0])


def test_without_a_mask_only_what_is_outside_of_the_prompt_is_padding(
    model: Any, processor: Any
) -> None:
    batch = inputs(processor, *PICTURES[:3])
    with_mask = greedy(model, batch)
    del batch["attention_mask"], batch["token_type_ids"]
    assert greedy(model, batch) == with_mask


# --- what generate offers -----------------------------------------------------------------------


def test_a_streamer_yields_the_words_while_they_are_made(model: Any, processor: Any) -> None:
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    given = {**inputs(processor, PICTURES[1]), "streamer": streamer, "max_new_tokens": 40}
    thread = threading.Thread(target=model.generate, kwargs=given)
    thread.start()
    pieces = list(streamer)
    thread.join()
    assert "".join(pieces) == " A yellow cross, a pink square and a purple diamond."
    assert len(pieces) > 5


def test_stop_texts_and_stopping_criteria_end_the_answer(model: Any, processor: Any) -> None:
    given = inputs(processor, PICTURES[1])
    output = model.generate(
        **given, max_new_tokens=40, stop_strings="pink", tokenizer=processor.tokenizer
    )
    text = processor.batch_decode(output[:, given["input_ids"].shape[1] :])
    assert text == [" A yellow cross, a pink"]

    class Two(StoppingCriteria):
        def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
            return torch.full((1,), input_ids.shape[1] >= given["input_ids"].shape[1] + 2)

    assert len(greedy(model, given, stopping_criteria=[Two()])[0]) == 2


def test_logits_processors_change_the_answer(model: Any, processor: Any) -> None:
    class No(LogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            scores[:, first] = -torch.inf
            return scores

    given = inputs(processor, PICTURES[3])
    first = greedy(model, given)[0][0]
    assert greedy(model, given, logits_processor=[No()])[0][0] != first
    assert greedy(model, given, bad_words_ids=[[first]])[0][0] != first


def test_sampling_follows_torchs_seed(model: Any, processor: Any) -> None:
    given = inputs(processor, PICTURES[1])
    settings = {"do_sample": True, "temperature": 3.0, "top_p": 0.95, "max_new_tokens": 12}

    def sample(seed: int) -> list[list[int]]:
        torch.manual_seed(seed)
        return answers(model.generate(**given, **settings, num_return_sequences=3), given)

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)
    assert len({tuple(row) for row in sample(1)}) > 1


def test_scores_of_several_answers_to_one_prompt_are_equal(model: Any, processor: Any) -> None:
    output = model.generate(
        **inputs(processor, PICTURES[1]), do_sample=True, num_return_sequences=2, max_new_tokens=1,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    assert torch.equal(output.logits[0][0], output.logits[0][1])


def test_beams_and_lookup_of_prompt_tokens_find_the_certain_answer(
    model: Any, processor: Any
) -> None:
    given = inputs(processor, PICTURES[1])
    expected = greedy(model, given)
    assert greedy(model, given, num_beams=3) == expected
    assert greedy(model, given, prompt_lookup_num_tokens=3) == expected
    assert greedy(model, given, use_cache=False) == expected


def test_a_returned_cache_continues_the_conversation(model: Any, processor: Any) -> None:
    given = inputs(processor, PICTURES[1])
    begun = model.generate(**given, max_new_tokens=3, return_dict_in_generate=True)
    output = model.generate(begun.sequences, cache=begun.cache, max_new_tokens=40)
    assert answers(output, given) == greedy(model, given)


def test_an_answer_ends_when_the_context_is_full(processor: Any) -> None:
    model = AutoModelForImageTextToText.from_pretrained(DEMO, device_map="cpu", context=34)
    given = inputs(processor, PICTURES[1])
    output = model.generate(**given, max_new_tokens=40)
    assert output.shape[1] == 34
    kept = model.generate(**given, max_new_tokens=2, return_dict_in_generate=True)
    output = model.generate(kept.sequences, cache=kept.cache, max_new_tokens=40)
    assert output.shape[1] == 34
    # A short row goes on when the context of another is full.
    both = processor(text=["Question: " + "a b c d " * 3 + "Answer:", "a"], padding=True)
    output = model.generate(**both.convert_to_tensors("pt"), max_new_tokens=40, eos_token_id=2)
    assert output.shape[1] - int((both["attention_mask"][1] == 0).sum()) == 34
    with pytest.raises(PromptTooLongError, match="60 tokens"):
        model(torch.full((1, 60), 5))
    full = model(torch.full((1, 34), 5))
    with pytest.raises(PromptTooLongError, match="34 tokens is full"):
        model(torch.full((1, 1), 5), cache=full.cache)


def test_without_a_limit_the_folders_own_length_counts(model: Any, processor: Any) -> None:
    given = inputs(processor, PICTURES[1])
    assert model.longest == 512
    assert answers(model.generate(**given), given) == greedy(model, given)
    assert model.generate(**given, max_length=31).shape == (1, 31)


# --- pipelines ----------------------------------------------------------------------------------


def test_a_pipeline_answers_messages_and_pictures_with_texts() -> None:
    pipe: Any = pipeline("image-text-to-text", model=str(DEMO), device="cpu")
    assert pipe.device.type == "cpu"
    pipe = pipeline("image-text-to-text", model=str(DEMO), device_map="auto")
    first, second = PICTURES[:2]
    replies = pipe(text=messages(second), max_new_tokens=40, return_full_text=False)
    assert replies[0]["generated_text"] == " A yellow cross, a pink square and a purple diamond."
    texts = [f"Question: {p.questions[0].question} Answer:" for p in (first, second)]
    replies = pipe(images=str(second.path), text=texts[1], return_full_text=False)
    assert replies[0]["generated_text"] == " A yellow cross, a pink square and a purple diamond."
    both = pipe(
        images=[str(first.path), str(second.path)], text=texts, return_full_text=False, batch_size=2
    )
    assert [reply["generated_text"] for reply in both][1] == replies[0]["generated_text"]
    begun = [*messages(second), {"role": "assistant", "content": "A yellow cross"}]
    replies = pipe(text=begun, return_full_text=False)
    assert replies[0]["generated_text"] == ", a pink square and a purple diamond."


# --- programs for the released code -------------------------------------------------------------


def test_code_for_the_released_model_runs(model: Any, processor: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO, trust_remote_code=True)
    from PIL import Image

    picture = PICTURES[1]
    built = model.build_conversation_input_ids(
        tokenizer,
        query=picture.questions[0].question,
        history=[],
        images=[Image.open(picture.path).convert("RGB")],
        template_version="chat",
    )
    given = {
        "input_ids": built["input_ids"].unsqueeze(0),
        "token_type_ids": built["token_type_ids"].unsqueeze(0),
        "attention_mask": built["attention_mask"].unsqueeze(0),
        "images": [[built["images"][0].to(model.dtype)]],
    }
    with torch.no_grad():
        output = model.generate(**given, max_new_tokens=64, pad_token_id=2)
    assert answers(output, given) == greedy(model, inputs(processor, picture))
    with pytest.raises(UsageError, match="Too many pictures"):
        model.build_conversation_input_ids(tokenizer, query="x", images=[picture.path] * 2)
