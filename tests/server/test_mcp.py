"""`cogvlm2-lite mcp`, driven by the client of the package mcp."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import httpx2
import jsonschema
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.dispatcher import ProgressFnT
from mcp.types import CallToolResult, TextContent
from msgspec import structs

from cogvlm2_lite.cli.mcp import main
from cogvlm2_lite.demo.shipped import sample_pictures
from cogvlm2_lite.engine.options import LoadOptions
from cogvlm2_lite.errors import CogVLM2LiteError, EngineError, ImageError, UsageError
from cogvlm2_lite.events import PictureOpened, Progress, TurnsDropped
from cogvlm2_lite.inputs.image import open_image
from cogvlm2_lite.inputs.limits import ImageLimits
from cogvlm2_lite.mcp_server.folders import AllowedFolders
from cogvlm2_lite.mcp_server.run import HttpServer, Options, make_service
from cogvlm2_lite.mcp_server.tools import Tools, read_value
from cogvlm2_lite.server.guard import Access
from cogvlm2_lite.text import Text
from cogvlm2_lite.worker.client import EngineState, Outcome
from cogvlm2_lite.worker.protocol import Ask, LoadFailed
from tests.helpers.scripted_server import ScriptedEngine, finished
from tests.helpers.waiting import PATIENCE_S

T = TypeVar("T")
PICTURES = sample_pictures()
MODEL, FOLDER = "/home/me/my-model", "/home/me/Pictures"
"""The paths in docs/mcp.md."""
SCHEMA = {
    "type": "object",
    "properties": {"count": {"type": "integer", "maximum": 99}, "kind": {"enum": ["bar", "line"]}},
    "required": ["count", "kind"],
    "additionalProperties": False,
}
Shown = list[tuple[float, float | None, str | None]]


def text_of(result: CallToolResult) -> str:
    return "\n".join(part.text for part in result.content if isinstance(part, TextContent))


def collector(shown: Shown) -> ProgressFnT:
    async def show(progress: float, total: float | None, message: str | None) -> None:
        shown.append((progress, total, message))

    return show


def documented_arguments(instead: dict[str, str]) -> list[str]:
    """The arguments in the first configuration of docs/mcp.md, with other paths."""
    page = (Path(__file__).parents[2] / "docs" / "mcp.md").read_text(encoding="utf-8")
    found = json.loads(page.split("```json\n")[1].split("```")[0])["mcpServers"]["cogvlm2"]["args"]
    return [instead.get(word, word) for word in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of pictures, next to a picture that is outside."""
    inside = tmp_path / "inside"
    (inside / "sub").mkdir(parents=True)
    data = PICTURES[0].path.read_bytes()
    for path in (inside / "a.png", inside / "sub" / "b.PNG", tmp_path / "outside.png"):
        path.write_bytes(data)
    (inside / "notes.txt").write_text("no picture", encoding="utf-8")
    return inside


def options_of(folder: Path, **others: Any) -> Options:
    return Options(
        load=LoadOptions(folder=Path("nowhere")), folders=(folder,), version="1", **others
    )


@asynccontextmanager
async def connected(
    engine: ScriptedEngine, folder: Path, *, mode: str = "legacy"
) -> AsyncIterator[Client]:
    """A client in this process; "legacy" sends each message as every released client does."""
    service = make_service(options_of(folder), engine)
    tools = Tools(service, AllowedFolders([folder]), version="1")
    service.start()
    async with Client(tools.server(), mode=mode) as client:
        yield client
    await service.stop()


def in_session(
    folder: Path, use: Callable[[Client], Awaitable[T]], engine: ScriptedEngine | None = None
) -> T:
    async def session() -> T:
        async with connected(engine or ScriptedEngine(), folder) as client:
            return await use(client)

    return asyncio.run(asyncio.wait_for(session(), PATIENCE_S))


def call(folder: Path, tool: str, engine: ScriptedEngine | None = None, /, **values: Any) -> str:
    """Call a tool that fails, and return the text of its error."""

    async def use(client: Client) -> CallToolResult:
        return await client.call_tool(tool, values)

    result = in_session(folder, use, engine)
    assert result.is_error
    return text_of(result)


