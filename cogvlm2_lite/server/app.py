"""The routes: OpenAI's API, Ollama's, the health of the server, and the web page."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.events import Event, Finished, PictureOpened, TurnsDropped
from cogvlm2_lite.server import markdown
from cogvlm2_lite.server.api_errors import NO_EMBEDDINGS, ApiError, api_error_of, dumps, reply_body
from cogvlm2_lite.server.assets import read_assets
from cogvlm2_lite.server.bodies import (
    ChatRequest,
    CompletionRequest,
    PreviewRequest,
    ResponseRequest,
)
from cogvlm2_lite.server.guard import IGNORED_HEADER, NOTICE_HEADER, OPEN_PATHS, Access, App, Guard
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.messages import read_picture
from cogvlm2_lite.server.models import ServedModel, ServedModels
from cogvlm2_lite.server.ollama_routes import ModelCard, OllamaRoutes
from cogvlm2_lite.server.openapi import document
from cogvlm2_lite.server.preview import Previews
from cogvlm2_lite.server.remote import RemotePictures
from cogvlm2_lite.server.replies import CompletionReply, Reply, report_of
from cogvlm2_lite.server.requests import AnswerRequest, R, read_asked
from cogvlm2_lite.server.response_bodies import Health, Markdown, Model, ModelList, Plan, Report
from cogvlm2_lite.server.responses import ResponseReply
from cogvlm2_lite.server.service import Service
from cogvlm2_lite.server.validation import read_body, read_json
from cogvlm2_lite.text import Text, with_templates
from cogvlm2_lite.units import format_bytes
from cogvlm2_lite.worker.client import EngineState

B = TypeVar("B")
_FROM_BROWSERS = ("origin", "referer", "sec-fetch-site")
"""Headers of which a browser sends at least one with every form."""
_MOST_IN_HEADER = 40
_MOST_LOGGED = 1000
"""How many names of ignored fields the log may have: clients choose them."""


def make_app(
    service: Service,
    access: Access,
    *,
    models: ServedModels,
    card: ModelCard,
    pictures: RemotePictures | None = None,
    most_requests: int = 320,
) -> App:
    """Return the ASGI application.

    models         names of the models in the API
    card           what is known of the model's folder
    pictures       fetches pictures from the web; None: none are fetched
    most_requests  requests with the key that may be in progress; further ones get a 429
    """
    handlers = _Handlers(service, models, card, pictures)
    ollama = OllamaRoutes(service, models, card, answer=handlers.answer, read=handlers.values)
    assets = read_assets()
    routes = [
        *handlers.openai_routes("/v1"),
        *handlers.openai_routes(""),  # programs whose address was set without /v1
        Route("/v1/plan", handlers.plan),
        Route("/health", handlers.health),
        Route("/metrics", handlers.metrics),
        Route("/openapi.json", handlers.document),
        Route("/page/markdown", handlers.markdown, methods=["POST"]),
        Route("/page/preview", handlers.preview, methods=["POST"]),
        *ollama.routes(),
        Route("/", _page(*assets.pop("/"))),
        *(Route(path, _asset(*asset)) for path, asset in assets.items()),
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.start()
        yield
        await service.stop()

    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={
            ApiError: _api_error,
            HTTPException: _http_error,
            Exception: _fault,
        },
    )
    app.router.redirect_slashes = False  # a redirect would contain the client's Host
    return Guard(_RequestLimit(_TracebackLog(app), most_requests), access)


class _RequestLimit:
    """Middleware behind the guard: bounds the requests in progress, but not those without a key."""

    def __init__(self, app: App, most: int) -> None:
        self._app = app
        self._most = most
        self._count = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        if self._count >= self._most:
            text = Text("{count} requests are already in progress.", count=self._count)
            error = ApiError(429, text, "queue_full", retry_after=5)
            await _json(error.body(), error.status, error.headers())(scope, receive, send)
            return
        self._count += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._count -= 1


class _TracebackLog:
    """Middleware around all routes: tracebacks are logged and not sent."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - the outermost handler of a request
            with suppress(OSError):  # standard error may be closed or full
                traceback.print_exception(error, file=sys.stderr)


