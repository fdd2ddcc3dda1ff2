"""Logprobs of tokens in OpenAI's two forms: that of chats and that of completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cogvlm2_lite.events import TokenLikelihood, TokenScore


def chat_content(tokens: Sequence[TokenScore]) -> list[dict[str, Any]]:
    """Return the entries of `logprobs.content`."""
    return [
        {**_entry(score.chosen), "top_logprobs": [_entry(other) for other in score.likeliest]}
        for score in tokens
    ]


def text_lists(tokens: Sequence[TokenScore], text: str, begin: int) -> dict[str, list[Any]]:
    """Return the lists of /v1/completions.

    text   the piece of the answer that the tokens made
    begin  letters of the answer before it; `text_offset` counts from the answer's first one
    """
    offsets, before = [], b""
    for score in tokens:
        letters = len(before.decode("utf-8", errors="ignore"))
        offsets.append(begin + min(letters, max(len(text) - 1, 0)))
        before += bytes(score.chosen.data or ())
    return {
        "tokens": [_key(score.chosen) for score in tokens],
        "token_logprobs": [score.chosen.logprob for score in tokens],
        "top_logprobs": [_by_key(score.likeliest) for score in tokens],
        "text_offset": offsets,
    }


def _by_key(likeliest: Sequence[TokenLikelihood]) -> dict[str, float]:
    """Two tokens may have one text, a special one and the same word in letters: the first stays."""
    found: dict[str, float] = {}
    for one in likeliest:
        found.setdefault(_key(one), one.logprob)
    return found


def _entry(one: TokenLikelihood) -> dict[str, Any]:
    data = None if one.data is None else list(one.data)
    return {"token": one.token, "logprob": one.logprob, "bytes": data}


def _key(one: TokenLikelihood) -> str:
    """Name a token; OpenAI marks those that are no whole letters with "bytes:"."""
    whole = one.data is None or bytes(one.data) == one.token.encode(errors="replace")
    return one.token if whole else f"bytes:{one.token}"
