"""Measure the server's own time: its share of a request, JSON answers, Markdown.

    python -m benchmarks.server

The engine of the first rows is scripted and answers immediately, so the time is that of the server
and the client. Writes benchmarks/results/server.json; docs/server.md quotes its numbers.
"""

from __future__ import annotations

import base64
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import torch

from cogvlm2_lite.engine.choose import TokenChooser
from cogvlm2_lite.engine.json_text import JsonGrammar
from cogvlm2_lite.sampling import Sampling
from cogvlm2_lite.server.markdown import parse
from cogvlm2_lite.units import MIB
from tests.helpers.scripted_server import running

RESULTS = Path(__file__).parent / "results" / "server.json"
VOCABULARY = 128_256
ANSWER = (
    "The sign says **ROAD**.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n1. one `x`\n2. two\n\n"
    "```python\nprint(1)\n```\n\n"
)


class RandomTokenizer:
    """As many tokens as the released model has: all bytes, and random words."""

    def __init__(self) -> None:
        chance = random.Random(0)
        letters = "abcdefghijklmnopqrstuvwxyz"
        words = (
            "".join(chance.choices(letters, k=chance.randint(2, 8))) for _ in range(VOCABULARY)
        )
        spaced = (word if chance.random() < 0.5 else f" {word}" for word in words)
        self._tokens = [*(bytes([byte]) for byte in range(256)), *(w.encode() for w in spaced)]

    @property
    def vocab_size(self) -> int:
        """Number of tokens, with one that ends an answer."""
        return VOCABULARY + 1

    def token_bytes(self, token: int) -> bytes:
        """Return a token's bytes."""
        return self._tokens[token] if token < VOCABULARY else b""

    def encode(self, text: str) -> list[int]:
        """Return the tokens of single bytes."""
        return list(text.encode())


def milliseconds(work: Callable[[], object], times: int) -> float:
    """Return the median time of several runs."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(1e3 * (time.perf_counter() - began))
    return round(statistics.median(taken), 2)


def measure_requests() -> dict[str, float]:
    """Return the times of whole requests, which take the engine no time."""
    chat: dict[str, Any] = {"messages": [{"role": "user", "content": "hello there"}]}
    url = "data:image/png;base64," + base64.b64encode(bytes(10 * MIB)).decode()
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "hello"}]
    large = {"messages": [{"role": "user", "content": parts}]}
    with running() as server, httpx.Client(base_url=server.address) as client:

        def post(path: str, body: object) -> Callable[[], object]:
            return lambda: client.post(path, json=body).raise_for_status()

        client.get("/health")
        return {
            "chat_ms": milliseconds(post("/v1/chat/completions", chat), 300),
            "stream_ms": milliseconds(post("/v1/chat/completions", {**chat, "stream": True}), 300),
            "responses_ms": milliseconds(post("/v1/responses", {"input": "hello there"}), 300),
            "picture_10mib_ms": milliseconds(post("/v1/chat/completions", large), 15),
        }


def measure_json() -> dict[str, float]:
    """Return the times of choosing one token from random logits, with and without a grammar."""
    tokenizer: Any = RandomTokenizer()
    scores = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(0)) * 3
    worst = scores.clone()
    worst[ord(":")] = -100.0
    found = {}
    grammar = JsonGrammar(tokenizer, [VOCABULARY])
    for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        chooser = TokenChooser(Sampling(temperature=temperature, seed=1), [], torch.device("cpu"))
        in_string, before_colon = (grammar.begin() for _ in "ab")
        for byte in b'{"a':
            in_string.push(byte)
        for byte in b'{"a"':
            before_colon.push(byte)
        rows: dict[str, Callable[[], object]] = {
            "free": lambda c=chooser: c.choose(scores),  # type: ignore[misc]
            "in_string": lambda c=chooser, a=in_string: c.choose(scores, a.allowed(len(scores))),  # type: ignore[misc]
            "worst": lambda c=chooser, a=before_colon: c.choose(worst, a.allowed(len(scores))),  # type: ignore[misc]
        }
        found |= {f"{name}_{row}_ms": milliseconds(work, 30) for row, work in rows.items()}
    return found


def main() -> None:
    """Measure and write the result."""
    torch.set_num_threads(1)
    answer = (ANSWER * 80)[:8000]
    results = {
        "requests": measure_requests(),
        "json": measure_json(),
        "markdown_8000_letters_ms": milliseconds(lambda: parse(answer), 30),
    }
    # benchmarks/schema_mask.py writes a part of its own.
    results = json.loads(RESULTS.read_text(encoding="utf-8")) | results
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
