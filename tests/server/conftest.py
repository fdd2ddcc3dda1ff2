"""A server over a scripted engine, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from cogvlm2_lite.server.run import LocalServer
from tests.helpers.chat_client import client_of
from tests.helpers.scripted_server import ScriptedEngine, running


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture(scope="module")
def server(engine: ScriptedEngine) -> Iterator[LocalServer]:
    with running(engine) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: LocalServer) -> Iterator[httpx.Client]:
    with client_of(server) as client:
        yield client
