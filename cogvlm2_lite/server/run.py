"""Runs the server until it is stopped, and then lets answers in progress finish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.server.app import make_app
from cogvlm2_lite.server.guard import Access
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.listening import ListeningServer
from cogvlm2_lite.server.models import ServedModels
from cogvlm2_lite.server.ollama_routes import card_of
from cogvlm2_lite.server.remote import RemotePictures
from cogvlm2_lite.server.service import Service
from cogvlm2_lite.weights.adapter_choice import names_of
from cogvlm2_lite.worker.client import EngineProcess, WorkerEngine
from cogvlm2_lite.worker.protocol import Loaded


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `serve`.

    port         0: any free one
    model        name of the model in the API
    max_waiting  requests that may wait
    grace_s      time for answers in progress to finish when the server is stopped
    """

    load: LoadOptions
    model: str
    access: Access = field(default_factory=Access)
    port: int = 8000
    limits: Limits = field(default_factory=Limits)
    max_waiting: int = 64
    grace_s: float = 20.0


class LocalServer(ListeningServer):
    """An open port and its server.

    pictures  fetches pictures from the web; None: as the options require

    Raises UsageError if the port can't be opened, or for a name that no adapter can have.
    """

    def __init__(
        self, options: Options, engine: WorkerEngine, pictures: RemotePictures | None = None
    ) -> None:
        super().__init__(options.access, options.port)
        self.service = Service(
            engine, options.limits, max_waiting=options.max_waiting, on_load_failure=self.stop
        )
        limits = options.limits
        if pictures is None and limits.remote_images:
            pictures = RemotePictures(most_bytes=limits.picture_bytes, timeout_s=limits.remote_s)
        app = make_app(
            self.service,
            options.access,
            models=ServedModels(options.model, names_of(options.load.adapters)),
            card=card_of(options.load.folder),
            pictures=pictures,
            most_requests=options.max_waiting * 4 + 64,
        )
        self.answer_with(app, self.service, grace_s=options.grace_s, close_s=10, starts=False)


def remarks_of(loaded: Loaded) -> list[str]:
    """Return what a person should know of a loaded model: its plan's remark, and warnings."""
    remark = loaded.plan.get("remark")
    return [*([remark] if remark else []), *loaded.warnings, *loaded.adapter_remarks]


def report_state(service: Service, model: str, on_remark: Callable[[str], None]) -> None:
    """Report when the model is ready, what to know of it, and when its process has ended."""

    def show_loaded(loaded: Loaded) -> None:
        for remark in [*remarks_of(loaded), f"{model} is ready."]:
            on_remark(remark)

    service.on_loaded = show_loaded
    service.on_died = lambda reason: on_remark(f"{reason} It is started again.")


def serve(
    options: Options,
    *,
    on_listening: Callable[[str], None],
    on_remark: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve until SIGINT or SIGTERM.

    on_listening  called with the page's address when the port is open, before the model is loaded
    on_remark     called with a remark of the memory plan, warnings about the model's files, and
                  when the model is ready and when it has to be loaded again

    Raises UsageError if the port can't be opened, and the engine's error if the model can't be
    loaded.
    """
    engine = EngineProcess(options.load)
    server = LocalServer(options, engine)
    report_state(server.service, options.model, on_remark)
    on_listening(server.address)
    try:
        server.run()
    finally:
        engine.stop()
    if server.service.failure is not None:
        raise server.service.failure
