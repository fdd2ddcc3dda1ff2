"""Many clients, slow clients and hostile ones: what they get, and that others are answered."""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from cogvlm2_lite.errors import DoesNotFitError, ImageError
from cogvlm2_lite.events import PictureOpened
from cogvlm2_lite.server import json_bounds
from cogvlm2_lite.server.api_errors import ApiError
from cogvlm2_lite.server.guard import Access
from cogvlm2_lite.server.json_bounds import MOST_DEPTH, MOST_VALUES, check_bounds
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.run import LocalServer
from cogvlm2_lite.text import Text
from cogvlm2_lite.worker.client import Outcome
from cogvlm2_lite.worker.protocol import Ask
from tests.helpers.chat_client import CHAT, KEY, ask, client_of, in_thread, user
from tests.helpers.scripted_server import ScriptedEngine, running
from tests.helpers.waiting import PATIENCE_S, wait_until

COMMENT = ": still working"
HURRIED = Limits(status_s=0.05, comment_s=0.05)
NOTICE = PictureOpened(page=1, pages=2, notices=(Text("Page 1 of {pages}.", pages=2),))


GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
POST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
)


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


# --- connections ---------------------------------------------------------------------------------


@contextmanager
def line_to(server: LocalServer, first: bytes = b"") -> Iterator[socket.socket]:
    """Open a connection and send its first bytes."""
    port = int(server.address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as line:
        line.sendall(first)
        yield line


def rest(line: socket.socket) -> bytes:
    """Return what the server sends until it closes the connection."""
    found = b""
    try:
        while piece := line.recv(65536):
            found += piece
    except ConnectionResetError:
        pass
    return found


def send_until_closed(line: socket.socket, data: bytes, pause_s: float) -> None:
    for _ in range(1000):
        line.sendall(data)
        time.sleep(pause_s)


def is_closed_while_sending(line: socket.socket, data: bytes, pause_s: float = 0.01) -> None:
    """Send again and again until the server closes the connection."""
    with pytest.raises((ConnectionResetError, BrokenPipeError, ConnectionAbortedError)):
        send_until_closed(line, data, pause_s)


@pytest.mark.parametrize("sent", [b"", b"GET", GET, GET + b"\r\n", GET + b"\r\n" + GET])
def test_a_connection_without_a_whole_header_is_closed(sent: bytes) -> None:
    with running(limits=Limits(header_s=0.3)) as server, line_to(server, sent) as line:
        found = rest(line)
    assert found.count(b"HTTP/1.1 200") == sent.count(b"\r\n\r\n")
    # A client that has sent a part of a header learns the reason.
    assert (b"408 Request Timeout" in found) == (sent in (b"GET", GET))


@pytest.mark.parametrize("before", [b"", GET + b"\r\n"])
def test_a_header_byte_by_byte_does_not_hold_a_connection(before: bytes) -> None:
    with (
        running(limits=Limits(header_s=0.3)) as server,
        line_to(server, before + GET + b"X: ") as line,
    ):
        is_closed_while_sending(line, b"x")


def test_a_body_byte_by_byte_after_the_reply_does_not_hold_a_connection() -> None:
    access = Access(key=KEY)
    with (
        running(access=access, limits=Limits(header_s=0.3)) as server,
        line_to(server, POST + b"Content-Length: 100000\r\n\r\n") as line,
    ):
        assert line.recv(100).startswith(b"HTTP/1.1 401")
        is_closed_while_sending(line, b" ")


def test_a_request_in_progress_and_a_slow_body_are_not_cut_off() -> None:
    engine = ScriptedEngine()
    with running(engine, limits=Limits(header_s=0.3)) as server, client_of(server) as client:
        replies: list[int] = []
        waiting = in_thread(lambda: replies.append(ask(client, "wait").status_code))
        assert engine.begun.wait(PATIENCE_S)
        body = json.dumps({"messages": [user("hi")]}).encode()
        with line_to(server, POST + b"Content-Length: %d\r\n\r\n" % len(body)) as line:
            for byte in body:
                line.sendall(bytes([byte]))
                time.sleep(0.01)
            engine.go.set()
            assert line.recv(100).startswith(b"HTTP/1.1 200")
        waiting.join(PATIENCE_S)
        assert replies == [200]


def test_idle_connections_lock_nobody_out() -> None:
    """As many as were enough before, and more than may be idle."""
    limits = Limits(idle_connections=50)
    with running(limits=limits, access=Access(key=KEY)) as server, ExitStack() as lines:
        first = lines.enter_context(line_to(server))
        for number in range(150):
            lines.enter_context(line_to(server, GET if number % 2 else b""))
        with client_of(server, authorization=f"Bearer {KEY}") as client:
            assert ask(client).status_code == 200
        assert rest(first) == b""  # the oldest one was closed


def test_a_client_that_reads_nothing_is_cut_off() -> None:
    many = b"".join([GET.replace(b"/health", b"/page.js") + b"\r\n"] * 500)
    with running(limits=Limits(stalled_s=0.1)) as server, line_to(server) as line:
        is_closed_while_sending(line, many, 0.0)


def test_requests_in_progress_are_counted_and_not_sockets() -> None:
    engine = ScriptedEngine()
    with running(engine, max_waiting=1) as server, client_of(server) as client:  # 68 requests
        with ExitStack() as lines:
            for _ in range(68):
                lines.enter_context(line_to(server, POST + b"Content-Length: 9\r\n\r\n{"))
            wait_until(lambda: client.get("/v1/models").status_code == 429)
            refused = ask(client)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
            assert client.get("/health").status_code == 200
        wait_until(lambda: ask(client).status_code == 200)


# --- JSON ----------------------------------------------------------------------------------------

HEADERS = {"content-type": "application/json"}


def post(client: httpx.Client, body: bytes, **headers: str) -> httpx.Response:
    return client.post(CHAT, content=body, headers={**HEADERS, **headers})


@pytest.mark.parametrize(
    "small",
    [b"{}", b"[]", b"0", b'""', b'{"a":1}', b'"\\\\"', b'"\\"{"', b"[[[[1]]]]", b'{"\\u0022":0}'],
)
@pytest.mark.parametrize("path", [CHAT, "/page/markdown"])
def test_very_many_values_are_a_400_at_once(client: httpx.Client, small: bytes, path: str) -> None:
    count = 3 * 2**20 // len(small)
    body = b'{"messages":[' + b",".join([small] * count) + b"]}"
    reply = client.post(path, content=body, headers=HEADERS)
    assert reply.status_code == 400
    assert "more than 100000 values" in reply.json()["error"]["message"]


@pytest.mark.parametrize(("opens", "closes"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting_is_a_400(opens: bytes, closes: bytes) -> None:
    most = opens * MOST_DEPTH + b"1" + closes * MOST_DEPTH
    check_bounds(most)
    with pytest.raises(ApiError, match="nested too deeply"):
        check_bounds(opens + most + closes)


def test_as_many_values_as_allowed_are_read() -> None:
    check_bounds(b"[" + b",".join([b"1"] * (MOST_VALUES - 1)) + b"]")
    with pytest.raises(ApiError, match="values"):
        check_bounds(b"[" + b",".join([b"1"] * MOST_VALUES) + b"]")


def test_texts_count_as_one_value_whatever_is_in_them() -> None:
    text = '{"a": [1, 2, "\\"]}' * 100_000
    check_bounds(json.dumps({"messages": [user(text)]}).encode())


@pytest.mark.parametrize("size", [1, 3, 16])
def test_strings_are_told_from_marks_in_every_piece(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Against a search for whole strings, over texts of quotes, backslashes and marks."""
    monkeypatch.setattr(json_bounds, "_PIECE", size)
    random = Random(1)
    for _ in range(300):
        strings = [
            "".join(random.choices(['\\"', "\\\\", ",", "[", "{", "}", "a"], k=random.randrange(9)))
            for _ in range(random.randrange(1, 9))
        ]
        text = "[" + ",".join(f'"{string}"' for string in strings) + "]"
        expected = re.sub(r'"(?:[^"\\]|\\.)*"', "", text)
        place = json_bounds._Place()
        data = np.frombuffer(text.encode(), np.uint8)
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        found = b"".join(json_bounds._marks(piece, place).tobytes() for piece in pieces)
        assert found.decode() == expected
        monkeypatch.setattr(json_bounds, "MOST_VALUES", len(strings) + 1)
        check_bounds(text.encode())
        monkeypatch.setattr(json_bounds, "MOST_VALUES", len(strings))
        with pytest.raises(ApiError):
            check_bounds(text.encode())


def test_others_are_answered_while_large_bodies_are_refused() -> None:
    """Before, four such bodies of 27 MiB stopped the server for 25 seconds."""
    body = b'{"messages":[' + b",".join([b"{}"] * (3 * 2**20)) + b"]}"
    with running() as server, client_of(server) as client:
        client.get("/health")
        replies: list[int] = []

        def send() -> None:
            with client_of(server) as other:
                replies.append(post(other, body).status_code)

        threads = [in_thread(send) for _ in range(4)]
        slowest = 0.0
        while len(replies) < 4:
            start = time.monotonic()
            assert client.get("/health").status_code == 200
            slowest = max(slowest, time.monotonic() - start)
        for thread in threads:
            thread.join(PATIENCE_S)
    assert replies == [400] * 4
    assert slowest < 3.0


def test_a_byte_order_mark_is_accepted(client: httpx.Client) -> None:
    body = b"\xef\xbb\xbf" + json.dumps({"messages": [user("hi")]}).encode()
    assert post(client, body).status_code == 200
    assert post(client, b"\xef\xbb\xbf" + body).status_code == 400


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, gzip", ""])
def test_compressed_bodies_are_a_415(client: httpx.Client, encoding: str) -> None:
    body = gzip.compress(json.dumps({"messages": [user("hi")]}).encode())
    headers = {"content-encoding": encoding} if encoding else {}
    reply = post(client, body, **headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (415, "wrong_content_encoding")
    assert "uncompressed" in reply.json()["error"]["message"]


def test_an_identity_encoding_is_not_compressed(client: httpx.Client) -> None:
    body = json.dumps({"messages": [user("hi")]}).encode()
    assert post(client, body, **{"content-encoding": "identity"}).status_code == 200


@pytest.mark.parametrize("access", [Access(), Access(key=KEY)])
def test_two_lengths_of_a_body_are_a_400_and_close_the_connection(access: Access) -> None:
    both = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    with running(access=access) as server, line_to(server, POST + both + GET + b"\r\n") as line:
        found = rest(line)
    assert found.startswith(b"HTTP/1.1 400")
    assert found.count(b"HTTP/1.1") == 1
    assert b"connection: close" in found.lower()
    assert b"both Content-Length and Transfer-Encoding" in found
