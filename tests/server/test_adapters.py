"""Adapters in the APIs: a request chooses one by the name of its model, and never by a path."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import ollama
import openai
import pytest

from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.mcp_server.folders import AllowedFolders
from cogvlm2_lite.mcp_server.run import Options, make_service, make_tools
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.models import ServedModels
from cogvlm2_lite.weights.adapter_choice import AdapterChoice
from tests.helpers.scripted_server import ScriptedEngine, running
from tests.helpers.waiting import PATIENCE_S

ENGINE = ScriptedEngine()
ADAPTERS = ("invoices", "发票 v1:b")
HELLO: list[Any] = [{"role": "user", "content": "hello there"}]
NAMES = ["my-model", "my-model:invoices", "my-model:发票 v1:b"]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(ENGINE, limits=Limits(), model="my-model", adapters=ADAPTERS) as server:
        yield server.address


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[openai.OpenAI]:
    url = f"{address}/v1"
    with openai.OpenAI(base_url=url, api_key="x", timeout=PATIENCE_S, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def ollama_client(address: str) -> Iterator[ollama.Client]:
    with ollama.Client(address, timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture(scope="module")
def http(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=PATIENCE_S) as http:
        yield http


def test_all_of_them_are_listed_and_found(client: openai.OpenAI, http: httpx.Client) -> None:
    assert [model.id for model in client.models.list()] == NAMES
    assert [model["id"] for model in http.get("/models").json()["data"]] == NAMES
    for name in NAMES:
        assert client.models.retrieve(name).id == name
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("my-model:other")


@pytest.mark.parametrize(
    ("name", "adapter"),
    [*zip(NAMES, ("", *ADAPTERS), strict=True), ("my-model:latest", "")],
)
def test_every_kind_of_request_chooses_one(client: openai.OpenAI, name: str, adapter: str) -> None:
    known = "my-model" if name == "my-model:latest" else name
    chat = client.chat.completions.create(model=name, messages=HELLO, n=2)
    assert [ask.adapter for ask in ENGINE.asked[-2:]] == [adapter, adapter]
    stream = list(client.chat.completions.create(model=name, messages=HELLO, stream=True))
    bare = client.completions.create(model=name, prompt=["hello", "there"])
    whole = client.responses.create(model=name, input="hello there")
    assert {ask.adapter for ask in ENGINE.asked[-4:]} == {adapter}
    assert [chat.model, stream[0].model, bare.model, whole.model] == [known] * 4


def test_a_request_without_a_name_gets_the_first_adapter(http: httpx.Client) -> None:
    for model in ({}, {"model": ""}, {"model": None}):
        reply = http.post("/v1/chat/completions", json={"messages": HELLO, **model})
        assert reply.json()["model"] == "my-model:invoices"
        assert ENGINE.asked[-1].adapter == "invoices"


@pytest.mark.parametrize(
    "name",
    ["gpt-4o", "my-model:other", "my-model:", "invoices", "other:invoices", "my-model:INVOICES",
     "my-model:/etc", "my-model:../invoices", "my-model:invoices=/tmp", "/home/me/adapter"],
)  # fmt: skip
def test_any_other_name_is_an_error_with_the_names(
    client: openai.OpenAI, http: httpx.Client, ollama_client: ollama.Client, name: str
) -> None:
    asked = len(ENGINE.asked)
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model=name, messages=HELLO)
    assert ", ".join(NAMES) in error.value.message
    assert error.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model=name, input="hello")
    with pytest.raises(ollama.ResponseError) as found:
        ollama_client.chat(name, HELLO)
    assert found.value.status_code == 404
    assert "my-model:latest, my-model:invoices" in found.value.error
    assert len(ENGINE.asked) == asked


def test_ollama_s_clients_see_and_choose_them(ollama_client: ollama.Client) -> None:
    models = ollama_client.list().models
    names = ["my-model:latest", *NAMES[1:]]
    assert [model.model for model in models] == names
    assert len({model.digest for model in models}) == 3
    assert [model.model for model in ollama_client.ps().models] == names
    for name, adapter in zip(names, ("", *ADAPTERS), strict=True):
        assert ollama_client.chat(name, HELLO).model == name
        assert ENGINE.asked[-1].adapter == adapter
        assert ollama_client.generate(name, "hello").model == name
        assert ENGINE.asked[-1].adapter == adapter
        shown = ollama_client.show(name)
        assert shown.details is not None
        assert shown.details.parent_model == ("my-model:latest" if adapter else "")
        assert ollama_client.pull(name).status == "success"


def test_without_adapters_everything_is_as_before() -> None:
    with running(ENGINE, limits=Limits(), model="my-model") as server:
        url = server.address
        listed = httpx.get(f"{url}/v1/models").json()["data"]
        assert [model["id"] for model in listed] == ["my-model"]
        reply = httpx.post(f"{url}/v1/chat/completions", json={"messages": HELLO})
        assert (reply.json()["model"], ENGINE.asked[-1].adapter) == ("my-model", "")
        wrong = {"messages": HELLO, "model": "my-model:invoices"}
        error = httpx.post(f"{url}/v1/chat/completions", json=wrong).json()["error"]
        assert error["message"] == "Unknown model. The model of this server is my-model."


def test_a_name_that_ollama_has_taken_is_refused() -> None:
    with pytest.raises(UsageError, match="can't be called 'latest'"):
        ServedModels("my-model", ["latest"])
    assert ServedModels("a:b", ["c"]).all[0].ollama_name == "a:b"


@pytest.mark.parametrize("adapters", [ADAPTERS, ()])
def test_a_tool_s_argument_chooses_one(tmp_path: Path, adapters: tuple[str, ...]) -> None:
    from mcp import Client

    from tests.helpers.served import PICTURES

    choices = tuple(AdapterChoice(name=name, folder=Path(name)) for name in adapters)
    load = LoadOptions(folder=Path("nowhere"), adapters=choices)
    options = Options(load=load, folders=(tmp_path,), version="1")
    (tmp_path / "a.png").write_bytes(PICTURES["sign"].read_bytes())
    engine = ScriptedEngine()

    async def session() -> None:
        service = make_service(options, engine)
        service.start()
        tools = make_tools(options, service, AllowedFolders([tmp_path]))
        async with Client(tools.server(), mode="legacy") as client:
            listed = await client.list_tools()
            for tool in listed.tools[:2]:
                found = tool.input_schema["properties"].get("adapter", {}).get("enum")
                assert found == ([*adapters, "base"] if adapters else None)
            for name, sent in ((None, None), ("base", ""), *((name, name) for name in adapters)):
                values = {"path": "a.png", "question": "hi"} | ({"adapter": name} if name else {})
                assert not (await client.call_tool("ask_picture", values)).is_error
                assert engine.asked[-1].adapter == sent
            wrong = {"path": "a.png", "adapter": "/etc"}
            result = await client.call_tool("ask_picture", wrong)
            assert result.is_error
            assert "There is no adapter '/etc'" in str(result.content)
        await service.stop()

    asyncio.run(asyncio.wait_for(session(), PATIENCE_S))
