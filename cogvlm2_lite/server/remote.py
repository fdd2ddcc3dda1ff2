"""Fetches pictures from the web, for servers started with --allow-remote-images.

A client could name an address behind this machine's firewall (its router, a cloud's metadata, this
server itself) and learn from the answer what is there. So only public addresses are opened: the
name is resolved once, every address it has must be public, and the connection goes to the address
that was checked, so the name can't resolve differently in between. Redirects are checked again.
"""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any, NoReturn
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from cogvlm2_lite.server.api_errors import ApiError
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import format_bytes

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[..., Sequence[tuple[Any, ...]]]

_MOST_REDIRECTS = 3
_MOST_AT_ONCE = 4
_REDIRECTS = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}
_PIECE = 64 * 1024
_UNICAST = ipaddress.IPv6Network("2000::/3")
# Addresses that contain another one, to which a router would forward: 6to4 and its relays.
_SIX_TO_FOUR = (ipaddress.IPv6Network("2002::/16"), ipaddress.IPv4Network("192.88.99.0/24"))


def is_public(address: Address) -> bool:
    """Return whether an address belongs to the public internet.

    Of IPv6, only global unicast is accepted. This excludes IPv4-mapped addresses and NAT64
    (64:ff9b::/96), which can contain any IPv4 address, and link-local, site-local and multicast.
    """
    if isinstance(address, ipaddress.IPv6Address) and address not in _UNICAST:
        return False
    if any(address.version == net.version and address in net for net in _SIX_TO_FOUR):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class RemotePictures:
    """Fetches pictures, a few at once, in its own threads.

    most_bytes  of a picture's file
    timeout_s   for one picture, redirects included
    resolve     resolves a name, as socket.getaddrinfo does
    permits     returns whether an address may be opened
    context     of TLS; None: the system's certificates
    """

    def __init__(
        self,
        *,
        most_bytes: int,
        timeout_s: float,
        resolve: Resolver = socket.getaddrinfo,
        permits: Callable[[Address], bool] = is_public,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._most_bytes = most_bytes
        self._timeout_s = timeout_s
        self._resolve = resolve
        self._permits = permits
        self._context = context
        self._threads = ThreadPoolExecutor(_MOST_AT_ONCE, thread_name_prefix="pictures")

    async def fetch(self, url: str) -> bytes:
        """Return the file at an address; ApiError 400 if it must not or can't be opened."""
        deadline = time.monotonic() + self._timeout_s
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                # Resolving a name can't be interrupted; after a timeout the thread is left running.
                return await loop.run_in_executor(self._threads, self._follow, url, deadline)
        except TimeoutError:
            self._too_slow()

    def _follow(self, url: str, deadline: float) -> bytes:
        """Open an address and follow its redirects."""
        for _ in range(_MOST_REDIRECTS + 1):
            parts = _parts(url)
            found = self._open(parts, deadline)
            if isinstance(found, bytes):
                return found
            try:
                url = urljoin(url, found)
            except ValueError:
                _reject("The picture's address redirects to an invalid address.")
            if parts.scheme == "https" and _parts(url).scheme != "https":
                _reject("The picture's address redirects from https to http.")
        raise _url_error(
            "The picture's address redirects more than {most} times.", most=_MOST_REDIRECTS
        )

    def _open(self, parts: SplitResult, deadline: float) -> bytes | str:
        """Request one address; return the file, or the address of a redirect."""
        name, port = _name(parts), parts.port or _PORTS[parts.scheme]
        connection = self._connection(parts.scheme, name, port, self._lookup(name, port))
        left = deadline - time.monotonic()
        # A timeout of the socket would restart with each byte.
        alarm = threading.Timer(max(left, 0.0), connection.abort)
        alarm.start()
        try:
            with closing(connection):
                headers = {"Accept": "image/*", "Accept-Encoding": "identity"}
                connection.request("GET", _target(parts), headers=headers)
                return self._read(connection.getresponse())
        except (OSError, http.client.HTTPException, ValueError) as error:
            if time.monotonic() >= deadline:
                self._too_slow()
            if isinstance(error, ssl.SSLError):
                _reject("The certificate of the picture's address is not valid.")
            _reject("The picture's address can't be opened.")
        finally:
            alarm.cancel()

    def _lookup(self, name: str, port: int) -> str:
        """Resolve a name once; every address it has must be public."""
        try:
            rows = self._resolve(name, port, type=socket.SOCK_STREAM)
            found = [ipaddress.ip_address(row[4][0]) for row in rows]
        except (OSError, ValueError):  # UnicodeError is a ValueError
            found = []
        if not found or not all(self._permits(address) for address in found):
            # The same message for both, so that it does not reveal whether a private name exists.
            _reject("The picture's address is not a public address.")
        return str(found[0])

    def _connection(self, scheme: str, name: str, port: int, address: str) -> _Pinned:
        context = None
        if scheme == "https":
            context = self._context or ssl.create_default_context()
        return _Pinned(name, port, address, context, self._timeout_s)

    def _read(self, response: http.client.HTTPResponse) -> bytes | str:
        if response.status in _REDIRECTS:
            return response.getheader("location") or _reject(
                "The picture's address redirects without a target."
            )
        if response.status != 200:
            _reject(
                "The picture's address returns no picture but HTTP status {status}.",
                status=response.status,
            )
        if response.getheader("content-encoding", "identity").lower() != "identity":
            _reject("The picture's address returns a compressed file.")
        length = response.getheader("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self._most_bytes:
            self._too_large()
        file = bytearray()
        while piece := response.read1(_PIECE):
            file += piece
            if len(file) > self._most_bytes:
                self._too_large()
        if response.length:
            _reject("The file at the picture's address was cut off.")
        return bytes(file)

    def _too_large(self) -> NoReturn:
        most = format_bytes(self._most_bytes)
        raise ApiError(413, Text("The picture has more than {most}.", most=most), "image_too_large")

    def _too_slow(self) -> NoReturn:
        _reject(
            "Opening the picture's address took more than {seconds:g} s.", seconds=self._timeout_s
        )


class _Pinned(http.client.HTTPConnection):
    """A connection to a checked address, with the requested name."""

    def __init__(
        self, name: str, port: int, address: str, context: ssl.SSLContext | None, timeout_s: float
    ) -> None:
        super().__init__(name, port, timeout=timeout_s)
        self.default_port = 443 if context else 80  # the Host header names any other port
        self._address = address
        self._context = context
        self._aborted = threading.Event()

    def connect(self) -> None:
        """Connect to the address, and verify the name with TLS."""
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        if self._context is not None:
            self.sock = self._context.wrap_socket(
                self.sock, server_hostname=self.host, do_handshake_on_connect=False
            )
            self.sock.do_handshake()  # self.sock is set already, so that abort can close it
        if self._aborted.is_set():
            self.abort()

    def abort(self) -> None:
        """Abort the request in progress; may be called from any thread."""
        self._aborted.set()
        sock = self.sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def _parts(url: str) -> SplitResult:
    """Return the parts of an address; ApiError if it is not a plain web address."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        _reject("The picture's address is not valid.")
    if parts.scheme not in _PORTS or not parts.hostname:
        _reject("The picture's address must begin with http:// or https:// and a name.")
    if parts.username is not None or parts.password is not None:
        _reject("The picture's address must not contain a user name or a password.")
    return parts


def _name(parts: SplitResult) -> str:
    """Return the name in ASCII, for DNS, TLS and the Host header."""
    name = parts.hostname or ""
    try:
        return name if name.isascii() else name.encode("idna").decode("ascii")
    except UnicodeError:
        _reject("The host name of the picture's address is not valid.")


def _target(parts: SplitResult) -> str:
    """Return the request target, in ASCII."""
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return quote(target, safe="/?:@!$&'()*+,;=~-._%[]")


def _url_error(template: str, **values: object) -> ApiError:
    return ApiError(400, Text(template, **values), "invalid_image_url")


def _reject(template: str, **values: object) -> NoReturn:
    raise _url_error(template, **values)
