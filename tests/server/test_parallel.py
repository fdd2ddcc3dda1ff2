"""Several answers at once: fifty clients, deaths and shutdown over a real engine, turns."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file, save_file

import cogvlm2_lite
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.events import Finished
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.server.request_queue import RequestQueue
from cogvlm2_lite.server.run import LocalServer
from cogvlm2_lite.worker.client import EngineProcess, EngineState
from tests.helpers.folders import talking_folder
from tests.helpers.scripted_server import ScriptedEngine, running
from tests.helpers.waiting import PATIENCE_S, wait_until

CHAT = "/v1/chat/completions"
CLIENTS = 50
ENDLESS: dict[str, Any] = {"temperature": 0, "max_tokens": 8192, "stream": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose nonsense differs with every letter of the question.

    Chosen greedily it never ends: the tokens that would end it have a logit of 0, and one of the
    510 others has more.
    """
    folder = talking_folder(tmp_path_factory.mktemp("models") / "tiny")
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = 16384  # two of the longest answers allowed
    (folder / "config.json").write_text(json.dumps(config))
    (shard,) = (p for p in folder.glob("*.safetensors") if "lm_head.weight" in load_file(p))
    tensors = load_file(shard)
    tensors["lm_head.weight"][config["eos_token_id"]] = 0
    save_file(tensors, shard)
    return folder


@contextmanager
def serving(
    folder: Path, parallel: int, **options: Any
) -> Iterator[tuple[EngineProcess, LocalServer]]:
    load = LoadOptions(folder=folder, device="cpu", dtype="float32", parallel=parallel)
    engine = EngineProcess(load)
    with running(engine, max_waiting=CLIENTS, **options) as server:
        # The server's thread starts it.
        wait_until(lambda: engine.state is not EngineState.STOPPED)
        loaded = engine.wait_ready(PATIENCE_S)
        assert loaded.parallel == parallel
        yield engine, server


def sampling(number: int) -> dict[str, Any]:
    return {"temperature": 1.0, "seed": number, "max_tokens": 8 + number % 9}


def ask(server: LocalServer, number: int) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": f"Client {number}"}], **sampling(number)}
    return httpx.post(f"{server.address}{CHAT}", json=body, timeout=PATIENCE_S)


def hang_up(server: LocalServer, number: int) -> None:
    """Ask for an endless answer, and leave after its first words."""
    body = {"messages": [{"role": "user", "content": f"Client {number}"}], **ENDLESS}
    with httpx.stream("POST", f"{server.address}{CHAT}", json=body, timeout=PATIENCE_S) as reply:
        next(line for line in reply.iter_lines() if "content" in line)


def alone(number: int, model: Any) -> str:
    fields = sampling(number)
    settings = Sampling(
        temperature=fields["temperature"], seed=number, max_new_tokens=fields["max_tokens"]
    )
    *_, last = model.answer(f"Client {number}", sampling=settings)
    assert isinstance(last, Finished)
    return last.text.strip()


@pytest.mark.parametrize("parallel", [1, 4])
def test_fifty_clients_get_their_own_answers_while_some_hang_up(
    folder: Path, parallel: int
) -> None:
    model = cogvlm2_lite.load(folder, device="cpu", dtype="float32")
    expected = {number: alone(number, model) for number in range(CLIENTS)}
    assert len(set(expected.values())) > CLIENTS - 5
    leaving = set(random.Random(0).sample(range(CLIENTS), 8))
    replies: dict[int, str] = {}
    with serving(folder, parallel) as (_, server):

        def be_client(number: int) -> None:
            if number in leaving:
                hang_up(server, number)
                return
            reply = ask(server, number)
            assert reply.status_code == 200, reply.text
            replies[number] = reply.json()["choices"][0]["message"]["content"].strip()

        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(be_client, range(CLIENTS)))
        assert httpx.get(f"{server.address}/v1/plan").json()["parallel"] == parallel
        # Those that hung up have freed their seats: the next question is answered at once.
        assert ask(server, 0).status_code == 200
    assert replies == {n: expected[n] for n in range(CLIENTS) if n not in leaving}


def stream_until_over(server: LocalServer, number: int, begun: threading.Barrier) -> str:
    body = {"messages": [{"role": "user", "content": f"Client {number}"}], **ENDLESS}
    said, waiting = "", True
    with httpx.stream("POST", f"{server.address}{CHAT}", json=body, timeout=PATIENCE_S) as reply:
        for line in reply.iter_lines():
            said += line
            if waiting and "content" in line:
                waiting = False
                begun.wait(PATIENCE_S)
    return said


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="a POSIX signal")
def test_a_killed_engine_ends_all_its_answers_and_those_that_wait_are_answered(
    folder: Path,
) -> None:
    begun = threading.Barrier(4)
    with serving(folder, 3) as (engine, server), ThreadPoolExecutor(8) as clients:
        pid = engine.pid
        assert pid is not None
        expected = ask(server, 7).json()["choices"]
        under_way = [clients.submit(stream_until_over, server, n, begun) for n in range(3)]
        begun.wait(PATIENCE_S)
        os.kill(pid, signal.SIGSTOP)  # so that none ends before all have come
        waiting = [clients.submit(ask, server, 7) for _ in range(3)]
        wait_until(lambda: server.service.waiting == 3)
        os.kill(pid, signal.SIGKILL)
        for stream in under_way:
            assert "killed (signal 9, SIGKILL)" in stream.result(PATIENCE_S)
        for answer in waiting:
            assert answer.result(PATIENCE_S).json()["choices"] == expected


def test_shutting_down_ends_all_answers_cleanly(folder: Path) -> None:
    begun = threading.Barrier(4)
    with ThreadPoolExecutor(3) as clients:
        with serving(folder, 3, grace_s=0.0) as (_, server):
            streams = [clients.submit(stream_until_over, server, n, begun) for n in range(3)]
            begun.wait(PATIENCE_S)
        said = [stream.result(PATIENCE_S) for stream in streams]
        assert all(text.endswith("[DONE]") for text in said)
        assert all('"finish_reason":"length"' in text for text in said)


def test_as_many_requests_run_at_once_as_the_engine_answers() -> None:
    engine = ScriptedEngine(parallel=2)
    with running(engine) as server, ThreadPoolExecutor(3) as clients:

        def wait(number: int) -> int:
            body = {"messages": [{"role": "user", "content": f"wait {number}"}]}
            return httpx.post(f"{server.address}{CHAT}", json=body, timeout=PATIENCE_S).status_code

        replies = [clients.submit(wait, number) for number in range(3)]
        wait_until(lambda: server.service.waiting == 1)
        assert (server.service.running, len(engine.asked)) == (2, 2)
        engine.go.set()
        assert [reply.result(PATIENCE_S) for reply in replies] == [200] * 3


def test_slots_that_come_later_are_given_to_those_that_wait() -> None:
    async def play() -> None:
        queue = RequestQueue(8)
        await queue.acquire("a", retry_after=1)
        waiting = [asyncio.ensure_future(queue.acquire(c, retry_after=1)) for c in "aaab"]
        await asyncio.sleep(0)
        queue.set_slots(3)
        await asyncio.sleep(0)
        assert [task.done() for task in waiting] == [True, False, False, True]
        queue.set_slots(1)
        queue.release()
        queue.release()
        await asyncio.sleep(0)
        assert queue.waiting == 2
        queue.release()
        await asyncio.sleep(0)
        assert queue.waiting == 1
        queue.set_slots(2)
        await asyncio.gather(*waiting)

    asyncio.run(play())