def test_a_client_asks_the_demo_model_over_standard_input_and_output() -> None:
    pictures = PICTURES[0].path.parent
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "cogvlm2_lite", *documented_arguments({MODEL: "demo", FOLDER: str(pictures)})],
        env={name: os.environ[name] for name in os.environ if name.startswith("COGVLM2")},
        cwd=Path(__file__).parents[2],
    )

    async def session() -> None:
        async with Client(server) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(tools) == {"ask_picture", "extract", "list_pictures"}
            for tool in tools.values():
                jsonschema.Draft202012Validator.check_schema(tool.input_schema)
                assert str(pictures) in (tool.description or "")
            found = await client.call_tool("list_pictures", {})
            assert str(PICTURES[0].path) in found.structured_content["pictures"]
            for sample in PICTURES[:2]:
                first, again = Shown(), Shown()
                for shown, asked in zip((first, again), sample.questions, strict=False):
                    values = {"path": sample.path.name, "question": asked.question}
                    answer = await client.call_tool(
                        "ask_picture", values, progress_callback=collector(shown)
                    )
                    assert text_of(answer) == asked.answer
                assert "Encoding the picture" in {message for _, _, message in first}
                assert "Encoding the picture" not in {message for _, _, message in again}
            read = await client.call_tool("extract", {"path": "chart.png", "schema": SCHEMA})
            jsonschema.validate(read.structured_content["value"], SCHEMA)
            cut = {"path": "chart.png", "schema": SCHEMA, "max_tokens": 1}
            assert "Use a larger max_tokens" in text_of(await client.call_tool("extract", cut))
            bad = {"path": "chart.png", "schema": {"type": "nothing"}}
            assert "JSON schema can't be used" in text_of(await client.call_tool("extract", bad))

    asyncio.run(asyncio.wait_for(session(), PATIENCE_S))


def test_pictures_are_listed_and_found_by_every_form_of_their_path(folder: Path) -> None:
    engine = ScriptedEngine()

    async def use(client: Client) -> None:
        found = (await client.call_tool("list_pictures", {})).structured_content
        both = [str(folder / "a.png"), str(folder / "sub" / "b.PNG")]
        assert found == {"folders": [str(folder)], "pictures": both, "total": 2}
        few = (await client.call_tool("list_pictures", {"limit": 1})).structured_content
        assert (few["pictures"], few["total"]) == (both[:1], 2)
        sub = await client.call_tool("list_pictures", {"folder": "sub", "contains": "B.p"})
        assert sub.structured_content["pictures"] == both[1:]
        for path in (*both, "a.png", "sub/b.PNG", "sub/../a.png", (folder / "a.png").as_uri()):
            asked = await client.call_tool("ask_picture", {"path": path, "question": "red bus"})
            assert text_of(asked) == "red bus"

    in_session(folder, use, engine)
    assert {ask.image for ask in engine.asked} == {PICTURES[0].path.read_bytes()}


@pytest.mark.parametrize(
    "path",
    ["../outside.png", "/etc/passwd", "link.png", "linked/outside.png", "a.png\0", "~/x.png"],
)
def test_nothing_outside_the_folders_is_opened(folder: Path, path: str) -> None:
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    (folder / "linked").symlink_to(folder.parent)
    text = call(folder, "ask_picture", path=path, question="?")
    assert "is outside the folders that may be used" in text
    assert str(folder) in text


def test_links_that_lead_outside_are_not_listed(folder: Path) -> None:
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    (folder / "same.png").symlink_to(folder / "a.png")
    names = {Path(path).name for path in AllowedFolders([folder]).pictures(None, most=9).paths}
    assert names == {"a.png", "b.PNG", "same.png"}


def test_a_name_that_is_not_utf8_is_listed_so_that_it_can_be_asked_about(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    (folder / name).write_bytes(PICTURES[0].path.read_bytes())
    folders = AllowedFolders([folder])
    (shown,) = (path for path in folders.pictures(None, most=9).paths if "caf" in path)
    assert shown.endswith("caf\\xe9.png")
    assert folders.read(shown) == PICTURES[0].path.read_bytes()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"path": "missing.png"}, "There is no file 'missing.png'"),
        ({"path": "sub"}, "sub is a folder, not a picture"),
        ({"question": "?"}, "missing required field `path`"),
        ({"path": "a.png", "colour": "red"}, "unknown field `colour`"),
        ({"path": "a.png", "max_tokens": 0}, "max_tokens"),
        ({"path": "a.png", "question": 7}, "question"),
    ],
)
def test_wrong_arguments_are_errors_that_a_model_can_read(
    folder: Path, values: dict[str, Any], reason: str
) -> None:
    assert reason in call(folder, "ask_picture", **values)