class _Handlers:
    def __init__(
        self,
        service: Service,
        models: ServedModels,
        card: ModelCard,
        pictures: RemotePictures | None,
    ) -> None:
        self._service = service
        self._models = models
        self._card = card
        self._pictures = pictures
        self._logged: set[str] = set()
        self._previews = Previews()

    def openai_routes(self, prefix: str) -> list[Route]:
        """Return the routes of OpenAI's API below a path."""
        return [
            Route(f"{prefix}/models", self.models),
            Route(f"{prefix}/models/{{name}}", self.model),
            Route(f"{prefix}/chat/completions", self.chat, methods=["POST"]),
            Route(f"{prefix}/completions", self.completions, methods=["POST"]),
            Route(f"{prefix}/responses", self.responses, methods=["POST"]),
            Route(f"{prefix}/embeddings", self.embeddings, methods=["POST"]),
        ]

    async def models(self, _: Request) -> Response:
        return _json(ModelList(data=[self._described(one) for one in self._models.all]))

    async def model(self, request: Request) -> Response:
        return _json(self._described(self._find(request.path_params["name"])))

    def _described(self, one: ServedModel) -> Model:
        loaded = self._service.loaded
        context = loaded.context if loaded else None
        return Model(
            id=one.name,
            created=self._card.created,
            context_length=context,
            max_model_len=context,
        )

    async def embeddings(self, request: Request) -> Response:
        await self.values(request)
        raise ApiError(400, NO_EMBEDDINGS, "unsupported")

    async def health(self, _: Request) -> Response:
        state = self._service.state
        status = 200 if state is EngineState.READY or self._service.on_demand else 503
        return _json(Health(status=state), status)

    async def plan(self, _: Request) -> Response:
        loaded = self._service.loaded
        if loaded is None:
            self._service.check_ready()
            raise ApiError(503, "The model is not loaded.", "model_loading", retry_after=5)
        return _json(
            Plan(
                plan=with_templates(loaded.plan),
                compute=loaded.compute,
                context=loaded.context,
                image_tokens=loaded.image_tokens,
                parallel=loaded.parallel,
            )
        )

    async def document(self, _: Request) -> Response:
        return _json(document(self._service.limits))

    async def metrics(self, _: Request) -> Response:
        service = self._service
        gauges = {
            "requests_waiting": service.waiting,
            "requests_running": service.running,
            "engine_ready": service.state is EngineState.READY,
            "memory_held_bytes": service.metrics.held_bytes if service.loaded else 0,
            "memory_planned_bytes": service.loaded.plan["peak_bytes"] if service.loaded else 0,
        }
        text = service.metrics.render(gauges)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def markdown(self, request: Request) -> Response:
        """Parse answers into trees of elements, for the page."""
        texts = markdown.read_texts(await self.values(request))
        parsed = await asyncio.to_thread(lambda: list(map(markdown.parse, texts)))
        return _json(Markdown(texts=parsed))

    async def preview(self, request: Request) -> Response:
        """Return a picture that browsers can't show as a small JPEG file, for the page."""
        _check_type(request)
        reserved = _Reservation(self._service)
        try:
            raw = await self._read(request, reserved)
            limits = replace(self._service.limits, remote_images=False)
            body, picture = await asyncio.to_thread(lambda: _preview(read_json(raw), limits))
            made = await self._previews.make(picture, body.page)
        except CogVLM2LiteError as error:
            raise replace(api_error_of(error), param="picture") from None
        finally:
            reserved.release()
        return Response(made, media_type="image/jpeg")

    async def values(self, request: Request) -> dict[str, Any]:
        """Return the JSON object of a small request."""
        _check_type(request)
        reserved = _Reservation(self._service)
        try:
            raw = await self._read(request, reserved)
            return await asyncio.to_thread(read_json, raw)
        finally:
            reserved.release()

    async def chat(self, request: Request) -> Response:
        def reply(asked: AnswerRequest, _: ChatRequest) -> Reply:
            return self._completion(asked, chat=True)

        return await self.answer(request, _reader(ChatRequest), reply)

    async def completions(self, request: Request) -> Response:
        def reply(asked: AnswerRequest, _: CompletionRequest) -> Reply:
            return self._completion(asked, chat=False)

        return await self.answer(request, _reader(CompletionRequest), reply)

    async def responses(self, request: Request) -> Response:
        def reply(asked: AnswerRequest, body: ResponseRequest) -> Reply:
            with_logprobs = asked.sampling.logprobs is not None
            continued = bool(asked.continue_from)
            return ResponseReply(
                asked.model or "",
                body,
                with_logprobs=with_logprobs,
                continued=continued,
                functions=asked.functions,
            )

        return await self.answer(request, _reader(ResponseRequest), reply)

    def _completion(self, asked: AnswerRequest, *, chat: bool) -> Reply:
        return CompletionReply(
            asked.model or "",
            chat=chat,
            progress=asked.progress,
            with_logprobs=asked.sampling.logprobs is not None,
            usage_chunk=asked.usage_chunk,
            continued=bool(asked.continue_from),
            functions=asked.functions,
            required=asked.required,
            old_call=asked.old_call,
            count=asked.count,
            prompts=asked.prompts if asked.echo else (),
            scored=asked.scores_prompt,
            only_prompt=asked.only_prompt,
            predicted=bool(asked.draft_text),
            answers=len(list(asked.each())),
        )

    async def answer(
        self,
        request: Request,
        read: Callable[[Mapping[str, Any], Limits], tuple[B, AnswerRequest]],
        reply: Callable[[AnswerRequest, B], Reply],
    ) -> Response:
        """Read a request with `read` and return its answer in the form of `reply`."""
        _check_type(request)
        reserved = _Reservation(self._service)
        try:
            raw = await self._read(request, reserved)
            # A large picture takes time to read and to hash; other requests must not wait for it.
            limits = self._service.limits
            body, asked = await asyncio.to_thread(lambda: read(read_json(raw), limits))
            self._log_ignored(asked.ignored)
            served = self._find(asked.model)
            asked = replace(asked, model=served.name, adapter=served.adapter)
            if any(picture.url for picture in asked.pictures):
                asked = await self._with_pictures(asked, reserved)
        except BaseException:
            reserved.release()
            raise
        peer = request.client.host if request.client else ""
        waits = asyncio.Event()
        asks = asked.question or asked.prompts
        call = self._service.answer if asks else self._service.load
        events = call(asked, peer, on_wait=waits.set)
        made = reply(asked, body)
        return _Answering(events, made, asked, self._service, request.url.path, reserved, waits)

    def _log_ignored(self, names: Iterable[str]) -> None:
        """Name each ignored field once in the log."""
        new = [name for name in names if name not in self._logged]
        if new := new[: _MOST_LOGGED - len(self._logged)]:
            self._logged.update(new)
            names = ", ".join(map(ascii, new))
            sys.stderr.write(f"Ignored fields of requests: {names} (serve --strict rejects them)\n")

    async def _with_pictures(self, asked: AnswerRequest, reserved: _Reservation) -> AnswerRequest:
        """Fetch the pictures of which only the address is known."""
        assert self._pictures is not None, "addresses are accepted only if they can be fetched"
        self._service.check_ready(waits=asked.waits)  # fetch nothing if the server can't answer
        most = self._service.limits.picture_bytes
        found, total = [], 0
        for picture in asked.pictures:
            if picture.data is None:
                data = await self._pictures.fetch(picture.url)
                reserved.add(len(data))
                picture = replace(picture, data=data, url="")
            found.append(picture)
            total += len(picture.data or b"")
            if len(asked.pictures) > 1 and total > most:
                text = Text(
                    "The pictures have {size} or more together, more than {most}.",
                    size=format_bytes(total),
                    most=format_bytes(most),
                )
                raise ApiError(413, text, "image_too_large", asked.messages_field)
        return replace(asked, pictures=tuple(found))

    async def _read(self, request: Request, reserved: _Reservation) -> bytearray:
        """Return the body, within the limits of size and time."""
        limits = self._service.limits
        _check_encoding(request)
        try:
            async with asyncio.timeout(limits.body_s):
                return await _body(request, limits.body_bytes, reserved)
        except TimeoutError:
            raise ApiError(
                408, Text("The request took more than {seconds:g} s.", seconds=limits.body_s)
            ) from None

    def _find(self, name: str | None) -> ServedModel:
        found = self._models.find(name)
        if found is None:
            text = Text(
                "Unknown model. The models of this server are {names}."
                if self._models.adapted
                else "Unknown model. The model of this server is {names}.",
                names=self._models.listed,
            )
            raise ApiError(404, text, "model_not_found", "model")
        return found


