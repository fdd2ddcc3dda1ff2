"""Pictures from the web: each way to reach what is not public, tried; and what a server may do."""

from __future__ import annotations

import ipaddress
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.remote import Address, RemotePictures, is_public
from tests.helpers.chat_client import CHAT, PNG, client_of, picture, text, user
from tests.helpers.scripted_server import ScriptedEngine, running
from tests.helpers.waiting import PATIENCE_S

# Stands for the open internet in these tests: this machine answers on it, too.
PUBLIC = "127.0.0.2"
PICTURE = b"\x89PNG and so on"

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="127.0.0.2 is an address of this machine on Linux only"
)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.0.0.1", "100.64.0.1", "100.127.255.254", "127.0.0.1", "127.255.255.255",
        "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.168.1.1",
        "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250",
        "240.0.0.1", "255.255.255.255",
        "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::127.0.0.1",
        "64:ff9b::8.8.8.8", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::1",
        "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%lo", "fec0::1", "ff02::1", "ff0e::1",
    ],
)  # fmt: skip
def test_what_is_not_the_open_internet_is_known(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700:4700::1111"])
def test_what_is_public_is_known(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


class Web:
    """A small web server; `pages` says what its paths do."""

    def __init__(self, address: str = PUBLIC) -> None:
        web = self
        self.pages: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[str] = []
        self.hosts: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                web.asked.append(self.path)
                web.hosts.append(self.headers["host"])
                try:
                    web.pages[self.path](self)
                except OSError:  # the other side has had enough
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer((address, 0), Handler)
        self.port = self.server.server_port
        self.pages["/a.png"] = lambda h: send(h, PICTURE)

    def url(self, path: str, name: str = "pictures.example", scheme: str = "http") -> str:
        return f"{scheme}://{name}:{self.port}{path}"


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def leads_to(url: str, status: int = 302) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda handler: send(handler, b"", status, Location=url)


@contextmanager
def serving(web: Web) -> Iterator[Web]:
    thread = threading.Thread(target=web.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield web
    finally:
        web.server.shutdown()
        thread.join(PATIENCE_S)
        web.server.server_close()


@pytest.fixture
def web() -> Iterator[Web]:
    with serving(Web()) as web:
        yield web


class Names:
    """A name server of these tests: names to the addresses they have, one list per question."""

    def __init__(self, **names: list[list[str]]) -> None:
        self.names = {
            "pictures.example": [[PUBLIC]],
            **{n.replace("_", "."): a for n, a in names.items()},
        }
        self.asked: list[str] = []

    def __call__(self, name: str, port: int, **options: Any) -> list[tuple[Any, ...]]:
        self.asked.append(name)
        if name not in self.names:
            return list(socket.getaddrinfo(name, port, **options))
        answers = self.names[name]
        found = answers[min(self.asked.count(name), len(answers)) - 1]
        return [(0, 0, 0, "", (address, port)) for address in found]


def permits(address: Address) -> bool:
    return is_public(address) or str(address) == PUBLIC


class Asked:
    """A running server that fetches pictures, and what it said."""

    def __init__(self, names: Names | None = None, **options: Any) -> None:
        self.engine = ScriptedEngine()
        self.names = names or Names()
        settings = {"most_bytes": 1000, "timeout_s": PATIENCE_S, **options}
        self.pictures = RemotePictures(resolve=self.names, permits=permits, **settings)

    def about(self, url: str) -> httpx.Response:
        limits = Limits(remote_images=True)
        with (
            running(self.engine, limits=limits, pictures=self.pictures) as server,
            client_of(server) as client,
        ):
            return client.post(CHAT, json={"messages": [user(text("what"), picture(url))]})

    def refuses(self, url: str, words: str, status: int = 400) -> None:
        reply = self.about(url)
        assert (reply.status_code, self.engine.asked) == (status, []), reply.text
        assert words in reply.json()["error"]["message"]


def test_a_picture_is_fetched_under_its_name_and_given_to_the_engine(web: Web) -> None:
    asked = Asked()
    assert asked.about(web.url("/a.png?size=1")).status_code == 400  # 404 there
    web.pages["/a%20b.png?x=%C3%A9"] = web.pages["/a.png"]
    for path in ("/a.png", "/a b.png?x=é"):
        assert asked.about(web.url(path)).status_code == 200
        assert asked.engine.asked[-1].image == PICTURE
    assert web.hosts[-1] == f"pictures.example:{web.port}"


def test_without_the_option_nothing_is_opened(web: Web) -> None:
    engine = ScriptedEngine()
    with running(engine) as server, client_of(server) as client:
        reply = client.post(CHAT, json={"messages": [user(text("?"), picture(web.url("/a.png")))]})
    assert (reply.status_code, engine.asked, web.asked) == (400, [], [])
    assert "web addresses" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "0.0.0.0",
        "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]",
        "[::127.0.0.1]", "[2002:7f00:1::]", "169.254.169.254", "10.0.0.1", "192.168.0.1",
        "100.64.0.1", "224.0.0.1", "[fe80::1]", "[fd00:ec2::254]", "１２７.0.0.1", "127.0.0.1.",
    ],
)  # fmt: skip
def test_no_writing_of_a_private_address_is_opened(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connected(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("cogvlm2_lite.server.remote.socket.create_connection", connected)
    asked = Asked()
    limits = Limits(remote_images=True)
    with running(asked.engine, limits=limits, pictures=asked.pictures) as server:
        monkeypatch.undo()
        with client_of(server) as client:
            client.get("/health")  # the client's own connection is open from now on
            monkeypatch.setattr("cogvlm2_lite.server.remote.socket.create_connection", connected)
            url = f"http://{host}/latest/meta-data"
            reply = client.post(CHAT, json={"messages": [user(text("?"), picture(url))]})
            monkeypatch.undo()
    assert (reply.status_code, asked.engine.asked) == (400, [])
    assert "is not a public address" in reply.json()["error"]["message"]


def test_a_name_with_a_private_address_among_others_is_refused(web: Web) -> None:
    names = Names(mixed_example=[[PUBLIC, "10.0.0.1"]], inner_example=[["192.168.0.7"]])
    for name in ("mixed.example", "inner.example", "no-such-name.invalid"):
        Asked(names).refuses(web.url("/a.png", name), "is not a public address")
    assert web.asked == []


def test_a_name_that_changes_its_mind_is_asked_once(web: Web) -> None:
    with serving(Web("127.0.0.1")) as private:
        names = Names(rebound_example=[[PUBLIC], ["127.0.0.1"]])
        asked = Asked(names)
        assert asked.about(web.url("/a.png", "rebound.example")).status_code == 200
        assert names.asked == ["rebound.example"]
        assert (web.asked, private.asked) == (["/a.png"], [])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_a_private_address_is_refused(web: Web, status: int) -> None:
    with serving(Web("127.0.0.1")) as private:
        web.pages["/go"] = leads_to(private.url("/a.png", "127.0.0.1"), status)
        Asked().refuses(web.url("/go"), "is not a public address")
        assert private.asked == []


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("http://inner.example/a.png", "is not a public address"),
        ("//inner.example/a.png", "is not a public address"),
        ("http://rebound.example/a.png", "is not a public address"),
        ("file:///etc/passwd", "must begin with http"),
        ("ftp://pictures.example/a.png", "must begin with http"),
        ("gopher://127.0.0.1:70/", "must begin with http"),
        ("http://user:secret@pictures.example/a.png", "user name or a password"),
        ("http://[::1", "invalid address"),
        ("http://pictures.example:99999/", "address is not valid"),
    ],
)
def test_where_a_redirect_leads_is_checked_anew(web: Web, target: str, words: str) -> None:
    names = Names(inner_example=[["10.1.2.3"]], rebound_example=[["127.0.0.1"]])
    web.pages["/go"] = leads_to(target)
    Asked(names).refuses(web.url("/go"), words)
    assert web.asked == ["/go"]


def test_redirects_are_followed_and_counted(web: Web) -> None:
    web.pages["/1"] = leads_to("/2")
    web.pages["/2"] = leads_to("a.png")
    assert Asked().about(web.url("/1")).status_code == 200
    web.pages["/round"] = leads_to("/round")
    web.asked.clear()
    Asked().refuses(web.url("/round"), "more than 3 times")
    assert len(web.asked) == 4
    web.pages["/nowhere"] = lambda h: send(h, b"", 302)
    Asked().refuses(web.url("/nowhere"), "redirects without a target")


def test_too_many_bytes_are_a_413_announced_or_not(web: Web) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x" * 1000)

    web.pages["/large"] = lambda h: send(h, b"x" * 2000)
    web.pages["/lies"] = lambda h: send(h, b"x" * 10, Content_Length=str(10**12))
    web.pages["/endless"] = endless
    for path in ("/large", "/lies", "/endless"):
        Asked().refuses(web.url(path), "has more than", 413)


def test_a_server_that_drips_is_given_up() -> None:
    """Each byte comes in time, and all of them never would."""
    over = threading.Event()

    def drip(begin: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
        def dripping(handler: BaseHTTPRequestHandler) -> None:
            handler.wfile.write(begin)
            while not over.wait(0.02):
                handler.wfile.write(b"x")

        return dripping

    with serving(Web()) as web:
        web.pages["/body"] = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n")
        web.pages["/head"] = drip(b"HTTP/1.1 200 OK\r\nX-Header: ")
        for path in ("/body", "/head"):
            Asked(timeout_s=0.3).refuses(web.url(path), "took more than 0.3 s")
        over.set()


def test_a_name_server_that_never_answers_is_given_up(web: Web) -> None:
    over = threading.Event()

    class Slow(Names):
        def __call__(self, name: str, port: int, **options: Any) -> list[tuple[Any, ...]]:
            over.wait(PATIENCE_S)
            return super().__call__(name, port, **options)

    Asked(Slow(), timeout_s=0.2).refuses(web.url("/a.png"), "took more than 0.2 s")
    over.set()


def test_what_is_no_whole_plain_file_is_refused(web: Web) -> None:
    web.pages["/gone"] = lambda h: send(h, b"", 404)
    web.pages["/packed"] = lambda h: send(h, b"x", Content_Encoding="gzip")
    web.pages["/part"] = lambda h: send(h, b"x", 206)

    def cut(handler: BaseHTTPRequestHandler) -> None:
        send(handler, b"x" * 10, Content_Length="900")
        handler.close_connection = True

    web.pages["/cut"] = cut
    for path, words in (
        ("/gone", "HTTP status 404"),
        ("/packed", "compressed"),
        ("/part", "HTTP status 206"),
        ("/cut", "cut off"),
    ):
        Asked().refuses(web.url(path), words)
    web.server.server_close()
    Asked().refuses(web.url("/a.png"), "can't be opened")


@pytest.mark.parametrize(
    "url",
    [
        "http://", "http:///a.png", "http://a.example:99999/", "http://user@pictures.example/a.png",
        "http://" + "a" * 300 + ".example/", "http://..example/a.png", "https://é" + "é" * 80 + "/",
        "http://a.example/" + "x" * 5000, "ftp://pictures.example/a.png", "file:///etc/passwd",
        "/etc/passwd", "http://pictures.example\r\nX: y/a.png", "http:/\\pictures.example/a.png",
    ],
)  # fmt: skip
def test_odd_addresses_are_a_400(url: str) -> None:
    reply = Asked().about(url)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_image_url")


def test_one_picture_per_conversation_holds_for_addresses(web: Web) -> None:
    asked = Asked()
    limits = Limits(remote_images=True, strict=True)
    one, other = picture(web.url("/a.png")), picture(web.url("/b.png"))
    with (
        running(asked.engine, limits=limits, pictures=asked.pictures) as server,
        client_of(server) as client,
    ):

        def put(*parts: Any) -> int:
            return client.post(CHAT, json={"messages": [user(text("?"), *parts)]}).status_code

        assert put(one, one) == 200
        assert put(one, other) == put(one, picture(PNG)) == 400
    assert web.asked == ["/a.png"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for pictures.example, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"),
         "-subj", "/CN=pictures.example", "-addext", "subjectAltName=DNS:pictures.example"],
        check=True, capture_output=True,
    )  # fmt: skip
    both = folder / "both.pem"
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return both


def test_tls_proves_the_name_and_not_the_address(web: Web, certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    names: list[str | None] = []
    context.sni_callback = lambda _, name, __: names.append(name)
    web.server.socket = context.wrap_socket(web.server.socket, server_side=True)
    trusting = ssl.create_default_context(cafile=str(certificate))
    other = Names(other_example=[[PUBLIC]])
    assert Asked(context=trusting).about(web.url("/a.png", scheme="https")).status_code == 200
    assert names == ["pictures.example"]
    Asked(other, context=trusting).refuses(
        web.url("/a.png", "other.example", "https"),
        "certificate of the picture",
    )
    Asked().refuses(web.url("/a.png", scheme="https"), "certificate of the picture")
    web.pages["/down"] = leads_to("http://pictures.example/a.png")
    Asked(context=trusting).refuses(web.url("/down", scheme="https"), "from https to")


def test_serve_has_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    from cogvlm2_lite.cli import serve

    seen = []
    monkeypatch.setattr("cogvlm2_lite.server.run.serve", lambda options, **_: seen.append(options))
    serve.main(["demo", "--allow-remote-images"])
    serve.main(["demo"])
    assert [options.limits.remote_images for options in seen] == [True, False]
