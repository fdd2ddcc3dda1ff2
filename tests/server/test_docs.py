"""The examples of docs/server.md, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.helpers.served import PATIENCE_S, PICTURES, Served

PAGE = (Path(__file__).parents[2] / "docs" / "server.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.stop()


def block(title: str, served: Served) -> str:
    """Return the code block below a heading, for the port of this test's server."""
    found = re.search(rf"### {title}\n+```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1].replace("http://127.0.0.1:8000", served.address)


def run(command: list[str], folder: Path) -> str:
    shutil.copy(PICTURES["sign"], folder / "sign.png")
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
        env=os.environ | {"NO_PROXY": "*"},
    )
    return done.stdout


def test_the_figures_are_those_that_were_measured() -> None:
    results = Path(__file__).parents[2] / "benchmarks" / "results" / "server.json"
    for group in json.loads(results.read_text()).values():
        for figure in group.values() if isinstance(group, dict) else [group]:
            assert f"{figure} ms" in PAGE


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("bash")), reason="no curl here")
def test_the_example_for_curl(served: Served, tmp_path: Path) -> None:
    assert '"content":"ROAD"' in run(["bash", "-c", block("curl", served)], tmp_path)


def test_the_example_for_the_openai_package(served: Served, tmp_path: Path) -> None:
    code = block("The `openai` package", served)
    assert run([sys.executable, "-c", code], tmp_path).strip() == "ROAD"


def test_the_example_for_langchain(served: Served, tmp_path: Path) -> None:
    pytest.importorskip("langchain_openai")
    road, sign = run([sys.executable, "-c", block("LangChain", served)], tmp_path).splitlines()
    assert (road, sign) == ("ROAD", "color='green'")


OLLAMA_ADDRESS = "http://127.0.0.1:11434"


def test_the_examples_for_ollama(served: Served, tmp_path: Path) -> None:
    section = re.search(r"### Programs for Ollama\n(.*?)\n## ", PAGE, re.DOTALL)
    assert section is not None
    start, curl, python = re.findall(r"```\w+\n(.*?)```", section[1], re.DOTALL)
    assert start.endswith("serve my-model --port 11434\n")
    code = python.replace(OLLAMA_ADDRESS, served.address)
    assert run([sys.executable, "-c", code], tmp_path).strip() == "ROAD"
    if shutil.which("curl") and shutil.which("bash"):
        command = curl.replace(OLLAMA_ADDRESS, served.address)
        assert '"response":"ROAD"' in run(["bash", "-c", command], tmp_path)


def test_what_open_webui_sends_is_understood(served: Served) -> None:
    with httpx.Client(
        base_url=f"{served.address}/v1",
        headers={"authorization": "Bearer none"},
        timeout=PATIENCE_S,
    ) as http:
        [model] = http.get("/models").json()["data"]
        talk = [{"role": "user", "content": "Hello"}]
        body = {"stream": True, "model": model["id"], "messages": talk, "max_tokens": 3}
        reply = http.post("/chat/completions", json=body)
        assert reply.status_code == 200
        assert reply.text.endswith("data: [DONE]\n\n")
        titles = {"model": model["id"], "messages": talk, "stream": False, "max_tokens": 3}
        assert http.post("/chat/completions", json=titles).status_code == 200
