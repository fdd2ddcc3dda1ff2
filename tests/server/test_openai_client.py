"""The official `openai` client against `cogvlm2-lite serve demo`, as users start it."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from PIL import Image

from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.weights.adapter_names import BEHIND_PICTURE
from tests.helpers.adapters import TOWER, random_adapter
from tests.helpers.served import PATIENCE_S, PICTURES, Served

QUESTION = "What is written on the sign?"


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root, demo = tmp_path_factory.mktemp("adapters"), checkpoint_folder()
    return {
        "one": random_adapter(root / "one", demo, seed=1, acts_on=BEHIND_PICTURE),
        "two": random_adapter(root / "b=2", demo, seed=2, parts=TOWER),
    }


@pytest.fixture(scope="module")
def served(adapters: dict[str, Path]) -> Iterator[Served]:
    """A server with adapters; whoever asks "demo" gets the model without them."""
    given = ["--adapter", str(adapters["one"]), "--adapter", f"two={adapters['two']}:0.5"]
    served = Served("--parallel", "2", *given)
    yield served
    served.stop()


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with served.client(max_retries=0) as client:
        yield client


def image_part(path: Path) -> Any:
    data = base64.b64encode(path.read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def about(name: str, question: str = QUESTION) -> Any:
    parts = [{"type": "text", "text": question}, image_part(PICTURES[name])]
    return [{"role": "user", "content": parts}]


def library_answer(name: str, question: str) -> Any:
    import cogvlm2_lite

    model = cogvlm2_lite.load(Path(cogvlm2_lite.__file__).parent / "demo" / "checkpoint")
    return list(model.answer(question, PICTURES[name]))[-1]


def test_a_picture_is_answered_as_by_the_library_with_exact_counts(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="demo", messages=about("sign"))
    expected = library_answer("sign", QUESTION)
    assert reply.choices[0].message.content == expected.text.strip()
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == expected.prompt_tokens
    assert reply.usage.completion_tokens == expected.completion_tokens


def test_adapters_are_models_that_the_client_chooses(
    client: openai.OpenAI, adapters: dict[str, Path]
) -> None:
    import cogvlm2_lite

    names = [model.id for model in client.models.list()]
    assert names == ["demo", "demo:one", "demo:two"]
    assert client.models.retrieve("demo:two").id == "demo:two"
    texts = [str(adapters["one"]), f"two={adapters['two']}:0.5"]
    model = cogvlm2_lite.load("demo", adapters=texts)
    answers = []
    for name, adapter in zip(names, (None, "one", "two"), strict=True):
        model.adapter = adapter
        sampling = cogvlm2_lite.Sampling(max_new_tokens=6)
        expected = list(model.answer(QUESTION, PICTURES["sign"], sampling=sampling))[-1]
        reply = client.chat.completions.create(model=name, messages=about("sign"), max_tokens=6)
        assert reply.choices[0].message.content == expected.text.strip()
        assert reply.model == name
        answers.append(expected.text)
    assert len(set(answers)) == 3
    with pytest.raises(openai.NotFoundError, match="demo, demo:one, demo:two"):
        client.chat.completions.create(model=f"demo:{adapters['two']}", messages=about("sign"))


def test_a_stream_gives_the_same_text_and_counts(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="demo", messages=about("sign"))
    text, counts = "", None
    for chunk in client.chat.completions.create(
        model="demo", messages=about("sign"), stream=True, stream_options={"include_usage": True}
    ):
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        counts = chunk.usage or counts
    assert text == whole.choices[0].message.content
    assert counts == whole.usage


def test_a_prediction_changes_no_answer_and_its_tokens_are_counted(client: openai.OpenAI) -> None:
    messages = about("three-shapes", "What is in the picture?")
    plain = client.chat.completions.create(model="demo", messages=messages)
    text = plain.choices[0].message.content
    assert text
    assert plain.usage
    counts = {}
    for content in (text, "A red bus, and nothing else."):
        reply = client.chat.completions.create(
            model="demo", messages=messages, prediction={"type": "content", "content": content}
        )
        assert reply.choices[0].message.content == text
        assert reply.usage
        assert reply.usage.completion_tokens == plain.usage.completion_tokens
        details = reply.usage.completion_tokens_details
        assert details
        counts[content] = details.accepted_prediction_tokens or 0
    assert counts[text] > plain.usage.completion_tokens / 2


def test_a_picture_that_comes_again_is_not_looked_at_again(
    served: Served, client: openai.OpenAI
) -> None:
    def known() -> float:
        page = httpx.get(f"{served.address}/metrics").text
        found = re.search(r'cogvlm2_pictures_total\{known="true"\} (\d+)', page)
        return int(found[1]) if found else 0

    client.chat.completions.create(model="demo", messages=about("chart"), max_tokens=2)
    client.chat.completions.create(model="demo", messages=about("sign"), max_tokens=2)
    before = known()
    client.chat.completions.create(model="demo", messages=about("chart"), max_tokens=2)
    assert known() == before + 1


def test_a_page_is_chosen_and_named_through_the_client(client: openai.OpenAI) -> None:
    chart, sign = (Image.open(PICTURES[name]).convert("RGB") for name in ("chart", "sign"))
    scan = BytesIO()
    chart.save(scan, "TIFF", save_all=True, append_images=[sign])
    url = f"data:image/tiff;base64,{base64.b64encode(scan.getvalue()).decode()}"
    part: Any = {"type": "image_url", "image_url": {"url": url}}
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": QUESTION}, part]}]
    raw = client.chat.completions.with_raw_response.create(model="demo", messages=messages)
    assert "page 1 of 2" in raw.headers["x-cogvlm2-notice"]
    first = raw.parse()
    assert first.model_extra is not None
    assert "page 1 of 2" in first.model_extra["cogvlm2"]["notices"][0]
    chunk = next(client.chat.completions.create(model="demo", messages=messages, stream=True))
    assert chunk.model_extra == {"cogvlm2": first.model_extra["cogvlm2"]}
    part["page"] = 2
    second = client.chat.completions.create(model="demo", messages=messages)
    plain = client.chat.completions.create(model="demo", messages=about("sign"))
    assert second.choices[0].message.content == plain.choices[0].message.content
    assert second.model_extra is not None
    assert (second.model_extra["cogvlm2"]["page"], second.model_extra["cogvlm2"]["pages"]) == (2, 2)
    part["page"] = 3
    with pytest.raises(openai.BadRequestError, match="2 pages"):
        client.chat.completions.create(model="demo", messages=messages)


def test_several_turns_text_only_and_stop(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model="demo", messages=about("sign"))
    said = first.choices[0].message.content
    assert said
    talk: Any = [
        {"role": "system", "content": "Answer in English."},
        *about("sign"),
        {"role": "assistant", "content": said},
        {"role": "user", "content": "What colour is the sign?"},
    ]
    assert client.chat.completions.create(model="demo", messages=talk).choices[0].message.content
    alone: Any = [{"role": "user", "content": "Hello"}]
    short = client.chat.completions.create(model="demo", messages=alone, max_tokens=1)
    assert short.choices[0].finish_reason == "length"
    stopped = client.chat.completions.create(model="demo", messages=about("sign"), stop=said[1:3])
    assert stopped.choices[0].message.content == said[0]


def test_a_seed_repeats_a_random_answer(client: openai.OpenAI) -> None:
    texts = {
        client.chat.completions.create(
            model="demo", messages=about("shapes", "Describe it."), temperature=1.5, seed=5
        ).choices[0].message.content
        for _ in "ab"
    }  # fmt: skip
    assert len(texts) == 1


def test_likelihoods_come_with_their_bytes_whole_and_streamed(client: openai.OpenAI) -> None:
    wanted: Any = {"model": "demo", "messages": about("shapes", "图片里有什么？")}
    wanted |= {"logprobs": True, "top_logprobs": 2}
    choice = client.chat.completions.create(**wanted).choices[0]
    assert choice.logprobs is not None
    content = choice.logprobs.content or []
    data = b"".join(bytes(one.bytes or []) for one in content)
    assert data.decode() == choice.message.content
    assert all(one.logprob <= 0 and len(one.top_logprobs) == 2 for one in content)
    # Greedy decoding chose the likeliest one each time.
    assert [one.token for one in content] == [one.top_logprobs[0].token for one in content]
    streamed = [
        one
        for chunk in client.chat.completions.create(**wanted, stream=True)
        for one in (chunk.choices[0].logprobs and chunk.choices[0].logprobs.content) or []
    ]
    assert streamed == content
    bare = client.completions.create(model="demo", prompt="Question: Hi Answer:", logprobs=3)
    lists = bare.choices[0].logprobs
    assert lists is not None
    assert lists.text_offset == sorted(lists.text_offset or [])
    assert len(lists.tokens or []) == len(lists.top_logprobs or []) > 0


def test_a_json_object_can_always_be_read_unless_it_was_cut(client: openai.OpenAI) -> None:
    ended = 0
    for seed in range(6):
        choice = client.chat.completions.create(
            model="demo", messages=about("sign"), response_format={"type": "json_object"},
            temperature=1.0, seed=seed, max_tokens=40,
        ).choices[0]  # fmt: skip
        if choice.finish_reason == "stop":
            ended += 1
            assert isinstance(json.loads(choice.message.content or ""), dict)
        assert (choice.message.content or "")[:1] == "{"
    assert 0 < ended < 6


def response_input(name: str) -> Any:
    data = base64.b64encode(PICTURES[name].read_bytes()).decode()
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{data}", "detail": "auto"}
    return [{"role": "user", "content": [{"type": "input_text", "text": QUESTION}, image]}]


def test_responses_give_what_chats_give_whole_and_streamed(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(model="demo", messages=about("sign"))
    given = response_input("sign")
    whole = client.responses.create(model="demo", input=given)
    assert whole.output_text == chat.choices[0].message.content
    assert (whole.status, whole.to_dict()["store"]) == ("completed", False)
    assert chat.usage is not None
    assert whole.usage is not None
    assert whole.usage.input_tokens == chat.usage.prompt_tokens
    assert whole.usage.input_tokens_details.cached_tokens > 0  # the chat looked at it already
    events = list(client.responses.create(model="demo", input=given, stream=True))
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert events[-1].type == "response.completed"
    assert text == events[-1].response.output_text == whole.output_text
    more: Any = [*given, *whole.output, {"role": "user", "content": "What colour is the sign?"}]
    assert client.responses.create(model="demo", input=more, instructions="Be short.").output_text
    short = client.responses.create(model="demo", input="Hello", max_output_tokens=1)
    assert short.status == "incomplete"
    with pytest.raises(openai.BadRequestError, match="stores no answers"):
        client.responses.create(model="demo", input="Hello", previous_response_id=whole.id)


def test_the_clients_own_stream_helper_reads_responses(client: openai.OpenAI) -> None:
    with client.responses.stream(model="demo", input=response_input("sign")) as stream:
        assert stream.get_final_response().output_text == "ROAD"


def test_errors_arrive_as_openais_classes(client: openai.OpenAI) -> None:
    both: Any = [*about("sign"), {"role": "assistant", "content": "x"}, *about("chart")]
    newest: Any = client.chat.completions.create(model="demo", messages=both, max_tokens=4)
    assert newest.cogvlm2["notices"] == [
        "The conversation has 2 pictures, and the model takes one: the answer is about the newest."
    ]
    long: Any = [{"role": "user", "content": "word " * 9000}]
    with pytest.raises(openai.BadRequestError, match="tokens") as caught:
        client.chat.completions.create(model="demo", messages=long)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-4o", messages=about("sign"))
    damaged = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    broken: Any = [{"role": "user", "content": [damaged, {"type": "text", "text": "?"}]}]
    with pytest.raises(openai.BadRequestError, match="picture"):
        client.chat.completions.create(model="demo", messages=broken)


def picture_file(kind: str) -> bytes:
    """Return a small picture as a file of a kind."""
    file = BytesIO()
    with Image.open(PICTURES["shapes"]) as image:
        image.convert("RGB").resize((60, 40)).save(file, kind)
    return file.getvalue()


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Change bytes, mostly in the header, and cut the end off now and then."""
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 12)):
        most = min(64, len(data)) if chance.random() < 0.5 else len(data)
        changed[chance.randrange(most)] = chance.randrange(256)
    return bytes(changed[: chance.randrange(1, len(data))] if chance.random() < 0.3 else changed)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_mutated_pictures_never_give_a_500(served: Served, kind: str) -> None:
    chance = random.Random(kind)
    seen = set()
    with httpx.Client(base_url=served.address, timeout=PATIENCE_S) as http:
        for data in [picture_file(kind), *(mutated(picture_file(kind), chance) for _ in range(40))]:
            url = "data:image/png;base64," + base64.b64encode(data).decode()
            parts = [
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": "?"},
            ]
            body = {"messages": [{"role": "user", "content": parts}], "max_tokens": 1}
            reply = http.post("/v1/chat/completions", json=body)
            seen.add(reply.status_code)
            if reply.status_code == 400:
                assert "picture" in reply.json()["error"]["message"]
    assert seen == {200, 400}


