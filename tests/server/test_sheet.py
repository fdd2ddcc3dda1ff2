"""`serve --pictures sheet`: several pictures of a conversation on one sheet with numbers."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import ollama
import openai
import pytest

from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.worker.protocol import Ask
from tests.helpers.chat_client import CHAT, client_of, picture, text, user
from tests.helpers.scripted_server import ScriptedEngine, running
from tests.helpers.served import PICTURES, Served

ENGINE = ScriptedEngine()
FILES = [f"the file of picture {number}".encode() for number in range(12)]
ANSWER = {"role": "assistant", "content": "yes"}


def url(number: int) -> str:
    return "data:image/png;base64," + base64.b64encode(FILES[number]).decode()


def files_of(ask: Ask) -> list[bytes]:
    """Return the files of a sheet, as the engine's process finds them."""
    assert ask.image is not None
    found, begin = [], 0
    for one in ask.sheet:
        found.append(ask.image[begin : begin + one.nbytes])
        begin += one.nbytes
    assert begin == len(ask.image)
    return found


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with (
        running(ENGINE, limits=Limits(pictures="sheet"), model="demo") as server,
        client_of(server) as client,
    ):
        yield client


def asked(client: httpx.Client, *messages: Any, **fields: Any) -> tuple[Ask, httpx.Response]:
    reply = client.post(CHAT, json={"messages": messages, **fields})
    assert reply.status_code == 200, reply.text
    return ENGINE.asked[-1], reply


def test_the_model_reads_the_numbers_where_the_pictures_were(client: httpx.Client) -> None:
    ask, reply = asked(
        client,
        {"role": "system", "content": "Be short."},
        user(picture(url(0)), text("What is this?")),
        ANSWER,
        user(text("And"), picture(url(1)), text("this?")),
    )
    assert files_of(ask) == FILES[:2]
    opening = "The image shows 2 pictures with the numbers 1 to 2."
    assert ask.history == ((f"Be short.\n{opening}\n[Picture 1]\nWhat is this?", "yes"),)
    assert ask.question == "And\n[Picture 2]\nthis?"
    [notice] = reply.json()["cogvlm2"]["notices"]
    assert notice == (
        "The conversation has 2 pictures, and the model takes one: they are on one sheet, with the "
        "numbers 1 to 2."
    )
    assert reply.headers["x-cogvlm2-notice"] == notice


def test_one_picture_stays_as_it_is(client: httpx.Client) -> None:
    ask, reply = asked(
        client, user(picture(url(3)), text("a")), ANSWER, user(picture(url(3)), text(""))
    )
    assert (ask.image, ask.sheet, ask.history) == (FILES[3], (), (("a", "yes"),))
    assert ask.question == "Describe this image."
    assert reply.json()["cogvlm2"] is None


def test_pictures_keep_their_numbers_when_the_conversation_goes_on(client: httpx.Client) -> None:
    turns = [user(picture(url(0)), picture(url(1)), text("a")), ANSWER]
    first, _ = asked(client, *turns, user(picture(url(0)), text("b")))
    assert files_of(first) == FILES[:2]
    assert first.question == "[Picture 1]\nb"
    second, _ = asked(client, *turns, user(picture(url(2)), text("b")))
    assert files_of(second) == FILES[:3]


def test_of_more_than_nine_the_newest_nine_are_shown(client: httpx.Client) -> None:
    turns = [turn for n in range(11) for turn in (user(picture(url(n)), text("a")), ANSWER)]
    # The first one comes again, and so it is one of the newest.
    ask, reply = asked(client, *turns, user(picture(url(0)), text("b")))
    assert files_of(ask) == [FILES[0], *FILES[3:11]]
    assert ask.history[1][0] == "[A picture that is no longer shown]\na"
    assert ask.history[3][0] == "[Picture 2]\na"
    assert ask.question == "[Picture 1]\nb"
    [notice] = reply.json()["cogvlm2"]["notices"]
    assert notice == (
        "The conversation has 11 pictures, and the model takes one: the newest 9 are on one sheet, "
        "with the numbers 1 to 9."
    )


