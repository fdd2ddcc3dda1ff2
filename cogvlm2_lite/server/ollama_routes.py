"""The routes of Ollama's API. They answer with the same queue and engine as OpenAI's."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cogvlm2_lite.config import read_config
from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.server.api_errors import NO_EMBEDDINGS, ApiError, dumps
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.models import ServedModel, ServedModels
from cogvlm2_lite.server.ollama import (
    OllamaReply,
    Only,
    read_chat,
    read_generate,
    timestamp,
)
from cogvlm2_lite.server.ollama_bodies import (
    OllamaDetails,
    OllamaEmbedRequest,
    OllamaLoadedModel,
    OllamaLoadedModels,
    OllamaModel,
    OllamaModelRequest,
    OllamaPullRequest,
    OllamaRequest,
    OllamaShown,
    OllamaStatus,
    OllamaTags,
    OllamaVersion,
)
from cogvlm2_lite.server.replies import Reply
from cogvlm2_lite.server.requests import AnswerRequest
from cogvlm2_lite.server.service import Service
from cogvlm2_lite.server.validation import read_body
from cogvlm2_lite.text import Text
from cogvlm2_lite.weights.catalog import Catalog

O = TypeVar("O", bound=OllamaRequest)  # noqa: E741 - a type variable
Values = Mapping[str, Any]

_VERSION = "0.12.6"
"""The version of Ollama whose API this follows; programs compare it with what they need."""

_FOR_EVER_S = 100 * 365.25 * 86400
"""When a model expires that always stays in memory; Ollama's own program shows it as "Forever"."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What is known of the model before it is loaded.

    created       when its folder was made, in seconds since 1970
    size          bytes of its files
    digest        64 hexadecimal digits; other files have another one
    quantization  how most weights are stored, such as "NF4" or "BF16"; "": not known
    parameters    how many the model has; 0: not known
    """

    created: int
    size: int = 0
    digest: str = "0" * 64
    quantization: str = ""
    parameters: int = 0


def card_of(folder: Path) -> ModelCard:
    """Return the card of a model folder. The engine reports what is wrong with a folder."""
    try:
        created = int((folder / "config.json").stat().st_mtime)
        config = (folder / "config.json").read_bytes()
        files = sorted((path.name, path.stat().st_size) for path in folder.iterdir())
    except OSError:
        return ModelCard(created=int(time.time()))
    card = ModelCard(
        created=created,
        size=sum(size for _, size in files),
        digest=hashlib.sha256(config + dumps(files)).hexdigest(),
    )
    try:
        tensors = Catalog.open(folder, read_config(folder)).tensors.values()
    except CogVLM2LiteError:
        return card
    kinds: Counter[str] = Counter()
    for tensor in tensors:
        kind = tensor.dtype if tensor.kind == "dense" else tensor.kind
        kinds[kind.upper()] += tensor.spec.numel
    [(most, _)] = kinds.most_common(1)
    return replace(card, quantization=most, parameters=kinds.total())


def short_number(count: int) -> str:
    """Return a number of parameters as Ollama writes it: "19.5B", "494.03M"."""
    for unit, letter, digits in ((10**9, "B", 1), (10**6, "M", 2), (10**3, "K", 0)):
        if count >= unit:
            whole = count % unit == 0
            return f"{count / unit:.{0 if whole else digits}f}{letter}"
    return str(count)


class AnswerCall(Protocol):
    """Reads a request with `read` and sends its answer in the form of `reply`."""

    def __call__(
        self,
        request: Request,
        read: Callable[[Values, Limits], tuple[O, AnswerRequest]],
        reply: Callable[[AnswerRequest, O], Reply],
    ) -> Awaitable[Response]: ...


class OllamaRoutes:
    """The handlers of Ollama's API.

    models  names of the models in the API
    answer  answers a request
    read    returns the JSON object of a request
    """

    def __init__(
        self,
        service: Service,
        models: ServedModels,
        card: ModelCard,
        *,
        answer: AnswerCall,
        read: Callable[[Request], Awaitable[dict[str, Any]]],
    ) -> None:
        self._service = service
        self._models = models
        self._card = card
        self._answer = answer
        self._read = read

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/api/chat", self._chat, methods=["POST"]),
            Route("/api/generate", self._generate, methods=["POST"]),
            Route("/api/tags", self._tags),
            Route("/api/show", self._show, methods=["POST"]),
            Route("/api/ps", self._loaded),
            Route("/api/version", self._version),
            Route("/api/embed", self._embed, methods=["POST"]),
            Route("/api/embeddings", self._embed, methods=["POST"]),
            Route("/api/pull", self._pull, methods=["POST"]),
            Route("/api/push", self._push, methods=["POST"]),
            Route("/api/create", self._create, methods=["POST"]),
            Route("/api/copy", self._copy, methods=["POST"]),
            Route("/api/delete", self._delete, methods=["DELETE"]),
            Route("/api/blobs/{digest}", self._find_blob, methods=["HEAD"]),
            Route("/api/blobs/{digest}", self._add_blob, methods=["POST"]),
        ]

    async def _chat(self, request: Request) -> Response:
        return await self._answer(request, self._checked(read_chat), self._reply(chat=True))

    async def _generate(self, request: Request) -> Response:
        return await self._answer(request, self._checked(read_generate), self._reply(chat=False))

    def _checked(
        self, read: Callable[[Values, Limits], tuple[O, AnswerRequest]]
    ) -> Callable[[Values, Limits], tuple[O, AnswerRequest]]:
        """Return a function that also finds the model that is named."""

        def checked(values: Values, limits: Limits) -> tuple[O, AnswerRequest]:
            found = self._find(values.get("model"))
            body, asked = read(values, limits)
            return body, replace(asked, model=found.name)

        return checked

    def _reply(self, *, chat: bool) -> Callable[[AnswerRequest, OllamaRequest], Reply]:
        def reply(asked: AnswerRequest, body: OllamaRequest) -> Reply:
            only: Only | None = None
            if not asked.question:
                only = "unload" if asked.keep_s == 0 else "load"
            name = body.model or self._models.default.ollama_name
            return OllamaReply(name, asked, chat=chat, only=only)

        return reply

    async def _tags(self, _: Request) -> Response:
        models = [
            OllamaModel(
                name=one.ollama_name,
                model=one.ollama_name,
                modified_at=timestamp(self._card.created),
                size=self._card.size,
                digest=self._digest(one),
                details=self._details(one),
            )
            for one in self._models.all
        ]
        return _json(OllamaTags(models=models))

    async def _show(self, request: Request) -> Response:
        body = read_body(await self._read(request), OllamaModelRequest)
        found = self._find(body.model or body.name)
        info: dict[str, Any] = {
            "general.architecture": "cogvlm2",
            "general.basename": self._models.base.name,
        }
        if found.adapter:
            info["general.finetune"] = found.adapter
        if self._card.parameters:
            info["general.parameter_count"] = self._card.parameters
        if (loaded := self._service.loaded) is not None:
            info["cogvlm2.context_length"] = loaded.context
            info["cogvlm2.image_tokens"] = loaded.image_tokens
        modified_at = timestamp(self._card.created)
        details = self._details(found)
        return _json(OllamaShown(details=details, model_info=info, modified_at=modified_at))

    async def _loaded(self, _: Request) -> Response:
        loaded = self._service.loaded
        if loaded is None:
            return _json(OllamaLoadedModels(models=[]))
        keep_s = self._service.keep_s
        devices = loaded.plan.get("devices", ())
        models = [
            OllamaLoadedModel(
                name=one.ollama_name,
                model=one.ollama_name,
                size=loaded.plan["peak_bytes"],
                digest=self._digest(one),
                details=self._details(one),
                expires_at=timestamp(time.time() + (_FOR_EVER_S if keep_s is None else keep_s)),
                size_vram=sum(d["peak_bytes"] for d in devices if d["device"] != "cpu"),
                context_length=loaded.context,
            )
            for one in self._models.all
        ]
        return _json(OllamaLoadedModels(models=models))

    async def _version(self, _: Request) -> Response:
        return _json(OllamaVersion(version=_VERSION))

    async def _embed(self, request: Request) -> Response:
        body = read_body(await self._read(request), OllamaEmbedRequest)
        self._find(body.model)
        raise ApiError(400, NO_EMBEDDINGS, "unsupported")

    async def _pull(self, request: Request) -> Response:
        """Reply as Ollama does when it has the model already; it has no other one."""
        body = read_body(await self._read(request), OllamaPullRequest)
        digest = self._digest(self._find(body.model or body.name))
        if body.stream is False:
            return _json(OllamaStatus(status="success"))
        layer: dict[str, Any] = {
            "digest": f"sha256:{digest}",
            "total": self._card.size,
            "completed": self._card.size,
        }
        steps = (
            OllamaStatus(status="pulling manifest"),
            OllamaStatus(status=f"pulling {digest[:12]}", **layer),
            OllamaStatus(status="verifying sha256 digest"),
            OllamaStatus(status="writing manifest"),
            OllamaStatus(status="success"),
        )
        lines = b"".join(dumps(step) + b"\n" for step in steps)
        return Response(lines, media_type="application/x-ndjson")

    async def _push(self, request: Request) -> Response:
        await self._refuse(request)

    async def _create(self, request: Request) -> Response:
        await self._refuse(request, names=())

    async def _copy(self, request: Request) -> Response:
        await self._refuse(request, names=("source",))

    async def _delete(self, request: Request) -> Response:
        await self._refuse(request)

    async def _refuse(self, request: Request, names: Sequence[str] = ("model", "name")) -> NoReturn:
        """Raise ApiError for a request to change the models.

        names  fields with the name of a model, which must be one of this server
        """
        values = await self._read(request)
        for name in names:
            self._find(values.get(name))
        raise _no_change()

    async def _find_blob(self, _: Request) -> Response:
        return Response(status_code=404)

    async def _add_blob(self, _: Request) -> Response:
        raise _no_change()

    def _details(self, one: ServedModel) -> OllamaDetails:
        return OllamaDetails(
            parent_model=self._models.base.ollama_name if one.adapter else "",
            quantization_level=self._card.quantization,
            parameter_size=short_number(self._card.parameters) if self._card.parameters else "",
        )

    def _digest(self, one: ServedModel) -> str:
        """Return a model's digest; clients take models of equal digests for the same one."""
        digest = self._card.digest
        if not one.adapter:
            return digest
        return hashlib.sha256(f"{digest} {one.adapter}".encode()).hexdigest()

    def _find(self, name: object) -> ServedModel:
        """Return the model that is named; ApiError 404 if it is another server's.

        Names of wrong types are found later.
        """
        found = self._models.find(name if isinstance(name, str) else None)
        if found is None:
            text = Text(
                "model {name!r} not found: the models of this server are {model}"
                if self._models.adapted
                else "model {name!r} not found: the model of this server is {model!r}",
                name=str(name)[:100],
                model=", ".join(one.ollama_name for one in self._models.all),
            )
            raise ApiError(404, text, "model_not_found", "model")
        return found


def _no_change() -> ApiError:
    text = Text(
        "this server has one model, and its models can't be changed over the API: start "
        "`cogvlm2-lite serve` with another folder"
    )
    return ApiError(400, text, "unsupported")


def _json(value: object) -> Response:
    return Response(dumps(value), media_type="application/json")
