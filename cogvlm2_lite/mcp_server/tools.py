"""The tools: ask about a picture, extract a value from it, list the pictures.

The model's process keeps the latest encoded pictures and the prompts that begin with them, so that
another question about a picture costs only its own tokens.
"""

from __future__ import annotations

import asyncio
import json
import math
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import mcp_types as types
from mcp import MCPError
from mcp.server import Server, ServerRequestContext
from msgspec import Struct, to_builtins

from cogvlm2_lite.errors import CogVLM2LiteError, EngineError
from cogvlm2_lite.events import (
    Finished,
    FinishReason,
    Notice,
    PictureOpened,
    Replanned,
    TurnsDropped,
)
from cogvlm2_lite.file_names import escape_line, to_json, valid_text
from cogvlm2_lite.mcp_server.arguments import (
    AskArguments,
    AskResult,
    ExtractArguments,
    ExtractResult,
    ListArguments,
    ListResult,
    read_arguments,
    schema_of,
)
from cogvlm2_lite.mcp_server.folders import AllowedFolders
from cogvlm2_lite.mcp_server.progress import ProgressReport
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.server.api_errors import ApiError
from cogvlm2_lite.server.messages import Picture
from cogvlm2_lite.server.requests import AnswerRequest
from cogvlm2_lite.server.schemas import usable_schema
from cogvlm2_lite.server.service import Service
from cogvlm2_lite.weights.adapter_choice import BASE, unknown_adapter

_INSTRUCTIONS = """\
Answers questions about pictures on this computer: documents, charts, screenshots, photos. Find
files with list_pictures, ask about one with ask_picture, and read values from one with extract.
More questions about the same picture are much faster than the first one."""
_NO_CHANGE = types.ToolAnnotations(read_only_hint=True, open_world_hint=False)


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """A finished answer, and how its picture was read."""

    finished: Finished
    page: int
    pages: int
    notices: list[str]


