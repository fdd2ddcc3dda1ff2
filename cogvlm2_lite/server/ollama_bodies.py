"""The types of the JSON bodies of Ollama's API, requests and replies.

Ollama ignores unknown fields, so these types do as well. Null means "not given".
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from cogvlm2_lite.server.bodies import MAX_MESSAGES, Flag, Ignored, TopLogprobs
from cogvlm2_lite.server.response_bodies import (
    ChosenToken,
    Count,
    FinishReason,
    OllamaError,
    Report,
)
from cogvlm2_lite.server.validation import OpenBody, unsupported, words

Pictures = Annotated[
    list[str] | str | None,
    Meta(description="Pictures in base64; the newest one of a conversation counts."),
    words("a list of strings, each a picture in base64"),
]
Form = Annotated[
    dict[str, Any] | str | None,
    Meta(
        description='"json", or a JSON schema that the answer must match.',
        extra_json_schema={
            "anyOf": [{"type": "object"}, {"enum": ["", "json"]}, {"type": "null"}],
        },
    ),
]
KeepAlive = Annotated[
    float | str | None,
    Meta(
        description="How long the model stays in memory after the last request, in seconds or as "
        '"5m". 0: it is unloaded after the answer; negative: it always stays (default).'
    ),
]

# --- requests ------------------------------------------------------------------------------------


class OllamaMessage(OpenBody, frozen=True, kw_only=True):
    """One message of a conversation."""

    role: str
    content: str | list[Any] | None = None
    images: Pictures = None
    tool_calls: Annotated[Any, Meta(description="Past calls; they become text.")] = None
    tool_name: Annotated[str | None, Meta(description="The tool of a result.")] = None
    name: Annotated[str | None, Meta(description="An older name of `tool_name`.")] = None


class OllamaRequest(OpenBody, frozen=True, kw_only=True):
    """Fields of both requests for an answer."""

    model: Annotated[str | None, Meta(description="The name of the model; null: any.")] = None
    stream: Annotated[
        Flag, Meta(description="Send the answer as lines of JSON, as it is made (default).")
    ] = None
    options: Annotated[
        dict[str, Any] | None,
        Meta(
            description="num_predict, temperature, top_k, top_p, seed, stop, repeat_penalty, "
            "presence_penalty and frequency_penalty; others are ignored."
        ),
    ] = None
    format: Form = None
    keep_alive: KeepAlive = None
    truncate: Annotated[
        Flag, Meta(description="Leave out the oldest turns of a long conversation (default).")
    ] = None
    logprobs: Annotated[Flag, Meta(description="Return the log probability of each token.")] = None
    top_logprobs: TopLogprobs = None
    think: Ignored = None


class OllamaChatRequest(OllamaRequest, frozen=True, kw_only=True):
    """The body of /api/chat. Without messages, the model is only loaded or unloaded."""

    messages: Annotated[list[OllamaMessage], Meta(max_length=MAX_MESSAGES)] | None = None
    tools: Ignored = None


class OllamaGenerateRequest(OllamaRequest, frozen=True, kw_only=True):
    """The body of /api/generate. Without a prompt, the model is only loaded or unloaded."""

    prompt: str | None = None
    images: Pictures = None
    system: Annotated[str | None, Meta(description="Put before the prompt.")] = None
    context: Annotated[
        list[int] | None, Meta(description="From an earlier reply, to continue its conversation.")
    ] = None
    raw: Annotated[Flag, Meta(description="Use the prompt as it is, without a template.")] = None
    suffix: Annotated[Any, unsupported("")] = None
    template: Ignored = None


class OllamaModelRequest(OpenBody, frozen=True, kw_only=True):
    """The body of /api/show. `name` is the older name of `model`."""

    model: str | None = None
    name: str | None = None


class OllamaPullRequest(OllamaModelRequest, frozen=True, kw_only=True):
    """The body of /api/pull: there is nothing to download."""

    stream: Annotated[Flag, Meta(description="Send lines of JSON (default).")] = None


class OllamaEmbedRequest(OpenBody, frozen=True, kw_only=True):
    """The body of /api/embed and /api/embeddings, which this model can't answer."""

    model: str | None = None


# --- replies -------------------------------------------------------------------------------------


class OllamaMessageReply(Struct, frozen=True, kw_only=True):
    """The message of an answer, or a piece of it."""

    content: str
    role: Literal["assistant"] = "assistant"