def test_concurrent_clients_get_their_own_answers(served: Served) -> None:
    names = list(PICTURES)
    alone = {n: answer(served, n) for n in names}
    together: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda i=i: together.__setitem__(i, answer(served, names[i % 6])))
        for i in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert together == {i: alone[names[i % 6]] for i in range(12)}


def answer(served: Served, name: str) -> str:
    with served.client() as client:
        reply = client.chat.completions.create(
            model="demo", messages=about(name, "What is in the picture?"), max_tokens=12
        )
        return reply.choices[0].message.content or ""


def test_leaving_a_stream_frees_the_model(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="demo", messages=about("sign"), stream=True, temperature=2, max_tokens=4000
    )
    next(iter(stream))
    stream.close()
    assert client.chat.completions.create(model="demo", messages=about("sign"), max_tokens=2)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="a POSIX signal")
def test_a_killed_engine_is_a_503_and_comes_back(served: Served, client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="demo", messages=about("sign"), stream=True, temperature=2, max_tokens=4000, seed=1
    )
    [engine] = psutil.Process(served.process.pid).children()
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(openai.APIError, match=r"killed \(signal 9"):
        list(stream)
    with served.client(max_retries=5) as patient:  # the client itself waits as Retry-After says
        assert patient.chat.completions.create(model="demo", messages=about("sign"))
    assert httpx.get(f"{served.address}/health").status_code == 200


def test_a_folder_that_is_no_model_ends_the_command_with_the_reason(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cogvlm2_lite", "serve", str(tmp_path), "--port", "0"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 1
    assert "config.json" in done.stderr
    assert "Traceback" not in done.stderr