class Tools:
    """Carries out the calls of clients.

    version   of this program, which clients show
    adapters  names of the loaded adapters
    """

    def __init__(
        self,
        service: Service,
        folders: AllowedFolders,
        *,
        version: str,
        adapters: Sequence[str] = (),
    ) -> None:
        self._version = version
        self._adapters = tuple(adapters)
        self._service = service
        self._folders = folders
        self._calls: dict[str, Callable[[dict[str, Any], ProgressReport], Awaitable[Any]]] = {
            "ask_picture": self._ask,
            "extract": self._extract,
            "list_pictures": self._list,
        }

    def server(self) -> Server[Any]:
        """Return the protocol's server with these tools."""
        return Server(
            "cogvlm2-lite",
            title="CogVLM2 Lite",
            version=self._version,
            instructions=_INSTRUCTIONS,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
        )

    async def _list_tools(
        self, context: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        folders = ", ".join(escape_line(str(folder)) for folder in self._folders.folders)
        adapters = (*self._adapters, BASE) if self._adapters else ()
        return types.ListToolsResult(
            tools=[
                _tool(
                    "ask_picture",
                    f"Ask a question about a picture file. Allowed folders: {folders}",
                    AskArguments,
                    AskResult,
                    adapters,
                ),
                _tool(
                    "extract",
                    "Read values from a picture file as JSON that matches a JSON schema, such as "
                    f"the fields of an invoice. Allowed folders: {folders}",
                    ExtractArguments,
                    ExtractResult,
                    adapters,
                ),
                _tool(
                    "list_pictures",
                    f"List the picture files in these folders and their subfolders: {folders}",
                    ListArguments,
                    ListResult,
                ),
            ]
        )

    async def _call_tool(
        self, context: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        """Call a tool; an error that a person or model can act on is a result."""
        call = self._calls.get(params.name)
        if call is None:
            raise MCPError(types.INVALID_PARAMS, f"There is no tool {params.name!r}.")
        progress = ProgressReport(context.session.report_progress)
        try:
            return _result(await call(params.arguments or {}, progress))
        except CogVLM2LiteError as error:
            return _failure(error.text)
        except ApiError as error:
            return _failure(error.message)
        except Exception:  # noqa: BLE001 - the outermost handler of a call
            traceback.print_exc()
            return _failure("This is a bug in CogVLM2 Lite; its log has the details.")

    async def _ask(self, values: dict[str, Any], progress: ProgressReport) -> Struct:
        asked = read_arguments(values, AskArguments)
        sampling = Sampling(max_new_tokens=asked.max_tokens)
        history = tuple((turn.question, turn.answer) for turn in asked.history)
        answer = await self._answer(asked, asked.question, sampling, progress, history)
        return AskResult(
            answer=valid_text(answer.finished.text.strip()),
            finish_reason=answer.finished.reason.value,
            page=answer.page,
            pages=answer.pages,
            notices=answer.notices,
        )

    async def _extract(self, values: dict[str, Any], progress: ProgressReport) -> Struct:
        asked = read_arguments(values, ExtractArguments)
        schema = json.dumps(asked.schema, ensure_ascii=False)
        form = f"Answer with JSON that matches this JSON schema: {schema}"
        question = f"{asked.question}\n\n{form}" if asked.question.strip() else form
        usable, ignored = usable_schema(asked.schema)
        sampling = Sampling(max_new_tokens=asked.max_tokens, json_schema=json.dumps(usable))
        answer = await self._answer(asked, question, sampling, progress)
        value = read_value(answer.finished)
        notices = answer.notices
        if ignored:
            names = ", ".join(ignored)
            notices = [*notices, f"The value may not match these keywords of the schema: {names}"]
        return ExtractResult(value=value, page=answer.page, pages=answer.pages, notices=notices)

    async def _list(self, values: dict[str, Any], progress: ProgressReport) -> Struct:
        asked = read_arguments(values, ListArguments)
        found = await asyncio.to_thread(
            self._folders.pictures, asked.folder, contains=asked.contains, most=asked.limit
        )
        return ListResult(
            folders=[escape_line(str(folder)) for folder in self._folders.folders],
            pictures=list(found.paths),
            total=found.total,
        )

    async def _answer(
        self,
        asked: AskArguments | ExtractArguments,
        question: str,
        sampling: Sampling,
        progress: ProgressReport,
        history: tuple[tuple[str, str], ...] = (),
    ) -> _Answer:
        """Answer a question about a picture; a call that is cancelled ends within one token.

        history  earlier questions and answers; the oldest ones are left out if they are too long
        """
        adapter = self._chosen(asked.adapter)
        image = await asyncio.to_thread(self._folders.read, asked.path)
        request = AnswerRequest(
            model=None,
            adapter=adapter,
            question=question,
            history=history,
            truncate=True,
            pictures=(Picture(data=image, page=asked.page),),
            sampling=sampling,
            waits=True,
        )
        page, pages, notices = 1, 1, list[str]()
        async with progress.repeated(), aclosing(self._service.answer(request, "mcp")) as events:
            async for event in events:
                match event:
                    case PictureOpened():
                        page, pages = event.page, event.pages
                        notices += map(str, event.notices)
                    case TurnsDropped():
                        notices.append(
                            "The conversation is longer than the model's context, so the oldest "
                            f"turns were left out ({event.count})."
                        )
                    case Notice() | Replanned():
                        notices.append(str(event.text))
                    case Finished(reason=FinishReason.CANCELLED):
                        raise EngineError("The answer took too long and was stopped.")
                    case Finished():
                        return _Answer(finished=event, page=page, pages=pages, notices=notices)
                    case _:
                        await progress.show(event)
        raise AssertionError("an answer ends with Finished")

    def _chosen(self, name: str | None) -> str | None:
        """Return the adapter for the engine. Raises UsageError if it is not loaded."""
        if name is None or name in self._adapters:
            return name
        if name == BASE:
            return ""
        raise unknown_adapter(name, self._adapters)


def read_value(finished: Finished) -> Any:
    """Return the value of an answer in JSON; EngineError if it is cut off or has a huge number."""
    if finished.reason is FinishReason.LENGTH:
        raise EngineError(
            "The answer reached max_tokens before the JSON was complete.",
            hint="Use a larger max_tokens, or a schema with fewer or shorter values.",
        )
    try:
        return json.loads(finished.text, parse_float=_finite)
    except ValueError as error:
        raise EngineError(
            "The answer can't be read as JSON: {why}.",
            hint="Use a schema with a maximum for each number and each length.",
            why=error,
        ) from None


def _finite(text: str) -> float:
    """Return a number; JSON for clients can't have an infinite one."""
    if math.isinf(number := float(text)):
        raise ValueError(f"{text[:20]} is too large")
    return number


def _tool(
    name: str,
    description: str,
    arguments: type[Struct],
    result: type[Struct],
    adapters: Sequence[str] = (),
) -> types.Tool:
    return types.Tool(
        name=name,
        description=description,
        input_schema=schema_of(arguments, adapters),
        output_schema=schema_of(result),
        annotations=_NO_CHANGE,
    )


def _result(result: Struct) -> types.CallToolResult:
    """Return a result as an object and as text; the text of an answer is the answer itself."""
    values = to_builtins(result)
    texts = [to_json(values)]
    if isinstance(result, AskResult):
        texts = [result.answer, *result.notices]
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text) for text in texts],
        structured_content=values,
    )


def _failure(text: str) -> types.CallToolResult:
    content = types.TextContent(type="text", text=valid_text(str(text)))
    return types.CallToolResult(content=[content], is_error=True)
