"""Measure what an answer in JSON costs per token, with the vocabulary of the released model.

    pip install --no-deps llama-models tiktoken
    python -m benchmarks.schema_mask

CogVLM2 has the vocabulary of Llama 3, 128,256 tokens; the package llama-models contains it. Nothing
of it is copied. Each token of an answer is timed as the engine computes it: the mask, the choice
among the allowed tokens compared with a free choice, and adding the token. Updates "schema" in
benchmarks/results/server.json; docs/server.md quotes its numbers.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.server import RESULTS
from cogvlm2_lite.engine.choose import TokenChooser
from cogvlm2_lite.engine.json_text import JsonGrammar
from cogvlm2_lite.sampling import Sampling

ROUNDS = 40
SPECIAL_TOKENS = 256
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3 splits a text into words."""

_SIGN = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "maxLength": 200},
        "color": {"enum": ["red", "blue", "yellow", "white"]},
        "height_m": {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]},
    },
    "required": ["text", "color", "height_m"],
    "additionalProperties": False,
}
_SCENE = {
    "$defs": {"Sign": _SIGN},
    "type": "object",
    "properties": {
        "signs": {"type": "array", "items": {"$ref": "#/$defs/Sign"}, "maxItems": 8},
        "plate": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{2}$"},
        "date": {"type": "string", "format": "date"},
        "people": {"type": "integer", "minimum": 0, "maximum": 999},
        "description": {"type": "string"},
    },
    "required": ["signs", "plate", "date", "people", "description"],
    "additionalProperties": False,
}
_ANSWER = {
    "signs": [
        {"text": "SCHOOL ROAD, slow down", "color": "yellow", "height_m": 2.25},
        {"text": "Straße 北京路", "color": "blue", "height_m": None},
    ],
    "plate": "AB12",
    "date": "2024-05-17",
    "people": 12,
    "description": 'Children cross the road in front of a "red" bus, and a car waits behind it.',
}


class LlamaTokenizer:
    """The vocabulary in the installed package llama-models."""

    vocab_size = 128_256

    def __init__(self) -> None:
        import tiktoken

        spec = importlib.util.find_spec("llama_models")
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit("Install the vocabulary: pip install --no-deps llama-models tiktoken")
        path = Path(spec.submodule_search_locations[0]) / "llama3" / "tokenizer.model"
        rows = (line.split() for line in path.read_text(encoding="ascii").splitlines())
        ranks = {base64.b64decode(data): int(rank) for data, rank in rows}
        self._data = {rank: data for data, rank in ranks.items()}
        special = {f"<|special_{i}|>": len(ranks) + i for i in range(SPECIAL_TOKENS)}
        assert len(ranks) + len(special) == self.vocab_size
        self._encoding = tiktoken.Encoding(
            name="llama3", pat_str=_WORDS, mergeable_ranks=ranks, special_tokens=special
        )

    def token_bytes(self, token: int) -> bytes:
        """Return a token's bytes."""
        return self._data.get(token, b"")

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        return list(self._encoding.encode_ordinary(text))


def measure(grammar: JsonGrammar, tokens: list[int], schema: str) -> dict[str, float]:
    """Return the median times of a token of the answer, in milliseconds."""
    cpu = torch.device("cpu")
    chooser = TokenChooser(Sampling(), [], cpu)
    scores = torch.randn(LlamaTokenizer.vocab_size, generator=torch.Generator().manual_seed(0))
    masks, choices, totals = [], [], []
    for _ in range(ROUNDS):
        answer = grammar.begin(schema)
        for token in tokens:
            times = [time.perf_counter()]
            allowed = answer.allowed(len(scores))
            times.append(time.perf_counter())
            answer.push(token)
            times.append(time.perf_counter())
            chooser.choose(scores, allowed)
            times.append(time.perf_counter())
            chooser.choose(scores)
            times.append(time.perf_counter())
            mask, push, chosen, free = (1e3 * (b - a) for a, b in pairwise(times))
            masks.append(mask + push)
            choices.append(chosen - free)
            totals.append(mask + push + chosen - free)
    named = {"mask": masks, "choice": choices, "token": totals}
    return {f"{name}_ms": round(statistics.median(times), 2) for name, times in named.items()}


def count_forced(grammar: JsonGrammar, tokens: list[int], schema: str) -> int:
    """Return how many tokens of the answer are the only ones that the schema allows.

    Their choice needs no logits. A token that is not the only one may be spelled in several ways,
    `"co` + `lor"` or `"color` + `"`, and then the model's probabilities decide.
    """
    answer, forced = grammar.begin(schema), 0
    for token in tokens:
        forced += int(answer.allowed(LlamaTokenizer.vocab_size).sum()) == 1
        answer.push(token)
    return forced


def main() -> None:
    """Measure and write the result."""
    torch.set_num_threads(1)
    tokenizer: Any = LlamaTokenizer()
    grammar = JsonGrammar(tokenizer, [128_001])
    schema = json.dumps(_SCENE)
    began = time.perf_counter()
    grammar.begin(schema)
    found = {"new_schema_ms": round(1e3 * (time.perf_counter() - began), 2)}
    tokens = tokenizer.encode(json.dumps(_ANSWER, ensure_ascii=False))
    forced = count_forced(grammar, tokens, schema)
    print(f"{forced} of {len(tokens)} tokens are the only ones allowed")
    for name, form in (("schema", schema), ("object", "")):
        times = measure(grammar, tokens, form)
        found |= {f"{name}_{what}": time for what, time in times.items()}
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    RESULTS.write_text(json.dumps(results | {"schema": found}, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
