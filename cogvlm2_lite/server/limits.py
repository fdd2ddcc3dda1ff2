"""Limits of requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cogvlm2_lite.units import MIB


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one request.

    A picture file may be as large as a camera with 200 megapixels writes it, and base64 adds a
    third. `held_bytes` bounds the memory of all requests, whatever their sizes.

    body_bytes      of the whole request, including the picture as base64
    held_bytes      of all requests together that are being read, waiting or being answered
    text_letters    of a conversation: more than fits into any context, but quick to check
    picture_bytes   of the picture's file
    answer_tokens   of one answer
    answer_s        of one answer, from its start
    body_s          for a request to arrive
    header_s        for the header of a request to arrive, and for the next request of a connection
    stalled_s       for a client to read what was sent
    idle_connections  connections without a request; another one closes the oldest of them
    status_s        for an error to have its own HTTP status in a stream that does not wait; then
                    the stream begins
    comment_s       between the comments of a stream
    remote_images   pictures may be web addresses (remote.py); otherwise none is ever opened
    remote_s        for such a picture to arrive
    strict          reject fields, values and conversations that OpenAI's API or this server lacks;
                    otherwise tolerance.py rewrites them first
    pictures        of several different pictures in a conversation, "newest" uses the newest one,
                    "sheet" puts the newest nine on one sheet, "refuse" is an error; with `strict`
                    they are always an error
    """

    body_bytes: int = 132 * MIB
    held_bytes: int = 512 * MIB
    text_letters: int = 400_000
    picture_bytes: int = 96 * MIB
    answer_tokens: int = 8192
    answer_s: float = 1800.0
    body_s: float = 60.0
    header_s: float = 15.0
    stalled_s: float = 60.0
    idle_connections: int = 128
    status_s: float = 2.0
    comment_s: float = 10.0
    remote_images: bool = False
    remote_s: float = 20.0
    strict: bool = False
    pictures: Literal["newest", "sheet", "refuse"] = "newest"
