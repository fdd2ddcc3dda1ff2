"""A prediction of the answer, in OpenAI's form: text that clients already have of the picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from msgspec import structs

from cogvlm2_lite.events import Prefilled, TextDelta
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.worker.client import Outcome
from cogvlm2_lite.worker.protocol import Ask
from tests.helpers.chat_client import ask, client_of
from tests.helpers.scripted_server import ScriptedEngine, finished, running


class DraftingEngine(ScriptedEngine):
    """Takes as many words of the draft as its answer has."""

    def _answer(self, ask: Ask, deliver: Callable[[Outcome], None]) -> None:
        deliver(Prefilled(tokens=5, reused_tokens=0, seconds=0.1))
        deliver(TextDelta(text=ask.question))
        words, drafted = ask.question.split(), ask.draft_text.split()
        accepted = sum(word in words for word in drafted)
        end = finished(ask)
        # Without a draft, the n-grams of the conversation are proposed.
        counts = (len(drafted), accepted) if drafted else (7, 3)
        deliver(structs.replace(end, draft_tokens=counts[0], accepted_tokens=counts[1]))


@pytest.fixture(scope="module")
def engine() -> DraftingEngine:
    return DraftingEngine()


@pytest.fixture(scope="module", params=["strict", "tolerant"])
def client(request: pytest.FixtureRequest, engine: DraftingEngine) -> Iterator[httpx.Client]:
    with (
        running(engine, limits=Limits(strict=request.param == "strict")) as server,
        client_of(server) as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("hello world", "hello world"),
        ([{"type": "text", "text": "hello "}, {"type": "text", "text": "world"}], "hello world"),
        ("", ""),
        ([], ""),
    ],
)
def test_a_prediction_is_the_draft_of_the_answer(
    client: httpx.Client, engine: DraftingEngine, content: Any, text: str
) -> None:
    reply = ask(client, prediction={"type": "content", "content": content})
    assert reply.status_code == 200, reply.text
    assert engine.asked[-1].draft_text == text
    details = reply.json()["usage"]["completion_tokens_details"]
    expected = (1, 1) if text else (0, 0)
    found = details["accepted_prediction_tokens"], details["rejected_prediction_tokens"]
    assert found == expected


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        ("hello", "prediction must be an object"),
        ([], "prediction must be an object"),
        ({"content": "hello"}, "prediction.type is missing"),
        ({"type": "text", "content": "hello"}, 'prediction.type must be "content", not "text"'),
        ({"type": "content"}, "prediction.content is missing"),
        ({"type": "content", "content": None}, "prediction.content is missing"),
        ({"type": "content", "content": 5}, "prediction.content must be a string or a list"),
        ({"type": "content", "content": ["hello"]}, "prediction.content[0] must be an object"),
        (
            {"type": "content", "content": [{"type": "image_url", "image_url": "x"}]},
            "prediction.content[0].type must be",
        ),
        (
            {"type": "content", "content": [{"type": "text"}]},
            "prediction.content[0].text is missin",
        ),
        ({"type": "content", "content": "x" * 400_001}, "The text has 400001 characters"),
    ],
)
def test_what_is_no_prediction_is_an_error_that_names_the_field(
    client: httpx.Client, prediction: Any, message: str
) -> None:
    reply = ask(client, prediction=prediction)
    assert reply.status_code == 400, reply.text
    assert message in reply.json()["error"]["message"]
    assert reply.json()["error"]["param"].startswith("prediction")


def test_null_is_no_prediction_and_its_own_guesses_are_not_counted(
    client: httpx.Client, engine: DraftingEngine
) -> None:
    absent: list[dict[str, Any]] = [{}, {"prediction": None}]
    for fields in absent:
        usage = ask(client, **fields).json()["usage"]
        assert engine.asked[-1].draft_text == ""
        assert set(usage["completion_tokens_details"].values()) == {0}


def test_the_counts_of_several_answers_are_added(client: httpx.Client) -> None:
    prediction = {"type": "content", "content": "hello world there"}
    details = ask(client, n=3, prediction=prediction).json()["usage"]["completion_tokens_details"]
    assert (details["accepted_prediction_tokens"], details["rejected_prediction_tokens"]) == (6, 3)


def test_the_metrics_have_all_drafts(client: httpx.Client) -> None:
    def counts() -> list[float]:
        lines = client.get("/metrics").text.splitlines()
        names = ("cogvlm2_draft_tokens_total ", "cogvlm2_accepted_tokens_total ")
        return [float(line.split()[1]) for name in names for line in lines if line.startswith(name)]

    before = counts()
    ask(client)
    assert [after - old for after, old in zip(counts(), before, strict=True)] == [7, 3]


def test_openais_package_sends_predictions_and_reads_the_counts(
    client: httpx.Client, engine: DraftingEngine
) -> None:
    with openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="none", max_retries=0) as package:
        chat = package.chat.completions
        messages: Any = [{"role": "user", "content": "hello there"}]
        reply = chat.create(
            model="scripted",
            messages=messages,
            prediction={"type": "content", "content": "hello world"},
        )
        chunks = list(
            chat.create(
                model="scripted",
                messages=messages,
                prediction={
                    "type": "content",
                    "content": [{"type": "text", "text": "hello world"}],
                },
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    for usage in (reply.usage, chunks[-1].usage):
        assert usage is not None
        assert usage.completion_tokens_details is not None
        assert usage.completion_tokens_details.accepted_prediction_tokens == 1
        assert usage.completion_tokens_details.rejected_prediction_tokens == 1
    assert reply.choices[0].message.content == "hello there"
    assert engine.asked[-1].draft_text == "hello world"
