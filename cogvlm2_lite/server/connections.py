"""Opens the server's port, and closes connections that hold a socket without a request.

Clients need no key for a connection, so connections must not use up what requests need: sockets
are limited here, and requests where their key is known (app.py).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from cogvlm2_lite.errors import UsageError
from cogvlm2_lite.server.api_errors import ApiError, dumps
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.text import Text


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 picks a free one. Raises UsageError with the reason."""
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        # With the protocol given, asyncio turns off Nagle's delay (40 ms per reply).
        listener = socket.socket(family, kind, protocol)
        if os.name == "posix":  # on Windows this option would let two programs share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except (OSError, OverflowError) as error:
        if listener is not None:
            listener.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            "The server can't listen on {host}, port {port}: {why}.",
            hint=_hint_about(error),
            host=host,
            port=port,
            why=reason,
        ) from error
    return listener


def _hint_about(error: Exception) -> Text:
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, socket.gaierror) or number == errno.EADDRNOTAVAIL:
        return Text("Choose an address of this computer with --host, such as 127.0.0.1.")
    if number == errno.EACCES:
        return Text("Choose a --port of 1024 or above: the system reserves those below.")
    return Text("Choose another --port; 0 picks a free one.")


def http_protocol(limits: Limits) -> type[H11Protocol]:
    """Return the protocol of a server's connections."""
    return type("HttpProtocol", (_Protocol,), {"limits": limits, "idle": {}})


class _Protocol(H11Protocol):
    """HTTP/1.1 with time limits.

    limits  of all connections
    idle    timers of the connections without a request, the oldest connection first
    """

    limits: ClassVar[Limits]
    idle: ClassVar[dict[_Protocol, asyncio.TimerHandle]]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request; the oldest idle connection makes room for a new one."""
        super().connection_made(transport)
        self._header_begun = False
        self._stalled: asyncio.TimerHandle | None = None
        self._wait_for_header()
        if len(self.idle) > self.limits.idle_connections:
            next(iter(self.idle))._close()

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        super().data_received(data)
        if self._has_request():
            self._stop_waiting()
        elif self.conn.their_state is h11.IDLE and not self._header_begun:
            self._header_begun = True
            self._wait_for_header()

    def on_response_complete(self) -> None:
        """Wait for the next request, which may have arrived already."""
        super().on_response_complete()
        if not self._has_request():
            self._header_begun = False
            self._wait_for_header()

    def pause_writing(self) -> None:
        """Wait for a client that does not read its reply."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.limits.stalled_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Continue to send."""
        super().resume_writing()
        self._end_stall()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        self._end_stall()
        super().connection_lost(exc)

    def _has_request(self) -> bool:
        """Return whether a request has arrived whose reply is not complete."""
        return bool(self.cycle) and not self.cycle.response_complete

    def _wait_for_header(self) -> None:
        self._stop_waiting()
        if not self.transport.is_closing():
            self.idle[self] = self.loop.call_later(self.limits.header_s, self._end_waiting)

    def _stop_waiting(self) -> None:
        if timer := self.idle.pop(self, None):
            timer.cancel()

    def _end_waiting(self) -> None:
        if self._header_begun and not self.transport.is_closing():
            text = Text(
                "The request's header took more than {seconds:g} s.", seconds=self.limits.header_s
            )
            body = dumps(ApiError(408, text).body())
            self.transport.write(
                b"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\n"
                b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
        self._close()

    def _close(self) -> None:
        self._stop_waiting()
        self.transport.close()

    def _end_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
