"""Many clients, slow clients and hostile ones: what they get, and that others are answered."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from cogvlm2_lite.errors import DoesNotFitError, ImageError
from cogvlm2_lite.events import PictureOpened
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.run import LocalServer
from cogvlm2_lite.text import Text
from cogvlm2_lite.worker.client import Outcome
from cogvlm2_lite.worker.protocol import Ask
from tests.helpers.chat_client import CHAT, ask, client_of, in_thread, user
from tests.helpers.scripted_server import ScriptedEngine, running
from tests.helpers.waiting import PATIENCE_S, wait_until

COMMENT = ": still working"
HURRIED = Limits(status_s=0.05, comment_s=0.05)
NOTICE = PictureOpened(page=1, pages=2, notices=(Text("Page 1 of {pages}.", pages=2),))


class SlowEngine(ScriptedEngine):
    """Reports nothing before `begins` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.begins = threading.Event()

    def _answer(self, ask: Ask, deliver: Callable[[Outcome], None]) -> None:
        assert self.begins.wait(PATIENCE_S)
        super()._answer(ask, deliver)


def stream(server: LocalServer, path: str = CHAT, **fields: Any) -> Iterator[str]:
    """Yield the status of a stream as soon as it is known, and then its lines."""
    asked = {"messages": [user("hi")]} if path == CHAT else {"input": "hi"}
    with (
        client_of(server) as client,
        client.stream("POST", path, json={**asked, "stream": True, **fields}) as reply,
    ):
        yield str(reply.status_code)
        yield from reply.iter_lines()


def chunks(lines: Iterator[str]) -> list[Any]:
    """Read the rest of a stream: its chunks without the comments."""
    data = [line.partition("data: ")[2] for line in lines if line.startswith("data: ")]
    return [json.loads(one) for one in data if one != "[DONE]"]


def test_a_stream_that_waits_begins_at_once_and_is_not_silent() -> None:
    engine = ScriptedEngine()
    limits = Limits(status_s=PATIENCE_S, comment_s=0.05)
    with running(engine, limits=limits) as server, client_of(server) as client:
        first = in_thread(lambda: ask(client, "wait"))
        assert engine.begun.wait(PATIENCE_S)
        lines = stream(server)
        assert next(lines) == "200"
        assert [next(lines), next(lines), next(lines)] == [COMMENT, "", COMMENT]
        assert server.service.waiting == 1
        engine.extra = [NOTICE]
        engine.go.set()
        found = chunks(lines)
        first.join(PATIENCE_S)
    assert found[0]["cogvlm2"]["notices"] == ["Page 1 of 2."]
    assert found[0]["choices"][0]["delta"]["role"] == "assistant"
    assert found[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
def test_an_error_after_the_beginning_is_part_of_the_stream(path: str) -> None:
    engine = ScriptedEngine()
    with running(engine, limits=HURRIED) as server, client_of(server) as client:
        first = in_thread(lambda: ask(client, "wait"))
        assert engine.begun.wait(PATIENCE_S)
        lines = stream(server, path)
        assert next(lines) == "200"
        wait_until(lambda: server.service.waiting == 1)
        engine.error = ImageError("The picture is damaged.")
        engine.go.set()
        found = chunks(lines)
        first.join(PATIENCE_S)
    if path == CHAT:
        assert found[-1]["error"]["code"] == "invalid_image"
        return
    assert found[0]["type"] == "response.created"
    error = found[-1]["response"]["error"]
    assert (found[-1]["type"], error["code"]) == ("response.failed", "invalid_image")
    assert error["message"] == "The picture is damaged."


def test_the_official_client_reads_a_stream_that_waits_and_its_error() -> None:
    engine = SlowEngine()
    engine.error = DoesNotFitError("No memory.")
    with running(engine, limits=HURRIED) as server:
        client = openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0)
        messages: Any = [user("hi")]
        reply = client.chat.completions.create(model="scripted", messages=messages, stream=True)
        engine.begins.set()
        with pytest.raises(openai.APIError, match="No memory"):
            list(reply)


def test_work_that_begins_late_is_a_stream_with_comments() -> None:
    engine = SlowEngine()
    with running(engine, limits=HURRIED) as server:
        lines = stream(server)
        assert (next(lines), next(lines)) == ("200", COMMENT)
        engine.begins.set()
        assert chunks(lines)[-1]["choices"][0]["finish_reason"] == "stop"


def test_errors_that_are_known_early_keep_their_status() -> None:
    engine = ScriptedEngine()
    with running(engine, max_waiting=1) as server, client_of(server) as client:
        threads = [in_thread(lambda: ask(client, "wait")) for _ in "ab"]
        wait_until(lambda: server.service.waiting == 1)
        full = ask(client, stream=True)
        engine.go.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        engine.error = DoesNotFitError("No memory.")
        failed = ask(client, stream=True)
    assert (full.status_code, full.json()["error"]["code"]) == (429, "queue_full")
    assert (failed.status_code, failed.json()["error"]["code"]) == (503, "out_of_memory")


@pytest.mark.parametrize("begun", [False, True])
def test_a_client_that_leaves_a_waiting_stream_leaves_the_queue(begun: bool) -> None:
    engine = ScriptedEngine()
    with running(engine, limits=HURRIED) as server, client_of(server) as client:
        first = in_thread(lambda: ask(client, "wait"))
        assert engine.begun.wait(PATIENCE_S)
        lines = stream(server)
        assert next(lines) == "200"
        if begun:
            assert next(lines) == COMMENT
        lines.close()  # type: ignore[attr-defined]
        wait_until(lambda: server.service.waiting == 0)
        engine.go.set()
        first.join(PATIENCE_S)
        assert [one.question for one in engine.asked] == ["wait"]
