"""The messages of a conversation: turns, a question and at most one picture."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Set
from dataclasses import dataclass

from cogvlm2_lite.server.api_errors import ApiError
from cogvlm2_lite.server.fields import refuse, shown
from cogvlm2_lite.server.limits import Limits
from cogvlm2_lite.units import format_bytes

_DATA_URL = re.compile(r"data:image/[a-zA-Z0-9.+-]{1,40}((?:;[a-zA-Z0-9=._-]{1,60}){0,4});base64,")
MAX_MESSAGES = 2000
LONGEST_URL = 4000
DETAILS = (None, "auto", "low", "high", "original")  # looked at in one size, whatever is asked


@dataclass(frozen=True, kw_only=True)
class Form:
    """What an API calls the parts of a conversation.

    name    the field that holds the messages
    texts   types of parts that are text
    image   the type of a part that is a picture
    fields  of a message; what the model has no use for is ignored
    """

    name: str
    texts: tuple[str, ...]
    image: str
    fields: Set[str]


CHAT = Form(
    name="messages",
    texts=("text",),
    image="image_url",
    fields={"role", "content", "name", "refusal", "tool_calls", "audio"},
)
RESPONSES = Form(
    name="input",
    texts=("input_text", "output_text"),
    image="input_image",
    fields={"type", "role", "content", "id", "status", "phase"},
)


class Messages:
    """Collects messages into finished turns, the question and the conversation's picture."""

    def __init__(self, limits: Limits, form: Form = CHAT) -> None:
        self._limits = limits
        self._form = form
        self._digest = ""
        self._asked: list[str] = []
        self._said: list[str] | None = None
        self.turns: list[tuple[str, str]] = []
        self.picture: bytes | None = None
        self.picture_url = ""

    @classmethod
    def of(cls, question: str) -> Messages:
        """Give a talk that is one bare question."""
        talk = cls(Limits())
        talk._ask(question)
        return talk

    @property
    def question(self) -> str:
        return "\n".join(self._asked)

    def instruct(self, text: str) -> None:
        """Put words before the first question, which is where a system message goes, too."""
        self._ask(text)

    def read(self, messages: object) -> None:
        """Read all messages. The last one must be the user's."""
        name = self._form.name
        if not isinstance(messages, list) or not messages:
            refuse(name, "must be a list of at least one message")
        if len(messages) > MAX_MESSAGES:
            refuse(name, f"has {len(messages)} messages, more than {MAX_MESSAGES}")
        last = ""
        for index, message in enumerate(messages):
            last = self._message(message, f"{name}[{index}]")
        if last != "user":
            refuse(name, "must end with a message of the user, the question")
        if not self.question.strip():
            refuse(name, "ends with a question that is empty")

    def _message(self, message: object, where: str) -> str:
        if not isinstance(message, dict):
            refuse(where, "must be an object with role and content")
        if message.get("type") not in (None, "message"):
            refuse(f"{where}.type", f"must be message, not {shown(message['type'])}")
        if unknown := set(message) - self._form.fields:
            refuse(where, f"has an unknown field {shown(min(unknown))}")
        if message.get("tool_calls") not in (None, []):
            refuse(where, "has tool calls, which the model does not know", "unsupported_value")
        role = message.get("role")
        content = message.get("content")
        if role in ("system", "developer"):
            # The model has no system role: the words stand before the question that follows.
            self._ask(self._plain(content, where))
        elif role == "user":
            self._ask(self._parts(content, where))
        elif role == "assistant":
            self._say("" if content is None else self._plain(content, where), where)
        else:
            refuse(f"{where}.role", f"must be system, user or assistant, not {shown(role)}")
        return "user" if role == "user" else "other"

    def _ask(self, text: str) -> None:
        if self._said is not None:
            self.turns.append((self.question, "\n".join(self._said)))
            self._asked, self._said = [], None
        self._asked.append(text)

    def _say(self, text: str, where: str) -> None:
        if not self._asked:
            refuse(where, "is an answer, and no question stands before it")
        self._said = [*(self._said or ()), text]

    def _plain(self, content: object, where: str) -> str:
        if isinstance(content, list):
            texts = [self._part(part, f"{where}.content[{i}]") for i, part in enumerate(content)]
            if None in texts:
                refuse(where, "has a picture; only messages of the user may have one")
            return "".join(text for text in texts if text)
        if not isinstance(content, str):
            refuse(f"{where}.content", "must be a text")
        return content

    def _parts(self, content: object, where: str) -> str:
        if isinstance(content, str):
            return content
        if not isinstance(content, list) or not content:
            refuse(f"{where}.content", "must be a text or a list of parts")
        texts = []
        for index, part in enumerate(content):
            at = f"{where}.content[{index}]"
            text = self._part(part, at)
            if text is None:
                self._take(_picture(part["image_url"], f"{at}.image_url", self._limits))
            else:
                texts.append(text)
        return "\n".join(texts)

    def _part(self, part: object, where: str) -> str | None:
        """Give a part's text; None for a picture."""
        if not isinstance(part, dict):
            refuse(where, "must be an object with a type")
        kind, form = part.get("type"), self._form
        if kind == form.image:
            if part.get("image_url") is None:
                refuse(f"{where}.image_url", "is missing")
            if part.get("detail") not in DETAILS:
                refuse(f"{where}.detail", f"must be auto, low or high, not {shown(part['detail'])}")
            return None
        if kind not in form.texts:
            words = " or ".join((*form.texts, form.image))
            refuse(f"{where}.type", f"must be {words}, not {shown(kind)}")
        if not isinstance(part.get("text"), str):
            refuse(f"{where}.text", "must be a text")
        return str(part["text"])

    def _take(self, picture: bytes | str) -> None:
        """Take the file, or the address, of the conversation's picture."""
        data = picture if isinstance(picture, bytes) else picture.encode(errors="replace")
        digest = hashlib.sha256(data).hexdigest()
        if self._digest and digest != self._digest:
            refuse(
                self._form.name,
                "hold two different pictures, and the model takes one per conversation: ask about "
                "each in a conversation of its own",
                "too_many_images",
            )
        self._digest = digest
        if isinstance(picture, bytes):
            self.picture = picture
        else:
            self.picture_url = picture


