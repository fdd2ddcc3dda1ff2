"""Serves the tools over standard input and output, or over HTTP on this computer."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mcp.server.stdio import stdio_server
from mcp.server.transport_security import TransportSecuritySettings

from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.mcp_server.folders import AllowedFolders
from cogvlm2_lite.mcp_server.tools import Tools
from cogvlm2_lite.server.guard import Access, Guard
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.listening import ListeningServer
from cogvlm2_lite.server.run import report_state
from cogvlm2_lite.server.service import Service
from cogvlm2_lite.weights.adapter_choice import names_of
from cogvlm2_lite.worker.client import EngineProcess, WorkerEngine

_MAX_WAITING = 64
_GRACE_S = 1.0
_PATH = "/mcp"


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `mcp`.

    folders    the client may use pictures in them
    version    of this program
    access     who may use the HTTP server
    port       of the HTTP server; 0: any free one
    on_remark  called when the model is ready, with what a person should know of it, and with the
               reason if it can't be loaded or its process ended
    """

    load: LoadOptions
    folders: tuple[Path, ...]
    version: str
    access: Access = field(default_factory=Access)
    port: int = 0
    on_remark: Callable[[str], None] = lambda _: None


def make_service(options: Options, engine: WorkerEngine) -> Service:
    """Return the service that loads the model and answers.

    If the model can't be loaded, each call gets the reason: a client shows that, but not what a
    server wrote before it ended.
    """

    def show_failure() -> None:
        if service.failure is not None:
            options.on_remark(service.failure.text)

    service = Service(engine, Limits(), max_waiting=_MAX_WAITING, on_load_failure=show_failure)
    report_state(service, "The model", options.on_remark)
    return service


def make_tools(options: Options, service: Service, folders: AllowedFolders) -> Tools:
    """Return the tools that clients call."""
    adapters = names_of(options.load.adapters)
    return Tools(service, folders, version=options.version, adapters=adapters)


def serve_stdio(options: Options) -> None:
    """Serve one client over standard input and output, until it closes standard input."""
    folders = AllowedFolders(options.folders)
    # A thread reads standard input, which can't be interrupted. So Ctrl-C ends this process at
    # once; the engine's process then ends, too.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    engine = EngineProcess(options.load)
    service = make_service(options, engine)
    try:
        asyncio.run(_serve_stdio(service, make_tools(options, service, folders)))
    finally:
        engine.stop()


async def _serve_stdio(service: Service, tools: Tools) -> None:
    service.start()  # the model is loaded while the client connects
    server = tools.server()
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())
    await service.stop()


class HttpServer(ListeningServer):
    """An open port of this computer and its server.

    Raises UsageError if the port can't be opened.
    """

    def __init__(self, options: Options, engine: WorkerEngine) -> None:
        folders = AllowedFolders(options.folders)
        super().__init__(options.access, options.port)
        service = make_service(options, engine)
        # The guard checks Host, Origin and the key, here as in `serve`.
        unchecked = TransportSecuritySettings(enable_dns_rebinding_protection=False)
        app = (
            make_tools(options, service, folders)
            .server()
            .streamable_http_app(streamable_http_path=_PATH, transport_security=unchecked)
        )
        # Clients keep a stream open as long as they run, so connections are closed soon.
        guarded = Guard(app, options.access)
        self.answer_with(guarded, service, grace_s=_GRACE_S, close_s=1, starts=True)

    @property
    def address(self) -> str:
        """The address that clients connect to."""
        return f"{super().address}{_PATH}"


def serve_http(options: Options, *, on_listening: Callable[[str], None]) -> None:
    """Serve over HTTP until SIGINT or SIGTERM.

    on_listening  called with the address when the port is open, before the model is loaded
    """
    engine = EngineProcess(options.load)
    server = HttpServer(options, engine)
    on_listening(server.address)
    try:
        server.run()
    finally:
        engine.stop()
