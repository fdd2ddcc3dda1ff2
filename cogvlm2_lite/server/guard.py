"""Access control before every route.

A page on another website can make a browser send requests to 127.0.0.1 and, with DNS rebinding,
even under its own name. So the Host must be an address or an allowed name, other origins are
rejected, and if there is a key, every request except those for the page's files must have it.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.server.api_errors import ApiError, dumps, reply_body
from cogvlm2_lite.server.assets import PATHS

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

NOTICE_HEADER = "x-cogvlm2-notice"
"""The header with the notices about a picture."""
IGNORED_HEADER = "x-cogvlm2-ignored"
"""The header with the names of fields that were left out of a request."""

_ORIGIN_SCHEMES = (
    "http", "https", "app", "tauri", "capacitor", "vscode-webview", "chrome-extension",
    "moz-extension",
)  # fmt: skip
"""Of pages, and of desktop programs that are made of pages (Obsidian, Tauri, editors, browsers)."""
_EXPOSED = f"{NOTICE_HEADER}, {IGNORED_HEADER}, mcp-session-id, mcp-protocol-version".encode()
_CLIENT_HEADERS = "authorization, content-type, x-api-key"
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,100}")
OPEN_PATHS = PATHS | {"/health"}
"""What needs no key."""
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
    (b"x-dns-prefetch-control", b"off"),  # links in answers are resolved only when they are clicked
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        b"connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may use the server.

    host     the address it listens on
    key      the bearer token that requests must have; "": none
    names    allowed values of the Host header besides localhost
    origins  other origins whose pages may use the API, such as "http://localhost:3000"

    Raises UsageError for an address that other machines can reach without a key.
    """

    host: str = "127.0.0.1"
    key: str = field(default="", repr=False)
    names: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.key:
            raise UsageError(
                "On {host} other machines could use the model, but there is no API key.",
                hint="Add one with --api-key-file, or use --host 127.0.0.1.",
                host=self.host,
            )
        if self.key and (
            len(self.key) < 16 or not self.key.isascii() or not self.key.isprintable()
        ):
            raise UsageError(
                "The API key must have at least 16 characters, all of them printable ASCII.",
                hint='Make one: python -c "import secrets; print(secrets.token_urlsafe(32))"',
            )
        for origin in self.origins:
            parts = urlsplit(origin)
            if parts.scheme not in _ORIGIN_SCHEMES or not parts.netloc or parts.path:
                raise UsageError(
                    "{origin!r} is not an origin.",
                    hint="Write it like http://localhost:3000.",
                    origin=origin,
                )


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address or name."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware that checks Host, Origin and key, and adds security headers."""

    def __init__(self, app: App, access: Access) -> None:
        self._app = app
        self._access = access
        self._digest = _digest(access.key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no WebSockets here
            return
        headers = _headers(scope)
        origin = headers.get("origin", "")
        allowed = origin in self._access.origins
        outgoing = _adding(send, origin if allowed else "")
        try:
            self._check(scope, headers)
        except ApiError as error:
            await _reply(outgoing, error.status, dumps(reply_body(error, scope["path"])))
            return
        if scope["method"] == "OPTIONS":
            asked = headers.get("access-control-request-headers", "")
            await _reply(outgoing, 204, b"", _names(asked) if allowed else "")
            return
        await self._app(scope, receive, outgoing)

    def _check(self, scope: Scope, headers: dict[str, str]) -> None:
        if "content-length" in headers and "transfer-encoding" in headers:
            # A proxy may see another end of the body, and so another next request.
            raise ApiError(
                400,
                "The request has both Content-Length and Transfer-Encoding. Send one of them.",
                "ambiguous_length",
            )
        if not self._host_allowed(headers.get("host", "")):
            raise ApiError(403, "This server does not answer under that host name.", "host_refused")
        if not self._origin_allowed(headers):
            raise ApiError(
                403, "Pages of other websites may not use this server.", "origin_refused"
            )
        if not self._access.key or scope["path"] in OPEN_PATHS or scope["method"] == "OPTIONS":
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            given = headers.get("x-api-key", "")
        # Digests have one length, so the time does not depend on the key's length or beginning.
        if not hmac.compare_digest(_digest(given), self._digest):
            raise ApiError(401, "The API key is missing or wrong.", "invalid_api_key")

    def _host_allowed(self, value: str) -> bool:
        """Return whether a Host is a known name or any address; DNS rebinding needs a name."""
        name = _host_name(value)
        if name in ("localhost", self._access.host, *self._access.names) and name:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _origin_allowed(self, headers: dict[str, str]) -> bool:
        origin = headers.get("origin")
        if origin is not None:
            same = urlsplit(origin).netloc == headers.get("host") if _is_web(origin) else False
            return same or origin in self._access.origins
        # Images and links of other websites have no Origin, but browsers send sec-fetch-site.
        site = headers.get("sec-fetch-site", "none")
        return site in ("none", "same-origin") or headers.get("sec-fetch-mode") == "navigate"


def _is_web(origin: str) -> bool:
    return origin.startswith(("http://", "https://"))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", errors="replace")).digest()


def _host_name(value: str) -> str:
    """Return the name or address of a Host header without its port; "" if it is invalid."""
    try:
        parts = urlsplit(f"//{value}")
        if parts.username is not None or parts.path or parts.query or parts.fragment:
            return ""
        _ = parts.port
        return (parts.hostname or "").lower()
    except ValueError:
        return ""


def _headers(scope: Scope) -> dict[str, str]:
    """Return the headers; repeated ones are joined, so that a second Host is not ignored."""
    found: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _adding(send: Send, origin: str) -> Send:
    """Return a `send` that adds the security headers to every reply."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            cors = []
            if origin:
                cors = [
                    (b"access-control-allow-origin", origin.encode("latin-1")),
                    (b"access-control-allow-methods", b"GET, POST, DELETE"),
                    (b"access-control-expose-headers", _EXPOSED),
                    (b"vary", b"origin"),
                ]
            message = {**message, "headers": [*message["headers"], *_HEADERS, *cors]}
        await send(message)

    return sending


def _names(asked: str) -> str:
    """Return the header names that a browser asks for; those of every client without any."""
    names = [name.strip() for name in asked.lower().split(",")]
    return ", ".join(name for name in names if _HEADER_NAME.fullmatch(name)) or _CLIENT_HEADERS


async def _reply(send: Send, status: int, body: bytes, allowed_headers: str = "") -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if allowed_headers:
        headers.append((b"access-control-allow-headers", allowed_headers.encode()))
    if status == 400:  # where the next request begins is not certain
        headers.append((b"connection", b"close"))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
