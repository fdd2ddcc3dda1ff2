"""A client of the server, and requests in OpenAI's shape."""

from __future__ import annotations

import base64
import threading
from typing import Any

import httpx

from cogvlm2_lite.server.run import LocalServer
from tests.helpers.waiting import PATIENCE_S

CHAT = "/v1/chat/completions"
KEY = "a-long-and-secret-key"
PNG = "data:image/png;base64," + base64.b64encode(b"one picture").decode()
OTHER = "data:image/webp;base64," + base64.b64encode(b"another").decode()


def client_of(server: LocalServer, **headers: str) -> httpx.Client:
    transport = httpx.HTTPTransport(retries=3)
    return httpx.Client(
        base_url=server.address, timeout=PATIENCE_S, headers=headers, transport=transport
    )


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": parts[0] if len(parts) == 1 else list(parts)}


def picture(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def ask(client: httpx.Client, words: str = "hello there", **fields: Any) -> httpx.Response:
    return client.post(CHAT, json={"messages": [user(words)], **fields})


def in_thread(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
