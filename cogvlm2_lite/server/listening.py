"""An open port and the server behind it: the settings and the end that `serve` and `mcp` share."""

from __future__ import annotations

import math
import socket

import uvicorn

from cogvlm2_lite.server.connections import http_protocol, listen
from cogvlm2_lite.server.guard import Access, App
from cogvlm2_lite.server.service import Service


class ListeningServer:
    """An open port; `answer_with` sets what answers there, and `run` serves.

    Raises UsageError if the port can't be opened.
    """

    def __init__(self, access: Access, port: int) -> None:
        self._listener = listen(access.host, port)
        self._server: _Server

    def answer_with(
        self, app: App, service: Service, *, grace_s: float, close_s: int, starts: bool
    ) -> None:
        """Serve an application.

        grace_s  time for answers in progress to finish when the server is stopped
        close_s  time for connections to close after that
        starts   start and stop the service; otherwise the application does it
        """
        config = uvicorn.Config(
            app,
            http=http_protocol(service.limits),
            ws="none",
            log_level="warning",
            access_log=False,  # questions are never logged
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=math.ceil(service.limits.header_s),
            timeout_graceful_shutdown=close_s,
            h11_max_incomplete_event_size=64 * 1024,
        )
        self._server = _Server(config, service, grace_s, starts=starts)

    @property
    def address(self) -> str:
        """The address of the port, without a path."""
        host, port = self._listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run(self) -> None:
        """Serve until SIGINT, SIGTERM or `stop`."""
        try:
            self._server.run(sockets=[self._listener])
        finally:
            self._listener.close()

    def stop(self) -> None:
        """Let answers finish within the grace time, then stop; any thread may call this."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """A uvicorn server that lets answers finish, or ends them, before it closes connections."""

    def __init__(
        self, config: uvicorn.Config, service: Service, grace_s: float, *, starts: bool
    ) -> None:
        super().__init__(config)
        self._service = service
        self._grace_s = grace_s
        self._starts = starts

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._starts:
            self._service.start()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._service.drain(self._grace_s)
        await super().shutdown(sockets)
        if self._starts:
            await self._service.stop()