def _picture(value: object, where: str, limits: Limits) -> bytes | str:
    """Read the bytes of a `data:` address; gives one of the web, where such are allowed, as it is.

    Nothing is opened here.
    """
    if isinstance(value, dict):
        unknown = set(value) - {"url", "detail"}
        if unknown:
            refuse(where, f"has an unknown field {shown(min(unknown))}")
        if value.get("detail") not in DETAILS:
            refuse(f"{where}.detail", f"must be auto, low or high, not {shown(value['detail'])}")
        value = value.get("url")
    if not isinstance(value, str):
        refuse(where, "must be an address, or an object with a url")
    if limits.remote_images and value.lower().startswith(("http://", "https://")):
        if len(value) > LONGEST_URL:
            refuse(where, f"has more than {LONGEST_URL} letters", "invalid_image_url")
        return value
    head = _DATA_URL.match(value)
    if head is None and limits.remote_images:
        refuse(where, "must begin with data:image/...;base64, or https://", "invalid_image_url")
    if head is None:
        refuse(
            where,
            "must begin with data:image/...;base64, - this server opens neither web addresses nor "
            "files",
            "invalid_image_url",
        )
    length = (len(value) - head.end()) * 3 // 4
    if length > limits.picture_bytes:
        most = format_bytes(limits.picture_bytes)
        raise ApiError(
            413, f"The picture has {format_bytes(length)}, more than {most}.",
            "image_too_large", where,
        )  # fmt: skip
    try:
        picture = base64.b64decode(value[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        refuse(where, "holds no valid base64 after the comma", "invalid_base64")
    if not picture:
        refuse(where, "holds no bytes after the comma", "invalid_image")
    return picture
