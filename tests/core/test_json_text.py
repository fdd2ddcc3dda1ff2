"""Answers that must be JSON: whatever the model scores, what comes out can be read."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cogvlm2_lite
from cogvlm2_lite.demo.shipped import checkpoint_folder, sample_pictures
from cogvlm2_lite.engine.choose import TokenChooser
from cogvlm2_lite.engine.json_text import JsonGrammar
from cogvlm2_lite.engine.model import Model
from cogvlm2_lite.errors import EngineError, UsageError
from cogvlm2_lite.events import Finished, FinishReason
from cogvlm2_lite.inputs.tokenizer import StreamDecoder, Tokenizer
from cogvlm2_lite.sampling import Sampling
from tests.helpers.answers import scripted_decode
from tests.helpers.folders import talking_folder

TOKENIZER = Tokenizer.from_folder(checkpoint_folder())
BYTE = {data: i for i in range(TOKENIZER.vocab_size) if len(data := TOKENIZER.token_bytes(i)) == 1}
END = frozenset(i for i in range(TOKENIZER.vocab_size) if not TOKENIZER.token_bytes(i))
GRAMMAR = JsonGrammar(TOKENIZER, END)
CPU = torch.device("cpu")


def reads(text: bytes) -> bool | None:
    """Feed bytes; True when the object is complete, False before, None when it can't become one."""
    answer = GRAMMAR.begin()
    complete = False
    for byte in text:
        token = BYTE[bytes([byte])]
        if not answer.allowed(TOKENIZER.vocab_size)[token]:
            return None
        complete = answer.push(token)
    return complete


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(-1e15, 1e15).filter(lambda x: x == 0 or abs(x) > 1e-90)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abä的\U0001f600"), inner),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text('ab"\\\n', max_size=4), json_values, max_size=4)


@settings(max_examples=300, deadline=None)
@given(OBJECTS, st.sampled_from([None, 0, 2]))
def test_what_json_writes_is_accepted_to_its_last_byte(value: object, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=indent).encode()
    assert reads(text) is True
    assert reads(text[:-1]) is False


@settings(max_examples=300, deadline=None)
@given(OBJECTS, st.data())
def test_what_is_accepted_with_a_changed_byte_can_be_read(
    value: object, data: st.DataObject
) -> None:
    text = bytearray(json.dumps(value, ensure_ascii=False).encode())
    text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    if reads(bytes(text)):
        assert isinstance(json.loads(bytes(text).decode("utf-8"), parse_constant=int), dict)


@pytest.mark.parametrize(
    "text",
    [
        b"[1]", b"1", b"null", b'{"a":01}', b'{"a":1.}', b'{"a":.5}', b'{"a":+1}', b'{"a":-}',
        b'{"a":1e}', b'{"a":1e999}', b'{"a":NaN}', b'{"a":Infinity}', b"{'a':1}", b'{"a":1,}',
        b'{,"a":1}', b'{"a"}', b'{"a":}', b'{"a":[1,]}', b'{"a":[1}}', b'{"a":tru}', b'{"a":"\n"}',
        b'{"a":"\\x"}', b'{"a":"\\u12g4"}', b'{"a":"\\ud800"}', b'{"a":"\xff"}', b'{"a":"\xc3"}',
        b'{"a":"\xed\xa0\x80"}', b'{"a":"\xf5\x80\x80\x80"}', b'{"a":"\xc0\x80"}', b"{}{}", b"{} x",
        b"  {}", b"\t{}", b'{"a":  1}', b'{"a":\n\n1}', b'{"a":\n' + b" " * 41 + b"1}",
        b'{"a":' + b"9" * 33 + b"}", b'{"a":' * 33,
    ],
)  # fmt: skip
def test_what_is_no_json_object_or_could_go_on_for_ever_is_refused(text: bytes) -> None:
    assert reads(text) is None


@pytest.mark.parametrize(
    "text",
    [
        b" {}", b' {\n\t "a" : 1 }', b'{"a":-0.5e-10}', b'{"a":' + b"9" * 32 + b"}",
        b'{"\\u00e9\\uD7ff":"\\/"}',
        b'{"a":' * 32 + b"1" + b"}" * 32, b'{"a":[[],{},"",true,false,null]}\n',
        b'{"a":"\xf4\x8f\xbf\xbf\xe0\xa0\x80"}',
    ],
)  # fmt: skip
def test_what_is_allowed_is_json(text: bytes) -> None:
    assert reads(text) is True
    assert isinstance(json.loads(text), dict)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([0.0, 1.0, 5.0]),
    st.sampled_from([0, 1, 40]),
    st.sampled_from([0.5, 1.0]),
)
def test_random_scores_write_json(seed: int, temperature: float, top_k: int, top_p: float) -> None:
    """Scores without any sense, tilted so that objects end."""
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed % 1000)
    chooser, answer = TokenChooser(sampling, [], CPU), GRAMMAR.begin()
    decoder = StreamDecoder(TOKENIZER)
    generator = torch.Generator().manual_seed(seed)
    text = ""
    for step in range(1000):
        scores = torch.randn(TOKENIZER.vocab_size, generator=generator) * 3
        for sign in (b'"', b"}", b"]", b":"):
            scores[BYTE[sign]] += step / 10
        token = chooser.choose(scores, answer.allowed(len(scores)))
        text += decoder.push(token)
        if answer.push(token):
            break
    else:
        raise AssertionError("no object ended")
    assert isinstance(json.loads(text + decoder.finish()), dict)


