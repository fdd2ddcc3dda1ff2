"""Converts the messages of a request to turns, a question and its pictures."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from cogvlm2_lite.server.api_errors import ApiError
from cogvlm2_lite.server.bodies import (
    DATA_URL_HEAD,
    MAX_URL_CHARACTERS,
    AnyPart,
    ChatMessage,
    ImagePart,
    ImageUrl,
    InputImagePart,
    Item,
)
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.server.validation import reject
from cogvlm2_lite.text import Text
from cogvlm2_lite.units import format_bytes

_DATA_URL_HEAD = re.compile(DATA_URL_HEAD)
DEFAULT_QUESTION = "Describe this image."
"""The question about a picture that came without words."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of a request.

    data  the bytes of its file; None: only its address is known yet
    url   the web address from which the server has to fetch it
    page  the page or frame, from 1; None: the one that open_image chooses
    """

    data: bytes | None = field(default=None, repr=False)
    url: str = ""
    page: int | None = None


class Messages:
    """Collects finished turns, the question and the conversation's pictures.

    field  the field of the request that has the messages
    """

    def __init__(self, limits: Limits, field: str = "messages") -> None:
        self.field = field
        self._limits = limits
        self._pictures: dict[str, Picture] = {}
        self._questions: list[str] = []
        self._answers: list[str] | None = None
        self.turns: list[tuple[str, str]] = []

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The different pictures, in the order in which they came."""
        return tuple(self._pictures.values())

    @property
    def question(self) -> str:
        return "\n".join(self._questions)

    @property
    def continue_from(self) -> str:
        """The answer to continue, if the conversation ends with one."""
        return "\n".join(self._answers or ())

    def read(
        self, messages: Sequence[ChatMessage] | Sequence[Item], *, continues: bool = False
    ) -> None:
        """Read all messages.

        The last one must be the user's, or with `continues` may be an answer. A server that is not
        strict always continues an answer, takes instructions at the end for the question, and asks
        for a description of a picture that came without words. An answer to continue needs no
        question.
        """
        for index, message in enumerate(messages):
            where = f"{self.field}[{index}]"
            separator = "\n" if message.role == "user" else ""
            text = separator.join(self._texts(message.content or "", f"{where}.content"))
            if message.role == "assistant":
                self._answer(text, where)
            else:
                self.ask(text)
        continues = continues and messages[-1].role == "assistant"
        if messages[-1].role != "user" and self._limits.strict and not continues:
            reject(self.field, "{param} must end with a message of the user, the question.")
        if not self.question.strip() and self._pictures and not self._limits.strict:
            self._questions = [DEFAULT_QUESTION]
        if self.question.strip() or self._limits.strict or not self.continue_from.strip():
            self.check()
        else:
            # An answer without a question is continued; "" would only load the model.
            self._questions = [" "]

    def check(self) -> None:
        """Raise ApiError if the question is empty."""
        if not self.question.strip():
            reject(self.field, "{param} ends with an empty question.")

    def ask(self, text: str) -> None:
        """Add text to the question; after an answer, start a new turn.

        The model has no system role: instructions become part of the question that follows them.
        """
        if self._answers is not None:
            self.turns.append((self.question, "\n".join(self._answers)))
            self._questions, self._answers = [], None
        self._questions.append(text)

    def _answer(self, text: str, where: str) -> None:
        if not self._questions and self._limits.strict:
            reject(where, "{param} is an answer without a question before it.")
        self._answers = [*(self._answers or ()), text]

    def _texts(self, content: str | Sequence[AnyPart], where: str) -> list[str]:
        """Return the texts of a message's parts, and keep its pictures."""
        if isinstance(content, str):
            return [content]
        texts = []
        for index, part in enumerate(content):
            if isinstance(part, ImagePart | InputImagePart):
                picture = read_picture(part.image_url, f"{where}[{index}].image_url", self._limits)
                self._take(picture, _page(part))
            else:
                texts.append(part.text)
        return texts

    def _take(self, picture: bytes | str, page: int | None) -> None:
        """Store the file or the address of a picture, and its page."""
        data = picture if isinstance(picture, bytes) else picture.encode(errors="replace")
        digest = f"{hashlib.sha256(data).hexdigest()} {page}"
        several = self._limits.pictures == "sheet" and not self._limits.strict
        if self._pictures and digest not in self._pictures and not several:
            reject(
                self.field,
                "{param} has two different pictures, but the model takes one per conversation: ask "
                "about each in a separate conversation.",
                "too_many_images",
            )
        self._pictures[digest] = (
            Picture(data=picture, page=page)
            if isinstance(picture, bytes)
            else Picture(url=picture, page=page)
        )


def _page(part: ImagePart | InputImagePart) -> int | None:
    """Return the page that a part names, at either of the two places."""
    inner = part.image_url.page if isinstance(part.image_url, ImageUrl) else None
    return inner if part.page is None else part.page


def read_picture(value: str | ImageUrl, where: str, limits: Limits) -> bytes | str:
    """Return the bytes in a data: URL, or a web address as it is, if these are allowed.

    Nothing is opened here.
    """
    url = value if isinstance(value, str) else value.url
    if limits.remote_images and url.lower().startswith(("http://", "https://")):
        if len(url) > MAX_URL_CHARACTERS:
            reject(
                where,
                "{param} has more than {most} characters.",
                "invalid_image_url",
                most=MAX_URL_CHARACTERS,
            )
        return url
    head = _DATA_URL_HEAD.match(url)
    if head is None:
        reject(
            where,
            "{param} must begin with data:image/...;base64, or https://."
            if limits.remote_images
            else "{param} must begin with data:image/...;base64, because this server opens neither "
            "web addresses nor files.",
            "invalid_image_url",
        )
    length = (len(url) - head.end()) * 3 // 4
    if length > limits.picture_bytes:
        most = format_bytes(limits.picture_bytes)
        raise ApiError(
            413,
            Text("The picture has {size}, more than {most}.", size=format_bytes(length), most=most),
            "image_too_large",
            where,
        )  # fmt: skip
    try:
        picture = base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        reject(where, "{param} has no valid base64 after the comma.", "invalid_base64")
    if not picture:
        reject(where, "{param} has no bytes after the comma.", "invalid_image")
    return picture
