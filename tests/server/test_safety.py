"""Each attack of the list in docs/server.md, tried against a running server."""

from __future__ import annotations

import argparse
import asyncio
import base64
import errno
import json
import logging
import socket
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive

from cogvlm2_lite.cli.api_key import read_key
from cogvlm2_lite.cli.main import main
from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.server import app
from cogvlm2_lite.server.api_errors import ApiError
from cogvlm2_lite.server.assets import read_assets
from cogvlm2_lite.server.connections import listen
from cogvlm2_lite.server.guard import Access
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.run import LocalServer
from cogvlm2_lite.server.validation import read_json
from cogvlm2_lite.units import MIB
from tests.helpers.chat_client import CHAT, KEY, ask, client_of, in_thread, picture, text, user
from tests.helpers.scripted_server import ScriptedEngine, running
from tests.helpers.waiting import PATIENCE_S


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil@127.0.0.1",
        "127.0.0.1/evil",
        "",
    ],
)
def test_a_rebound_name_is_refused(host: str) -> None:
    with running() as server, client_of(server) as client:
        reply = client.get("/v1/models", headers={"host": host})
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "host_refused")


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST", "pc"])
def test_names_of_this_machine_are_taken(host: str) -> None:
    with running(access=Access(names=("pc",))) as server, client_of(server) as client:
        assert client.get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "file://"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    ],
)
def test_pages_of_other_websites_are_refused(headers: dict[str, str]) -> None:
    engine = ScriptedEngine()
    with running(engine) as server, client_of(server, **headers) as client:
        reply = ask(client)
        assert (reply.status_code, engine.asked) == (403, [])
        assert "access-control-allow-origin" not in reply.headers
        assert client.options(CHAT).status_code == 403


def test_the_own_page_and_an_allowed_origin_may_ask() -> None:
    access = Access(origins=("http://localhost:3000",))
    with running(access=access) as server, client_of(server) as client:
        assert ask_as(client, server.address).status_code == 200
        reply = ask_as(client, "http://localhost:3000")
        assert reply.status_code == 200
        assert reply.headers["access-control-allow-origin"] == "http://localhost:3000"
        asked_before = client.options(CHAT, headers={"origin": "http://localhost:3000"})
        assert asked_before.status_code == 204


def ask_as(client: httpx.Client, origin: str) -> httpx.Response:
    return client.post(CHAT, json={"messages": [user("hi")]}, headers={"origin": origin})


def test_a_form_of_another_page_can_not_ask() -> None:
    with running() as server, client_of(server) as client:
        body = json.dumps({"messages": [user("hi")]})
        reply = client.post(CHAT, content=body, headers={"content-type": "text/plain"})
        assert reply.status_code == 415


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "my-machine"])
def test_listening_beyond_this_machine_needs_a_key(host: str) -> None:
    with pytest.raises(UsageError, match="no API key"):
        Access(host=host)
    assert Access(host=host, key=KEY).key == KEY


def test_serve_refuses_an_open_host_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["serve", "demo", "--host", "0.0.0.0"]) == 2
    assert "no API key" in capsys.readouterr().err


def test_a_key_that_is_easily_guessed_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 16 characters"):
        Access(key="1234")


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer wrong", f"Bearer {KEY}x", f"Basic {KEY}", f"Bearer {KEY[:-1]}"]
)
def test_without_the_right_key_only_the_page_is_given(given: str) -> None:
    with running(access=Access(key=KEY)) as server, client_of(server) as client:
        headers = {"authorization": given} if given else {}
        for path in ("/v1/models", "/v1/plan", "/metrics", "/nowhere"):
            reply = client.get(path, headers=headers)
            assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
        assert client.post(CHAT, json={}, headers=headers).status_code == 401
        assert client.get("/", headers=headers).status_code == 200
        right = {"authorization": f"Bearer {KEY}"}
        assert client.get("/v1/models", headers=right).status_code == 200


