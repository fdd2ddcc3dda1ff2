"""The types of the JSON bodies that the server sends; the OpenAPI document is generated from them.

All fields of a type are always there, except for those in OPTIONAL; later versions may add more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from cogvlm2_lite.worker.client import EngineState

Count = Annotated[int, Meta(ge=0)]
FinishReason = Literal["stop", "length"]
ChatFinishReason = Literal["stop", "length", "tool_calls", "function_call"]
MOST_CHOICES = 64
"""8 prompts with 8 answers each."""


class TokenLogprob(Struct, frozen=True, kw_only=True):
    """A token, and the logarithm of its probability.

    bytes  of its text; null for a special token
    """

    token: str
    logprob: float
    bytes: list[int] | None


class ChosenToken(TokenLogprob, frozen=True, kw_only=True):
    """A token of an answer, and the most likely ones in its place."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(Struct, frozen=True, kw_only=True):
    """The logprobs of a chat's answer."""

    content: list[ChosenToken]
    refusal: None = None


class CompletionLogprobs(Struct, frozen=True, kw_only=True):
    """The logprobs of a completion: one entry per token in each list.

    A token that begins every prompt has none, and so they are null.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[Count]


class PromptTokensDetails(Struct, frozen=True, kw_only=True):
    """The kinds of prompt tokens. cached_tokens were computed for an earlier request."""

    cached_tokens: Count
    image_tokens: Count


class CompletionTokensDetails(Struct, frozen=True, kw_only=True):
    """The kinds of completion tokens.

    accepted_prediction_tokens, rejected_prediction_tokens  those of a request with a `prediction`
        that speculation proposed, and that the model chose, too, or did not choose; the rejected
        ones are in no other count
    """

    accepted_prediction_tokens: Count = 0
    rejected_prediction_tokens: Count = 0
    audio_tokens: Count = 0
    reasoning_tokens: Count = 0


class Usage(Struct, frozen=True, kw_only=True):
    """Exact counts; prompt tokens include those of the picture."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails = CompletionTokensDetails()


class Report(Struct, frozen=True, kw_only=True):
    """How a request was read, if not as it stands. Not part of OpenAI's API.

    ignored      names of fields that were left out
    page, pages  the page or frame of the picture that was read, from 1, and how many there are
    notices      sentences for a person
    texts        the templates of the notices with their values, for translation
    """

    ignored: list[str]
    page: Count
    pages: Count
    notices: list[str]
    texts: Mapping[str, Any]


class CalledFunction(Struct, frozen=True, kw_only=True):
    """A function, and its arguments as JSON text."""

    name: str
    arguments: str


class ToolCall(Struct, frozen=True, kw_only=True):
    """The call of the function that a request named."""

    id: str
    function: CalledFunction
    type: Literal["function"] = "function"


class ChatAnswer(Struct, frozen=True, kw_only=True):
    """The message of a chat's answer.

    content        null if a function is called
    tool_calls     only there if a function of `tools` had to be called
    function_call  only there if a function of `functions`, the older form, had to be called
    """

    content: str | None
    role: Literal["assistant"] = "assistant"
    refusal: None = None
    tool_calls: list[ToolCall] | msgspec.UnsetType = msgspec.UNSET
    function_call: CalledFunction | msgspec.UnsetType = msgspec.UNSET


class ChatChoice(Struct, frozen=True, kw_only=True):
    """The answer of a chat."""

    message: ChatAnswer
    finish_reason: ChatFinishReason
    logprobs: ChatLogprobs | None
    index: Count = 0


class ChatCompletion(Struct, frozen=True, kw_only=True):
    """The reply of /v1/chat/completions."""

    id: str
    created: Count
    model: str
    choices: Annotated[list[ChatChoice], Meta(min_length=1, max_length=MOST_CHOICES)]
    usage: Usage
    cogvlm2: Report | None
    system_fingerprint: str
    object: Literal["chat.completion"] = "chat.completion"


class CompletionChoice(Struct, frozen=True, kw_only=True):
    """The answer of a completion."""

    text: str
    finish_reason: FinishReason
    logprobs: CompletionLogprobs | None
    index: Count = 0


class Completion(Struct, frozen=True, kw_only=True):
    """The reply of /v1/completions."""

    id: str
    created: Count
    model: str
    choices: Annotated[list[CompletionChoice], Meta(min_length=1, max_length=MOST_CHOICES)]
    usage: Usage
    cogvlm2: Report | None
    system_fingerprint: str
    object: Literal["text_completion"] = "text_completion"


class OutputText(Struct, frozen=True, kw_only=True):
    """The text of a response."""

    text: str
    logprobs: list[ChosenToken]
    type: Literal["output_text"] = "output_text"
    annotations: list[Any] = []


ItemStatus = Literal["completed", "incomplete", "in_progress"]


