"""The server over a real engine whose process dies or hangs while it answers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cogvlm2_lite.demo.shipped import checkpoint_folder
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.server.run import report_state
from cogvlm2_lite.text import Text
from cogvlm2_lite.worker.client import EngineProcess, EngineState
from cogvlm2_lite.worker.heartbeat import Patience
from cogvlm2_lite.worker.protocol import Died
from tests.helpers.scripted_server import ScriptedEngine, running
from tests.helpers.waiting import PATIENCE_S, wait_until

CHAT = "/v1/chat/completions"

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="POSIX signals")


@pytest.fixture
def engine() -> EngineProcess:
    return EngineProcess(
        LoadOptions(folder=checkpoint_folder(), dtype="float32"), patience=Patience(silence_s=6.0)
    )


@pytest.fixture
def client(engine: EngineProcess) -> Iterator[httpx.Client]:
    with (
        running(engine) as server,
        httpx.Client(base_url=server.address, timeout=PATIENCE_S) as client,
    ):
        # The server's thread starts it.
        wait_until(lambda: engine.state is not EngineState.STOPPED)
        engine.wait_ready(PATIENCE_S)
        yield client


def body(words: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": words}], **fields}


def test_the_terminal_shows_that_the_model_is_ready_and_why_it_is_loaded_again() -> None:
    engine, lines = ScriptedEngine(), list[str]()
    with running(engine) as server:
        wait_until(lambda: engine.state is EngineState.READY)
        report_state(server.service, "small", lines.append)
        engine.on_news(Died(reason=Text("The engine's process was killed.")))
        wait_until(lambda: len(lines) == 2)
    assert lines == [
        "The engine's process was killed. It is started again.",
        "small is ready.",
    ]


def test_a_hung_engine_is_a_503_and_those_that_wait_are_answered(
    engine: EngineProcess, client: httpx.Client
) -> None:
    expected = client.post(CHAT, json=body("Hello", max_tokens=5)).json()["choices"]
    replies: dict[str, httpx.Response] = {}
    begun = threading.Event()

    def hang() -> None:
        with client.stream("POST", CHAT, json=body("Hello", stream=True)) as stream:
            for line in stream.iter_lines():
                begun.set()
                if "error" in line:
                    replies["hung"] = httpx.Response(200, text=line)

    def ask(name: str, **fields: Any) -> None:
        replies[name] = client.post(CHAT, json=body("Hello", **fields))

    # Stopped first: the model's answer is so short that it could end before the signal comes.
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGSTOP)
    first = threading.Thread(target=hang)
    first.start()
    assert begun.wait(PATIENCE_S)  # the stream is open, so this answer is the engine's
    second = threading.Thread(target=ask, args=("waited",), kwargs={"max_tokens": 5})
    second.start()
    for thread in (first, second):
        thread.join(PATIENCE_S)
    assert "stopped responding (no message for" in replies["hung"].text
    assert replies["waited"].json()["choices"] == expected
    assert "cogvlm2_engine_deaths_total 1" in client.get("/metrics").text


def test_a_whole_answer_of_a_hung_engine_is_a_503_with_the_reason(
    engine: EngineProcess, client: httpx.Client
) -> None:
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGSTOP)
    reply = client.post(CHAT, json=body("Hello"))
    assert reply.status_code == 503
    assert "stopped responding" in reply.json()["error"]["message"]
    assert reply.headers["retry-after"]