def test_the_key_is_never_shown(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with running(access=Access(key=KEY)) as server, client_of(server) as client:
        client.get("/v1/models", headers={"authorization": f"Bearer {KEY}"})
        client.get("/v1/models", headers={"authorization": "Bearer another-wrong-key"})
    shown = caplog.text + "".join(capfd.readouterr()) + repr(Access(key=KEY))
    assert KEY not in shown
    assert "another-wrong-key" not in shown


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://example.org/a.png",
        "ftp://example.org/a.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "../../secret.png",
        "data:text/html;base64,AAAA",
        "data:image/png,raw",
        " data:image/png;base64,AAAA",
    ],
)
def test_no_address_but_data_is_ever_opened(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ScriptedEngine()
    with running(engine) as server, client_of(server) as client:
        client.get("/health")  # the connection is open: from now on nothing may connect

        def connected(*_: object) -> None:
            raise AssertionError("a connection was opened")

        monkeypatch.setattr(socket.socket, "connect", connected)
        reply = client.post(CHAT, json={"messages": [user(picture(url), text("?"))]})
        monkeypatch.undo()
        assert (reply.status_code, engine.asked) == (400, [])
        assert "web addresses nor files" in reply.json()["error"]["message"]


def test_too_large_bodies_and_pictures_are_refused() -> None:
    limits = Limits(body_bytes=5000, picture_bytes=1000)
    with running(limits=limits) as server, client_of(server) as client:
        long = ask(client, "x" * 6000)
        assert long.status_code == 413
        url = "data:image/png;base64," + base64.b64encode(bytes(2000)).decode()
        large = client.post(CHAT, json={"messages": [user(picture(url), text("?"))]})
        assert (large.status_code, large.json()["error"]["code"]) == (413, "image_too_large")

        def endless() -> object:
            for _ in range(100):
                yield b"x" * 100

        headers = {"content-type": "application/json"}
        chunked = client.post(CHAT, content=endless(), headers=headers)  # type: ignore[arg-type]
        assert chunked.status_code == 413


def test_a_picture_may_be_as_large_as_a_camera_of_200_megapixels_writes_it() -> None:
    limits = Limits()
    assert limits.picture_bytes >= 90 * MIB
    assert limits.body_bytes >= limits.picture_bytes * 4 / 3 + MIB
    assert limits.body_bytes <= limits.held_bytes / 3
    page = read_assets()["/page.js"][0].decode()
    assert f"MAX_PICTURE = {limits.picture_bytes // MIB} * 1024 * 1024" in page


def test_all_requests_together_may_hold_so_much_and_give_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = app._left

    async def slowly_left(receive: Receive) -> None:
        """Whoever has the whole answer may ask again before the server has cleared up."""
        try:
            await left(receive)
        finally:
            for _ in range(4):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.05)

    monkeypatch.setattr(app, "_left", slowly_left)
    engine = ScriptedEngine()
    limits = Limits(held_bytes=1000)
    with running(engine, limits=limits) as server, client_of(server) as client:
        first = in_thread(lambda: ask(client, "wait" + " x" * 300))
        assert engine.begun.wait(PATIENCE_S)
        refused = ask(client, "x" * 500)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        engine.go.set()
        first.join(PATIENCE_S)
        for stream in (False, True, False, True, False):
            assert ask(client, "x" * 500, stream=stream).status_code == 200


def test_a_text_that_no_context_holds_never_reaches_the_engine() -> None:
    engine = ScriptedEngine()
    with running(engine) as server, client_of(server) as client:
        reply = ask(client, "x" * 500_000)
        assert (reply.status_code, engine.asked) == (400, [])
        assert reply.json()["error"]["code"] == "context_length_exceeded"