def _preview(values: dict[str, Any], limits: Limits) -> tuple[PreviewRequest, bytes]:
    """Return the body of /page/preview and the bytes of its picture."""
    body = read_body(values, PreviewRequest)
    picture = read_picture(body.picture, "picture", limits)
    assert isinstance(picture, bytes), "these limits allow no addresses"
    return body, picture


class _Reservation:
    """The reserved memory of one request, from its first byte to the end of its answer."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._count = 0

    def add(self, count: int) -> None:
        self._service.reserve(count)
        self._count += count

    def release(self) -> None:
        self._service.release(self._count)
        self._count = 0


class _Answering(Response):
    """Sends an answer, complete or as a stream, and ends it if the client disconnects.

    waits  set when the request waits for other requests or for the engine
    """

    def __init__(
        self,
        events: AsyncGenerator[Event, None],
        reply: Reply,
        asked: AnswerRequest,
        service: Service,
        path: str,
        reserved: _Reservation,
        waits: asyncio.Event,
    ) -> None:
        super().__init__()
        self._waits = waits
        self._reserved = reserved
        self._events = events
        self._reply = reply
        self._asked = asked
        self._service = service
        self._path = path
        reply.report = report_of(asked, None)
        self._send: Send

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_and_release(message: Message) -> None:
            # A client may send its next request as soon as it has the complete answer.
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._reserved.release()
            await send(message)

        self._send = send_and_release
        work = asyncio.ensure_future(self._work(scope, receive))
        left = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait((work, left), return_when=asyncio.FIRST_COMPLETED)
        finally:
            left.cancel()
            if not work.done():
                work.cancel()
            await asyncio.gather(work, left, return_exceptions=True)
            self._reserved.release()
        if not work.cancelled() and (error := work.exception()) is not None:
            raise error

    async def _work(self, scope: Scope, receive: Receive) -> None:
        events = self._events
        status = 200
        try:
            async with aclosing(events):
                if self._asked.stream:
                    await self._stream(events)
                else:
                    reply = await self._collect(events)
                    response = _json(reply, headers=_report_headers(self._reply.report))
                    await response(scope, receive, self._send)
        except ApiError as raised:
            error = raised.for_field(self._asked.messages_field)
            status = error.status
            response = _json(reply_body(error, self._path), status, error.headers())
            await response(scope, receive, self._send)
        finally:
            self._service.metrics.add("requests_total", path=self._path, status=str(status))

    async def _collect(self, events: AsyncIterator[Event]) -> object:
        finished = None
        async for event in events:
            self._note(event)
            for _ in self._reply.chunks(event):
                continue
            finished = event if isinstance(event, Finished) else None
        assert finished is not None, "an answer ends with Finished"
        return self._reply.whole(finished)

    def _note(self, event: Event) -> None:
        """Add how the picture was read to the reply."""
        if isinstance(event, PictureOpened):
            self._reply.report = report_of(self._asked, event)

    async def _stream(self, events: AsyncIterator[Event]) -> None:
        """Send chunks.

        An error before the work begins has its own HTTP status. A request that waits, or whose
        work does not begin soon, gets the beginning of its stream at once; an error is then a
        part of the stream.
        """
        limits = self._service.limits
        early = asyncio.ensure_future(self._until_begun(events))
        waits = asyncio.ensure_future(self._waits.wait())
        try:
            await asyncio.wait(
                (early, waits), timeout=limits.status_s, return_when=asyncio.FIRST_COMPLETED
            )
            if early.done():
                early.result()
            await self._begin_stream()
            keep_alive = asyncio.ensure_future(self._keep_alive(at_once=not early.done()))
            try:
                await self._send_events(early, events)
            finally:
                keep_alive.cancel()
            await self._data(self._reply.end, more=False)
        finally:
            for task in (early, waits):
                task.cancel()
            await asyncio.gather(early, waits, return_exceptions=True)

    async def _until_begun(self, events: AsyncIterator[Event]) -> list[Event]:
        """Return the events up to the first one of the work itself."""
        early = [await anext(events)]
        while isinstance(early[-1], TurnsDropped | PictureOpened):
            self._note(early[-1])
            early.append(await anext(events))
        return early

    async def _begin_stream(self) -> None:
        headers = {"content-type": self._reply.content_type}
        headers |= _report_headers(self._reply.report)
        await self._send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            }
        )

    async def _send_events(
        self, early: Awaitable[Iterable[Event]], events: AsyncIterator[Event]
    ) -> None:
        """Send the chunks of all events; the first one waits for the report about the picture."""
        begun = False
        try:
            first = await early
            begun = True
            await self._chunks(self._reply.begin())
            for event in first:
                await self._chunks(self._reply.chunks(event))
            async for event in events:
                await self._chunks(self._reply.chunks(event))
        except ApiError as error:
            if not begun:
                await self._chunks(self._reply.begin())
            await self._chunks(self._reply.failed(error.for_field(self._asked.messages_field)))

    async def _chunks(self, chunks: Iterable[Mapping[str, Any]]) -> None:
        for chunk in chunks:
            await self._data(self._reply.framed(chunk))

    async def _keep_alive(self, *, at_once: bool) -> None:
        """Send a comment regularly, because clients and proxies close silent connections."""
        comment = self._reply.comment
        if comment and at_once:
            await self._data(comment)
        while comment:
            await asyncio.sleep(self._service.limits.comment_s)
            await self._data(comment)

    async def _data(self, data: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


def _check_type(request: Request) -> None:
    """Reject other types: pages of other websites can send forms without a preflight request.

    Ollama's users send requests with curl and without a type; curl is no browser.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    from_browser = any(name in request.headers for name in _FROM_BROWSERS)
    if kind != "application/json" and (from_browser or not request.url.path.startswith("/api/")):
        raise ApiError(415, "The Content-Type must be application/json.", "wrong_content_type")