class _Reply(Struct, frozen=True, kw_only=True):
    """Fields of a reply or of one line of it. Durations are in nanoseconds.

    The fields after `done` are only in the last line, and the durations and counts only if there
    was an answer. `cogvlm2` is not part of Ollama's API.
    """

    model: str
    created_at: str
    done: bool
    done_reason: FinishReason | Literal["load", "unload"] | msgspec.UnsetType = msgspec.UNSET
    total_duration: Count | msgspec.UnsetType = msgspec.UNSET
    load_duration: Count | msgspec.UnsetType = msgspec.UNSET
    prompt_eval_count: Count | msgspec.UnsetType = msgspec.UNSET
    prompt_eval_duration: Count | msgspec.UnsetType = msgspec.UNSET
    eval_count: Count | msgspec.UnsetType = msgspec.UNSET
    eval_duration: Count | msgspec.UnsetType = msgspec.UNSET
    logprobs: list[ChosenToken] | msgspec.UnsetType = msgspec.UNSET
    cogvlm2: Report | msgspec.UnsetType = msgspec.UNSET


class OllamaChatReply(_Reply, frozen=True, kw_only=True):
    """The reply of /api/chat, or one line of it."""

    message: OllamaMessageReply


class OllamaGenerateReply(_Reply, frozen=True, kw_only=True):
    """The reply of /api/generate, or one line of it."""

    response: str
    context: list[Count] | msgspec.UnsetType = msgspec.UNSET


class OllamaDetails(Struct, frozen=True, kw_only=True):
    """What kind of model it is."""

    quantization_level: str
    parameter_size: str = ""
    parent_model: str = ""
    format: Literal["safetensors"] = "safetensors"
    family: Literal["cogvlm2"] = "cogvlm2"
    families: list[str] = msgspec.field(default_factory=lambda: ["cogvlm2"])


class OllamaModel(Struct, frozen=True, kw_only=True):
    """The model of the folder, or that model with an adapter. size: bytes of the folder."""

    name: str
    model: str
    modified_at: str
    size: Count
    digest: str
    details: OllamaDetails


class OllamaTags(Struct, frozen=True, kw_only=True):
    """The reply of /api/tags."""

    models: list[OllamaModel]


class OllamaLoadedModel(Struct, frozen=True, kw_only=True):
    """The model while it is in memory."""

    name: str
    model: str
    size: Count
    digest: str
    details: OllamaDetails
    expires_at: str
    size_vram: Count
    context_length: Count


class OllamaLoadedModels(Struct, frozen=True, kw_only=True):
    """The reply of /api/ps."""

    models: list[OllamaLoadedModel]


class OllamaShown(Struct, frozen=True, kw_only=True):
    """The reply of /api/show."""

    details: OllamaDetails
    model_info: dict[str, Any]
    modified_at: str
    capabilities: list[str] = msgspec.field(default_factory=lambda: ["completion", "vision"])
    modelfile: str = ""
    parameters: str = ""
    template: str = "{{ .Prompt }}"


class OllamaVersion(Struct, frozen=True, kw_only=True):
    """The reply of /api/version."""

    version: str


class OllamaStatus(Struct, frozen=True, kw_only=True):
    """The reply of /api/pull, or one line of it; only a line about a file has the last fields."""

    status: str
    digest: str | msgspec.UnsetType = msgspec.UNSET
    total: Count | msgspec.UnsetType = msgspec.UNSET
    completed: Count | msgspec.UnsetType = msgspec.UNSET


REQUESTS = (
    OllamaChatRequest, OllamaGenerateRequest, OllamaModelRequest, OllamaPullRequest,
    OllamaEmbedRequest,
)  # fmt: skip
REPLIES = (
    OllamaChatReply, OllamaGenerateReply, OllamaTags, OllamaLoadedModels, OllamaShown,
    OllamaVersion, OllamaStatus, OllamaError,
)  # fmt: skip

_LAST_LINE = tuple(
    field.name for field in msgspec.structs.fields(_Reply) if field.default is msgspec.UNSET
)
OPTIONAL = {
    "OllamaChatReply": _LAST_LINE,
    "OllamaGenerateReply": (*_LAST_LINE, "context"),
    "OllamaStatus": ("digest", "total", "completed"),
}
"""Fields that some replies lack, by type."""