def test_a_body_that_never_ends_is_given_up() -> None:
    with running(limits=Limits(body_s=0.1)) as server:
        port = int(server.address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as line:
            line.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
            )
            assert line.recv(100).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe", b"NaN", b"9" * 5000, b"", b'"text"']
)
def test_hostile_json_is_a_400(body: bytes) -> None:
    with running() as server, client_of(server) as client:
        reply = client.post(CHAT, content=body, headers={"content-type": "application/json"})
        assert reply.status_code == 400


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"temperature": NaN}', "The request has NaN, which is not a number in JSON."),
        (b'{"a": [-Infinity]}', "The request has -Infinity, which is not a number in JSON."),
        (b'{"temperature": 1e999}', "The number 1e999 in the request is too large."),
        (b'{"a": -1.5e400}', "The number -1.5e400 in the request is too large."),
        (b"[" + b"9" * 5000 + b"]", f"The number {'9' * 40}… in the request is too large."),
        (b'{"a": "\xff"}', "The body of the request is not UTF-8."),
        (b'{"a":\n "b}', "The body of the request is not JSON: see line 2, column 2."),
        (b"", "The body of the request is not JSON: see line 1, column 1."),
    ],
)  # fmt: skip
def test_a_body_that_can_not_be_read_says_the_true_reason(body: bytes, why: str) -> None:
    with pytest.raises(ApiError) as refused:
        read_json(body)
    assert (refused.value.status, refused.value.message) == (400, why)


@pytest.mark.parametrize(
    "path",
    ["/../pyproject.toml", "/%2e%2e/%2e%2e/etc/passwd", "/page/page.html", "/v1/models/..%2f"],
)
def test_no_path_reaches_the_file_system(path: str) -> None:
    with running() as server:
        port = int(server.address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as line:
            line.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert line.recv(100).startswith(b"HTTP/1.1 404")


def test_every_file_of_the_page_is_given_and_no_other() -> None:
    given = {content for content, _ in read_assets().values()}
    folder = files("cogvlm2_lite.server").joinpath("page")
    assert {file.read_bytes() for file in folder.iterdir()} == given
    with running(access=Access(key=KEY)) as server, client_of(server) as client:
        for path, (content, kind) in read_assets().items():
            reply = client.get(path)  # without the key: the page itself asks for it
            assert (reply.content, reply.headers["content-type"]) == (content, kind)
        for path in ("/page/markdown", "/page/preview"):
            assert client.post(path, json={"texts": []}).status_code == 401


def test_a_fault_shows_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr("cogvlm2_lite.server.app.read_asked", broken)
    with running() as server, client_of(server) as client:
        reply = ask(client)
    assert reply.status_code == 500
    assert "log" in reply.json()["error"]["message"]
    assert "secret" not in reply.text
    assert "secret detail" in capfd.readouterr().err


def test_every_reply_has_the_headers_of_safety() -> None:
    with running() as server, client_of(server) as client:
        for path in ("/", "/v1/models", "/nowhere", "/health"):
            headers = client.get(path).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert "server" not in headers


def test_the_port_of_another_program_is_named(tmp_path: Path) -> None:
    with running() as server:
        port = server.address.rpartition(":")[2]
        with pytest.raises(UsageError, match=f"port {port}"):
            taken(server, int(port))


def test_an_address_of_another_computer_is_refused_with_what_to_do() -> None:
    with pytest.raises(UsageError, match="can't listen") as caught:
        listen("192.0.2.1", 0)
    assert "an address of this computer" in caught.value.hint


def test_a_port_that_the_system_reserves_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(UsageError, match="Permission denied") as caught:
        listen("127.0.0.1", 80)
    assert "1024 or above" in caught.value.hint


def test_a_key_file_that_is_missing_is_named(tmp_path: Path) -> None:
    for file, why in (tmp_path / "none", "No such file"), (tmp_path / "b", "not a text in UTF-8"):
        (tmp_path / "b").write_bytes(b"\xff\xfe\xfd")
        args = argparse.Namespace(api_key=None, api_key_file=str(file))
        with pytest.raises(UsageError, match=f"{file.name} with the API key .*{why}"):
            read_key(args)


def test_small_replies_are_sent_without_delay() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def taken(server: LocalServer, port: int) -> None:
    from cogvlm2_lite.engine.options import LoadOptions
    from cogvlm2_lite.server.run import Options

    options = Options(load=LoadOptions(folder=Path("x")), model="x", port=port)
    LocalServer(options, ScriptedEngine())