def _check_encoding(request: Request) -> None:
    """Reject compressed bodies: their size is not known before they are read."""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        text = Text("The body is compressed ({name}). Send it uncompressed.", name=encoding[:40])
        raise ApiError(415, text, "wrong_content_encoding")


def _report_headers(report: Report | None) -> dict[str, str]:
    """Return the headers about what was not read as it stands, in ASCII."""
    if report is None:
        return {}
    found = {
        NOTICE_HEADER: " ".join(report.notices),
        IGNORED_HEADER: ", ".join(report.ignored[:_MOST_IN_HEADER]),
    }
    return {name: _header_text(text) for name, text in found.items() if text}


def _header_text(text: str) -> str:
    escaped = text.encode("ascii", errors="backslashreplace").decode()
    return "".join(letter if " " <= letter < "\x7f" else " " for letter in escaped)


async def _left(receive: Receive) -> None:
    """Return when the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        continue


async def _body(request: Request, most: int, reserved: _Reservation) -> bytearray:
    """Read a request's body; ApiError 413 before more than `most` bytes are reserved."""
    text = Text("The request has more than {most}.", most=format_bytes(most))
    too_large = ApiError(413, text, "too_large")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > most:
        raise too_large
    pieces = bytearray()
    async for piece in request.stream():
        reserved.add(len(piece))
        pieces += piece
        if len(pieces) > most:
            raise too_large
    return pieces