def test_pictures_of_other_roles_and_of_the_same_file_count(client: httpx.Client) -> None:
    paged = {"type": "image_url", "image_url": {"url": url(1), "page": 2}}
    ask, _ = asked(
        client,
        {"role": "system", "content": [text("s"), picture(url(0))]},
        user(picture(url(1)), paged),
        {"role": "assistant", "content": [picture(url(2)), text("b")]},
        {"role": "user", "content": "c", "images": [url(3)]},
    )
    assert files_of(ask) == [FILES[0], FILES[1], FILES[1], FILES[2], FILES[3]]
    assert [one.page for one in ask.sheet] == [None, None, 2, None, None]
    assert ask.history[0][1] == "[Picture 4]\nb"
    assert ask.question == "c\n[Picture 5]"


@pytest.mark.parametrize("ends", [[], [{"role": "assistant", "content": "On 1 is"}]])
def test_pictures_without_words_are_described(client: httpx.Client, ends: list[Any]) -> None:
    ask, _ = asked(client, user(picture(url(0)), picture(url(1))), *ends)
    opening = "The image shows 2 pictures with the numbers 1 to 2."
    wanted = f"{opening}\n[Picture 1]\n[Picture 2]\nDescribe each picture."
    assert ask.question == wanted


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_of_the_newer_api(client: httpx.Client, stream: bool) -> None:
    with openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="x") as api:
        parts = [{"type": "input_image", "image_url": url(n)} for n in (4, 5)]
        question: Any = [
            {"role": "user", "content": [*parts, {"type": "input_text", "text": "which?"}]}
        ]
        made: Any = api.responses.create(model="demo", input=question, stream=stream)
        found = [e.response for e in made if e.type == "response.completed"] if stream else [made]
    assert "2 pictures" in found[0].model_dump()["cogvlm2"]["notices"][0]
    assert files_of(ENGINE.asked[-1]) == FILES[4:6]
    assert ENGINE.asked[-1].question.endswith("[Picture 1]\n[Picture 2]\nwhich?")


@pytest.mark.parametrize("stream", [False, True])
def test_ollamas_images(client: httpx.Client, stream: bool) -> None:
    with ollama.Client(str(client.base_url)) as api:
        made: Any = api.generate("demo", "which?", images=FILES[:3], stream=stream)
        last = [*made][-1] if stream else made
        assert (
            "3 pictures"
            in last.model_dump().get("cogvlm2", {"notices": ["3 pictures"]})["notices"][0]
        )
        assert files_of(ENGINE.asked[-1]) == FILES[:3]
        api.chat("demo", [{"role": "user", "content": "which?", "images": FILES[:2]}])
    assert files_of(ENGINE.asked[-1]) == FILES[:2]


@pytest.mark.parametrize("bad", ["data:image/png;base64,!!!", "file:///etc/passwd"])
def test_a_part_that_is_no_picture_is_an_error(client: httpx.Client, bad: str) -> None:
    body = {"messages": [user(picture(url(0)), picture(bad), text("a"))]}
    reply = client.post(CHAT, json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"].endswith("image_url")


def test_a_strict_server_still_refuses_several_pictures() -> None:
    limits = Limits(pictures="sheet", strict=True)
    body = {"messages": [user(picture(url(0)), picture(url(1)), text("a"))]}
    with running(limits=limits) as server, client_of(server) as client:
        assert client.post(CHAT, json=body).json()["error"]["code"] == "too_many_images"


def test_the_picture_cache_keeps_sheets_of_the_real_model() -> None:
    served = Served("--pictures", "sheet")
    try:
        with served.client() as api:
            sheet = [
                picture(
                    "data:image/png;base64,"
                    + base64.b64encode(PICTURES[name].read_bytes()).decode()
                )
                for name in ("sign", "number")
            ]
            for cached in (False, True):
                question: Any = [user(*sheet, text(f"What is the number? {cached}"))]
                made: Any = api.chat.completions.create(
                    model="demo", messages=question, max_tokens=3
                )
                details = made.usage.prompt_tokens_details
                assert details.image_tokens > 0
                assert (details.cached_tokens > details.image_tokens) is cached
            bad: Any = [user(sheet[0], picture(url(0)), text("What is it?"))]
            with pytest.raises(openai.BadRequestError, match="Picture 2: "):
                api.chat.completions.create(model="demo", messages=bad)
    finally:
        served.stop()