class OutputMessage(Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """The message of a response."""

    id: str
    status: ItemStatus
    content: list[OutputText]
    role: Literal["assistant"] = "assistant"


class FunctionCall(Struct, frozen=True, kw_only=True, tag_field="type", tag="function_call"):
    """The call of a function in a response; the arguments are JSON text."""

    id: str
    call_id: str
    status: ItemStatus
    name: str
    arguments: str


class InputTokensDetails(Struct, frozen=True, kw_only=True):
    """The kinds of input tokens; OpenAI's newer clients require `cache_write_tokens`."""

    cached_tokens: Count
    image_tokens: Count
    cache_write_tokens: Count = 0


class OutputTokensDetails(Struct, frozen=True, kw_only=True):
    """The kinds of output tokens."""

    reasoning_tokens: Count = 0


class ResponseUsage(Struct, frozen=True, kw_only=True):
    """Exact counts; input tokens include those of the picture."""

    input_tokens: Count
    input_tokens_details: InputTokensDetails
    output_tokens: Count
    total_tokens: Count
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()


class IncompleteDetails(Struct, frozen=True, kw_only=True):
    """Why a response was cut off."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class Reasoning(Struct, frozen=True, kw_only=True):
    """Always empty: the model has no separate reasoning."""

    effort: None = None
    summary: None = None


class ResponseSettings(Struct, frozen=True, kw_only=True):
    """The fields of a response that are known at its first event."""

    id: str
    created_at: Count
    model: str
    instructions: str | None
    max_output_tokens: Count | None
    metadata: dict[str, Any]
    temperature: float
    top_p: float
    text: dict[str, Any]
    truncation: Literal["auto", "disabled"]
    user: str | None
    cogvlm2: Report | None
    object: Literal["response"] = "response"
    parallel_tool_calls: bool = False
    previous_response_id: None = None
    reasoning: Reasoning = Reasoning()
    store: bool = False
    tool_choice: Literal["none"] = "none"
    tools: list[Any] = []


class Response(ResponseSettings, frozen=True, kw_only=True):
    """The reply of /v1/responses."""

    status: Literal["completed", "incomplete"]
    incomplete_details: IncompleteDetails | None
    output: list[OutputMessage | FunctionCall]
    usage: ResponseUsage
    error: None = None


class Modalities(Struct, frozen=True, kw_only=True):
    """What a model reads and writes."""

    input_modalities: list[str] = msgspec.field(default_factory=lambda: ["text", "image"])
    output_modalities: list[str] = msgspec.field(default_factory=lambda: ["text"])


class Capabilities(Struct, frozen=True, kw_only=True):
    """What a model can do."""

    vision: bool = True
    completion: bool = True
    tools: bool = False


class Model(Struct, frozen=True, kw_only=True):
    """The model of the folder, or that model with an adapter.

    created         when its folder was made, in seconds since 1970
    context_length  tokens of question, picture and answer together; null while it is loading.
                    Other servers call it max_model_len
    """

    id: str
    created: Count
    context_length: Count | None
    max_model_len: Count | None
    object: Literal["model"] = "model"
    owned_by: str = "cogvlm2-lite"
    architecture: Modalities = Modalities()
    capabilities: Capabilities = Capabilities()


class ModelList(Struct, frozen=True, kw_only=True):
    """The reply of /v1/models."""

    data: list[Model]
    object: Literal["list"] = "list"


class Plan(Struct, frozen=True, kw_only=True):
    """The reply of /v1/plan."""

    plan: Mapping[str, Any]
    compute: str
    context: Count
    image_tokens: Count
    parallel: Annotated[int, Meta(ge=1)]


class Health(Struct, frozen=True, kw_only=True):
    """The reply of /health."""

    status: EngineState


class Markdown(Struct, frozen=True, kw_only=True):
    """The reply of /page/markdown: a list of nodes for each text."""

    texts: list[list[Any]]


class Document(Struct, frozen=True, kw_only=True):
    """The reply of /openapi.json."""

    openapi: str
    paths: dict[str, Any]


class ErrorDetail(Struct, frozen=True, kw_only=True):
    """What went wrong.

    param     the field that is at fault
    template  the message with named placeholders, for translation
    values    of the placeholders: texts, numbers, and objects with their own template
    """

    message: str
    type: str
    param: str | None
    code: str | None
    template: str
    values: Mapping[str, Any]


class Error(Struct, frozen=True, kw_only=True):
    """The reply of every request that failed."""

    error: ErrorDetail


class OllamaError(Struct, frozen=True, kw_only=True):
    """The reply of every request to Ollama's API that failed."""

    error: str


ALL = (
    ChatCompletion, Completion, Response, Model, ModelList, Plan, Health, Markdown, Document, Error,
)  # fmt: skip

OPTIONAL = {"ChatAnswer": ("tool_calls", "function_call")}
"""Fields that some replies lack, by type."""