def test_an_unknown_tool_is_an_error_of_the_protocol(folder: Path) -> None:
    async def use(client: Client) -> None:
        with pytest.raises(MCPError, match="There is no tool 'draw'"):
            await client.call_tool("draw", {})

    in_session(folder, use)


def test_an_error_of_the_engine_is_the_result_of_the_call(folder: Path) -> None:
    engine = ScriptedEngine(error=ImageError("The picture is damaged.", hint="Use another."))
    text = call(folder, "ask_picture", engine, path="a.png")
    assert text == "The picture is damaged. Use another."


def test_a_folder_without_pictures_says_what_was_looked_for(tmp_path: Path) -> None:
    assert "has no pictures (" in call(tmp_path, "list_pictures")


def test_a_schema_may_be_written_as_a_text(folder: Path) -> None:
    engine = ScriptedEngine()

    async def use(client: Client) -> CallToolResult:
        values = {"path": "a.png", "schema": json.dumps(SCHEMA), "question": "Read it."}
        return await client.call_tool("extract", values)

    assert "The answer can't be read as JSON" in text_of(in_session(folder, use, engine))
    (ask,) = engine.asked
    assert json.loads(ask.sampling.json_schema) == SCHEMA
    assert ask.question.startswith("Read it.\n\nAnswer with JSON")


class CountingEngine(ScriptedEngine):
    """Answers {"count": 2}, and keeps the schema that it got."""

    def submit(self, ask: Ask, deliver: Callable[[Outcome], None]) -> int:
        self.schema: dict[str, Any] = json.loads(ask.sampling.json_schema)
        return super().submit(structs.replace(ask, question='{"count": 2}'), deliver)


def test_a_value_has_only_what_its_schema_lists(folder: Path) -> None:
    engine = CountingEngine()
    schema = {
        "type": "object",
        "properties": {"count": {"type": "integer"}},
        "required": ["count"],
        "not": {"required": ["kind"]},
    }

    async def use(client: Client) -> CallToolResult:
        return await client.call_tool("extract", {"path": "a.png", "schema": schema})

    result = in_session(folder, use, engine)
    assert result.structured_content is not None
    assert result.structured_content["value"] == {"count": 2}
    notices = ["The value may not match these keywords of the schema: not"]
    assert result.structured_content["notices"] == notices
    assert engine.schema["additionalProperties"] is False
    assert engine.schema["properties"]["count"]["maximum"] == 2**53 - 1
    assert "not" not in engine.schema


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 5000])
def test_a_number_that_json_readers_can_not_hold_is_an_error(number: str) -> None:
    ask = Ask(request=1, question=f'{{"count": {number}}}')
    with pytest.raises(EngineError, match="can't be read as JSON"):
        read_value(finished(ask))
    assert read_value(finished(Ask(request=1, question='{"count": 1.5}'))) == {"count": 1.5}


def test_progress_only_increases_and_notices_come_with_the_answer(folder: Path) -> None:
    engine, shown = ScriptedEngine(), Shown()
    engine.extra = [PictureOpened(page=2, pages=3, notices=(Text("It has 3 pages."),))]
    engine.extra += [Progress(phase="encode", done=done, total=2) for done in (1, 2)]
    engine.extra += [Progress(phase="prefill", done=done, total=3) for done in (1, 2, 3)]
    engine.extra += [Progress(phase="decode", done=done, total=32) for done in (8, 16)]

    async def use(client: Client) -> CallToolResult:
        values = {"path": "a.png", "question": "a bus", "page": 2}
        report = collector(shown)
        return await client.call_tool("ask_picture", values, progress_callback=report)

    answer = in_session(folder, use, engine)
    assert text_of(answer) == "a bus\nIt has 3 pages."
    assert (answer.structured_content["page"], answer.structured_content["pages"]) == (2, 3)
    assert shown[:5] == [
        (1, 2, "Encoding the picture"),
        (2, 2, "Encoding the picture"),
        (3, 5, "Computing the prompt"),
        (4, 5, "Computing the prompt"),
        (5, 5, "Computing the prompt"),
    ]
    assert [done for done, _, _ in shown] == sorted({done for done, _, _ in shown})