def _json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(dumps(value), status, headers, media_type="application/json")


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _json(reply_body(error, request.url.path), error.status, error.headers())


async def _fault(request: Request, _: Exception) -> Response:
    error = ApiError(500, "Internal server error; the server's log has the details.", "fault")
    return _json(reply_body(error, request.url.path), 500)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = {
        404: Text(
            "This server has no {path}. OpenAI's API begins with /v1, and Ollama's with /api.",
            path=request.url.path[:100],
        ),
        405: Text("This page does not allow that method."),
    }
    reply = ApiError(
        error.status_code, text.get(error.status_code, "The request is not understood.")
    )
    return _json(reply_body(reply, request.url.path), error.status_code, error.headers)


def _reader(kind: type[R]) -> Callable[[Mapping[str, Any], Limits], tuple[R, AnswerRequest]]:
    """Return the function that reads a request of OpenAI's API."""
    return lambda values, limits: read_asked(values, kind, limits)


def _page(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    """Return a handler that sends the page to browsers, and Ollama's greeting to its clients."""

    async def serve(request: Request) -> Response:
        accepted = request.headers.get("accept", "*/*")
        if accepted != "*/*" and "text/html" not in accepted:
            return Response("Ollama is running", media_type="text/plain")
        return Response(content, headers={"content-type": kind})

    return serve


def _asset(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    """Return a handler that sends one of the page's files."""

    async def serve(_: Request) -> Response:
        return Response(content, headers={"content-type": kind})

    return serve
