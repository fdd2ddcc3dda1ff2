"""The texts that the chat page sends to be parsed; cogvlm2_lite/markdown.py parses them."""

from __future__ import annotations

from typing import Any

from cogvlm2_lite.markdown import Node, parse
from cogvlm2_lite.server.api_errors import ApiError
from cogvlm2_lite.server.bodies import MarkdownRequest
from cogvlm2_lite.server.validation import read_body
from cogvlm2_lite.text import Text

__all__ = ["MOST_LETTERS", "Node", "parse", "read_texts"]

MOST_LETTERS = 40_000


def read_texts(values: dict[str, Any]) -> list[str]:
    """Return the texts in the body of /page/markdown. Raises ApiError for an invalid body."""
    texts = read_body(values, MarkdownRequest).texts
    if sum(map(len, texts)) > MOST_LETTERS:
        raise ApiError(
            413, Text("The texts have more than {most} characters.", most=MOST_LETTERS), "too_large"
        )
    return texts