def test_draws_follow_the_probabilities_of_what_may_come() -> None:
    scores = torch.log(torch.tensor([0.5, 0.3, 0.2]))
    chooser = TokenChooser(Sampling(temperature=1.0, seed=1), [], CPU)
    drawn = [chooser.choose(scores, torch.tensor([False, True, True])) for _ in range(4000)]
    counts = torch.bincount(torch.tensor(drawn), minlength=3) / 4000
    assert torch.allclose(counts, torch.tensor([0.0, 0.6, 0.4]), atol=0.03)


def test_where_every_token_may_come_a_seed_draws_what_it_draws_without_the_rule() -> None:
    scores = torch.randn(300, generator=torch.Generator().manual_seed(1))
    runs = []
    for allowed in (None, torch.ones(300, dtype=torch.bool)):
        chooser = TokenChooser(Sampling(temperature=1.0, seed=5), [], CPU)
        runs.append([chooser.choose(scores, allowed) for _ in range(50)])
    assert runs[0] == runs[1]


def test_beyond_what_top_k_keeps_the_likeliest_that_may_come_is_taken() -> None:
    scores = torch.arange(1000.0)
    for sampling in (Sampling(temperature=1.0, top_k=3), Sampling(temperature=1.0, top_p=0.1)):
        chooser = TokenChooser(sampling, [], CPU)
        assert chooser.choose(scores, torch.arange(1000) < 20) == 19
    assert TokenChooser(Sampling(), [], CPU).choose(scores, torch.arange(1000) == 0) == 0


def test_a_vocabulary_without_a_way_on_is_named() -> None:
    with pytest.raises(EngineError, match="no token"):
        TokenChooser(Sampling(), [], CPU).choose(torch.zeros(5), torch.zeros(5, dtype=torch.bool))


def test_without_the_package_json_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UsageError, match="llguidance") as error:
        JsonGrammar(TOKENIZER, END)
    assert "cogvlm2-lite[server]" in error.value.hint


def test_the_beginning_of_an_answer_that_is_no_json_is_refused() -> None:
    answer = GRAMMAR.begin()
    with pytest.raises(UsageError, match="not the beginning"):
        answer.push(BYTE[b"x"])


@pytest.fixture(scope="module")
def demo() -> Model:
    return cogvlm2_lite.load(checkpoint_folder())


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_demo_model_writes_json_or_says_that_it_was_cut(
    demo: Model, temperature: float
) -> None:
    path = next(p.path for p in sample_pictures() if p.path.stem == "sign")
    ends = set()
    for tokens in (3, 400):
        sampling = Sampling(
            max_new_tokens=tokens, temperature=temperature, seed=3, json_object=True,
            repetition_guard=False,
        )  # fmt: skip
        end = list(demo.answer("What is written on the sign?", path, sampling=sampling))[-1]
        assert isinstance(end, Finished)
        ends.add(end.reason)
        assert end.text.lstrip().startswith("{")
        if end.reason is FinishReason.EOS:
            assert isinstance(json.loads(end.text), dict)
    assert FinishReason.LENGTH in ends


def test_an_object_ends_the_answer_and_end_tokens_never_do(tmp_path: Path) -> None:
    model = cogvlm2_lite.load(talking_folder(tmp_path / "tiny"), device="cpu", dtype="float32")
    wanted = iter(b'{"a": 1}')
    end_token = min(model.config.eos_token_ids)

    def scores() -> torch.Tensor:
        row = torch.zeros(512)
        byte = next(wanted, None)
        assert byte is not None, "the answer went on after its end"
        by_bytes = {model.engine.tokenizer.token_bytes(i): i for i in range(500)}
        row[by_bytes[bytes([byte])]] = 5.0
        row[end_token] = 9.0
        return row

    first = scores()
    model.runtime.decode_steps = scripted_decode(scores)  # type: ignore[method-assign, assignment]
    model.runtime.compute_logits = lambda hidden: first.reshape(1, 1, -1)  # type: ignore[method-assign]
    sampling = Sampling(json_object=True, logprobs=0)
    end = list(model.answer("Go?", sampling=sampling))[-1]
    assert isinstance(end, Finished)
    assert (end.text, end.reason) == ('{"a": 1}', FinishReason.EOS)
    assert end.completion_tokens == 8