def test_a_cancelled_call_stops_the_answer(folder: Path) -> None:
    engine = ScriptedEngine()

    async def use(client: Client) -> str:
        values = {"path": "a.png", "question": "please wait"}
        task = asyncio.create_task(client.call_tool("ask_picture", values))
        assert await asyncio.to_thread(engine.begun.wait, PATIENCE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(engine.over.wait, PATIENCE_S)
        return text_of(await client.call_tool("ask_picture", {**values, "question": "red bus"}))

    assert in_session(folder, use, engine) == "red bus"


def test_a_follow_up_question_has_the_earlier_ones(folder: Path) -> None:
    engine = ScriptedEngine()

    async def use(client: Client) -> CallToolResult:
        [tool] = [t for t in (await client.list_tools()).tools if t.name == "ask_picture"]
        turn = tool.input_schema["properties"]["history"]["items"]
        assert set(turn["properties"]) == {"question", "answer"}
        history = [{"question": "What is it?", "answer": "A bus."}]
        values = {"path": "a.png", "question": "Its color?", "history": history}
        await client.call_tool("ask_picture", values)
        engine.extra = [TurnsDropped(count=1)]
        return await client.call_tool("ask_picture", values)

    result = in_session(folder, use, engine)
    assert [ask.history for ask in engine.asked] == [(("What is it?", "A bus."),)] * 2
    [notice] = result.structured_content["notices"]
    assert "oldest" in notice
    wrong = call(folder, "ask_picture", path="a.png", history=[{"question": "x"}])
    assert "missing required field `answer`" in wrong


def test_calls_are_answered_at_once_with_parallel(folder: Path) -> None:
    engine = ScriptedEngine(parallel=2)

    async def use(client: Client) -> list[str]:
        values = {"path": "a.png", "question": "one wait"}
        first = asyncio.create_task(client.call_tool("ask_picture", values))
        assert await asyncio.to_thread(engine.begun.wait, PATIENCE_S)
        second = await client.call_tool("ask_picture", {**values, "question": "two"})
        assert not first.done()
        engine.go.set()
        return [text_of(second), text_of(await first)]

    assert in_session(folder, use, engine) == ["two", "one wait"]


class OpeningEngine(ScriptedEngine):
    """Opens the pictures, as the real engine does."""

    def submit(self, ask: Ask, deliver: Callable[[Outcome], None]) -> int:
        try:
            open_image(ask.image or b"", page=ask.page, limits=ImageLimits(max_pixels=1000))
        except ImageError as error:
            deliver(error)
            return ask.request
        return super().submit(ask, deliver)


def test_pictures_that_are_too_large_are_errors(folder: Path) -> None:
    with (folder / "huge.png").open("wb") as file:
        file.truncate(513 * 2**20)  # a hole, which takes no space
    assert "huge.png" in (text := call(folder, "ask_picture", path="huge.png"))
    assert "MiB" in text
    assert "million pixels" in call(folder, "ask_picture", OpeningEngine(), path="a.png")


@pytest.mark.parametrize("name", ["..", "/etc", "sub/../..", "nothing"])
def test_folders_outside_are_not_listed(folder: Path, name: str) -> None:
    text = call(folder, "list_pictures", folder=name)
    assert "is outside the folders" in text or "There is no file 'nothing'" in text


def test_a_client_connects_while_the_model_is_loading(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cogvlm2_lite.mcp_server.progress.SILENT_S", 0.05)
    engine, shown = ScriptedEngine(loads=False), Shown()
    told = asyncio.Event()

    async def show(progress: float, total: float | None, message: str | None) -> None:
        shown.append((progress, total, message))
        told.set()

    async def use(client: Client) -> str:
        values = {"path": "a.png", "question": "red bus"}
        call = client.call_tool("ask_picture", values, progress_callback=show)
        task = asyncio.create_task(call)
        await told.wait()
        engine.load()
        return text_of(await task)

    assert in_session(folder, use, engine) == "red bus"
    assert shown[0][2] == "Waiting for the model"


def test_a_model_that_can_not_be_loaded_is_named_in_each_call(folder: Path) -> None:
    engine = ScriptedEngine(loads=False)

    async def use(client: Client) -> list[str]:
        call = client.call_tool("ask_picture", {"path": "a.png"})
        task = asyncio.create_task(call)
        await client.list_tools()  # answered after the call before it was read
        engine.state, engine.reason = EngineState.EMPTY, "A file is missing."
        engine.on_news(LoadFailed(kind="CheckpointError", message=Text("x"), hint=Text()))
        return [
            text_of(await task),
            text_of(await client.call_tool("ask_picture", {"path": "a.png"})),
        ]

    assert in_session(folder, use, engine) == ["A file is missing."] * 2


@contextmanager
def served(folder: Path, **others: Any) -> Iterator[str]:
    """Run an HTTP server in a thread, and yield its address."""
    server = HttpServer(options_of(folder, **others), ScriptedEngine())
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server.address
    finally:
        server.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_asks_over_http(folder: Path, mode: str) -> None:
    async def session(address: str) -> str:
        async with Client(address, mode=mode) as client:
            values = {"path": "a.png", "question": "red bus"}
            return text_of(await client.call_tool("ask_picture", values))

    with served(folder) as address:
        assert asyncio.run(asyncio.wait_for(session(address), PATIENCE_S)) == "red bus"


def test_http_checks_host_origin_and_key_as_the_server_does(folder: Path) -> None:
    key = "0123456789abcdef"
    headers = {"Authorization": f"Bearer {key}"}

    async def session(address: str) -> int:
        async with (
            httpx2.AsyncClient(headers=headers) as http,
            Client(streamable_http_client(address, http_client=http)) as client,
        ):
            return len((await client.list_tools()).tools)

    with served(folder, access=Access(key=key)) as address:
        assert asyncio.run(asyncio.wait_for(session(address), PATIENCE_S)) == 3
        for status, wrong in (
            (401, {"Authorization": "Bearer wrong"}),
            (403, {**headers, "Host": "evil.example"}),
            (403, {**headers, "Origin": "http://evil.example"}),
        ):
            assert httpx.post(address, headers=wrong, json={}).status_code == status


def test_pages_of_allowed_origins_can_use_the_tools(folder: Path) -> None:
    origin = "http://localhost:6274"
    headers = {"Origin": origin}

    async def session(address: str) -> int:
        async with (
            httpx2.AsyncClient(headers=headers) as http,
            Client(streamable_http_client(address, http_client=http)) as client,
        ):
            return len((await client.list_tools()).tools)

    with served(folder, access=Access(origins=(origin,))) as address:
        assert asyncio.run(asyncio.wait_for(session(address), PATIENCE_S)) == 3
        asked = {"access-control-request-headers": "content-type, mcp-session-id"}
        preflight = httpx.options(address, headers={**headers, **asked})
        allowed = preflight.headers
        assert preflight.status_code == 204
        assert allowed["access-control-allow-origin"] == origin
        assert allowed["access-control-allow-headers"] == asked["access-control-request-headers"]
        assert "DELETE" in allowed["access-control-allow-methods"]
        assert "mcp-session-id" in allowed["access-control-expose-headers"]
        assert httpx.post(address, headers={"Origin": "http://x.example"}).status_code == 403


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["demo"], "No folder is named"),
        (["demo", "--folder", ".", "--allow-origin", "http://x.example"], "are for --http"),
        (["demo", "--folder", ".", "--http", "--allow-origin", "x.example"], "is not an origin"),
        (["demo", "--folder", ".", "--parallel", "0"], "parallel"),
        (["demo", "--folder", "/nowhere"], "There is no folder /nowhere"),
        (["demo", "--folder", ".", "--port", "1"], "are for --http"),
        (["demo", "--folder", ".", "--http", "--port", "70000"], "between 0 and 65535"),
        (["/nowhere", "--folder", "."], "/nowhere"),
    ],
)
def test_wrong_options_are_refused_before_the_model_is_loaded(argv: list[str], reason: str) -> None:
    with pytest.raises(CogVLM2LiteError, match=reason) as raised:
        main(argv)
    assert raised.value.exit_code == UsageError.exit_code
