"""The types of the JSON bodies that clients send.

All fields, bounds and descriptions are defined here: requests are checked against these types
(validation.py), and the OpenAPI document is generated from them (openapi.py). Null means "not
given".
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from cogvlm2_lite.server.validation import Body, Part, unsupported, words
from cogvlm2_lite.text import Text

MAX_MESSAGES = 2000
MAX_URL_CHARACTERS = 4000
MAX_TEXTS = 500
MAX_ANSWERS = 8
MAX_PROMPTS = 8
MAX_PROMPT_TOKENS = 50_000
LARGEST_SEED = 2**63 - 1
MOST_TOP_LOGPROBS = 20
MOST_LOGPROBS = 5
"""In /v1/completions."""
DATA_URL_HEAD = r"data:image/[a-zA-Z0-9.+-]{1,40}(;[a-zA-Z0-9=._-]{1,60}){0,4};base64,"
_BASE64 = r"([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)"
DATA_URL = f"^{DATA_URL_HEAD}{_BASE64}$"
LOGPROBS = "message.output_text.logprobs"

Ignored = Annotated[Any, Meta(description="Ignored.")]
Flag = bool | None
Penalty = Annotated[float, Meta(ge=-2, le=2)] | None
Count = Annotated[int, Meta(ge=0, le=LARGEST_SEED)] | None
TopLogprobs = Annotated[
    Annotated[int, Meta(ge=0, le=MOST_TOP_LOGPROBS)] | None,
    Meta(description="How many of the most likely tokens to return for each token."),
]
# The document states the server's own limit as the maximum.
AnswerTokens = Annotated[
    Annotated[int, Meta(ge=1, extra_json_schema={"maximum": "answer_tokens"})] | None,
    Meta(description="Maximum number of tokens of the answer."),
]
StopText = Annotated[str, Meta(min_length=1, max_length=200)]

# --- messages ------------------------------------------------------------------------------------

Detail = Annotated[
    Literal["auto", "low", "high", "original"] | None,
    Meta(description="Ignored: pictures are always scaled to one size."),
]
PictureUrl = Annotated[
    str,
    Meta(
        description="The picture as a data: URL, or its web address if the server allows this. All "
        "pictures of a conversation must be the same one.",
        extra_json_schema={"pattern": DATA_URL},
    ),
]


PictureNumber = Annotated[
    Annotated[int, Meta(ge=1, le=2**31 - 1)] | None,
    Meta(
        description="The page of a TIFF file or the frame of an animation, from 1. Not part of "
        "OpenAI's API."
    ),
]


class ImageUrl(Body, frozen=True, kw_only=True):
    """The address of a picture, in the form of OpenAI's chat API."""

    url: PictureUrl
    detail: Detail = None
    page: PictureNumber = None


class TextPart(Part, frozen=True, kw_only=True, tag="text"):
    """A text in a message."""

    text: str


class ImagePart(Part, frozen=True, kw_only=True, tag="image_url"):
    """A picture in a message."""

    image_url: PictureUrl | ImageUrl
    detail: Detail = None
    page: PictureNumber = None


class InputTextPart(Part, frozen=True, kw_only=True, tag="input_text"):
    """A text of the user in an item."""

    text: str


class OutputTextPart(Part, frozen=True, kw_only=True, tag="output_text"):
    """A text of an answer in an item."""

    text: str


class InputImagePart(Part, frozen=True, kw_only=True, tag="input_image"):
    """A picture in an item."""

    image_url: PictureUrl | ImageUrl
    detail: Detail = None
    page: PictureNumber = None


AnyPart = TextPart | ImagePart | InputTextPart | OutputTextPart | InputImagePart
ItemText = InputTextPart | OutputTextPart


class Message(Body, frozen=True, kw_only=True, tag_field="role"):
    """One message of a conversation."""

    @property
    def role(self) -> str:
        return str(self.__struct_config__.tag)


class _ChatMessage(Message, frozen=True, kw_only=True):
    name: Ignored = None
    refusal: Ignored = None
    audio: Ignored = None
    tool_calls: Annotated[
        Any,
        unsupported(
            [], code="unsupported_value", why=Text("can't be used: the model has no tools")
        ),
    ] = None


class SystemMessage(_ChatMessage, frozen=True, kw_only=True, tag="system"):
    """Instructions; the model reads them before the question that follows."""

    content: str | list[TextPart]


class DeveloperMessage(_ChatMessage, frozen=True, kw_only=True, tag="developer"):
    """The same role under its newer name."""

    content: str | list[TextPart]


class UserMessage(_ChatMessage, frozen=True, kw_only=True, tag="user"):
    """A question, with or without a picture."""

    content: str | Annotated[list[TextPart | ImagePart], Meta(min_length=1)]


class AssistantMessage(_ChatMessage, frozen=True, kw_only=True, tag="assistant"):
    """An answer."""

    content: str | list[TextPart] | None = None


class _Item(Message, frozen=True, kw_only=True):
    type: Literal["message"] | None = None
    id: Ignored = None
    status: Ignored = None
    phase: Ignored = None


class SystemItem(_Item, frozen=True, kw_only=True, tag="system"):
    """Instructions; the model reads them before the question that follows."""

    content: str | list[ItemText]


class DeveloperItem(_Item, frozen=True, kw_only=True, tag="developer"):
    """The same role under its newer name."""

    content: str | list[ItemText]


class UserItem(_Item, frozen=True, kw_only=True, tag="user"):
    """A question, with or without a picture."""

    content: str | Annotated[list[ItemText | InputImagePart], Meta(min_length=1)]


class AssistantItem(_Item, frozen=True, kw_only=True, tag="assistant"):
    """An answer."""

    content: str | list[ItemText] | None = None


ChatMessage = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage
Item = SystemItem | DeveloperItem | UserItem | AssistantItem
_CONVERSATION = Meta(
    min_length=1, max_length=MAX_MESSAGES, description="The last message must be the user's."
)

# --- requests ------------------------------------------------------------------------------------


class StreamOptions(Body, frozen=True, kw_only=True):
    """What a stream contains besides the answer."""

    include_usage: Annotated[Flag, Meta(description="End with a chunk of token counts.")] = None
    include_progress: Annotated[
        Flag, Meta(description="Report progress before the first token, in chunks of our own kind.")
    ] = None
    include_obfuscation: Annotated[Flag, Meta(description="Ignored: there is none.")] = None


FormType = Literal["text", "json_object", "json_schema"]
Schema = Annotated[dict[str, Any], Meta(description="A JSON schema that the answer must match.")]


class NamedSchema(Body, frozen=True, kw_only=True):
    """A JSON schema in the form of OpenAI's chat API."""

    schema: Schema
    name: str | None = None
    description: Ignored = None
    strict: Annotated[Any, Meta(description="Ignored: the answer always matches.")] = None


class ResponseFormat(Body, frozen=True, kw_only=True):
    """The form of an answer."""

    type: FormType
    json_schema: NamedSchema | None = None


class TextFormat(Body, frozen=True, kw_only=True):
    """The form of a response."""

    type: FormType
    schema: Schema | None = None
    name: str | None = None
    description: Ignored = None
    strict: Annotated[Any, Meta(description="Ignored: the answer always matches.")] = None


class _Request(Body, frozen=True, kw_only=True):
    """Fields of all requests for an answer."""

    model: Annotated[str | None, Meta(description="The name of the model; null: any.")] = None
    stream: Annotated[Flag, Meta(description="Send the answer as events, as it is made.")] = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[
        Annotated[float, Meta(ge=0, le=2)] | None,
        Meta(description="0 (default): always the most likely token; higher: more varied."),
    ] = None
    top_p: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None,
        Meta(description="Keep the most likely tokens that together reach this probability."),
    ] = None
    top_k: Annotated[
        Count, Meta(description="Keep this many of the most likely tokens; 0: all.")
    ] = None
    seed: Annotated[Count, Meta(description="Makes sampling repeatable.")] = None
    repetition_penalty: Annotated[
        Annotated[float, Meta(gt=0, le=10)] | None,
        Meta(description="Divides the logits of tokens that already occurred; 1: off."),
    ] = None
    user: Annotated[str | None, Meta(description="Waiting users take turns.")] = None
    service_tier: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    tools: Annotated[Any, unsupported([])] = None
    tool_choice: Annotated[Any, unsupported("none", "auto")] = None
    parallel_tool_calls: Annotated[Any, unsupported(True, False)] = None


class _CompletionRequest(_Request, frozen=True, kw_only=True):
    """Fields of the two older APIs."""

    max_tokens: AnswerTokens = None
    stop: Annotated[
        StopText | Annotated[list[StopText], Meta(max_length=16)] | None,
        Meta(description="Texts that end the answer and are not part of it."),
    ] = None
    frequency_penalty: Annotated[
        Penalty, Meta(description="Subtracted from a token's logit for each time it was chosen.")
    ] = None
    presence_penalty: Annotated[
        Penalty, Meta(description="Subtracted once when the token was chosen before.")
    ] = None
    n: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_ANSWERS)] | None,
        Meta(description="Number of answers, computed one after another; the seed counts up."),
    ] = None
    metadata: Ignored = None
    store: Ignored = None
    logit_bias: Annotated[Any, unsupported({})] = None
    functions: Annotated[Any, unsupported([])] = None
    function_call: Annotated[Any, unsupported("none", "auto")] = None
    modalities: Annotated[Any, unsupported(["text"])] = None
    audio: Annotated[Any, unsupported()] = None
    prediction: Annotated[Any, unsupported()] = None
    reasoning_effort: Annotated[Any, unsupported()] = None
    verbosity: Annotated[Any, unsupported()] = None
    web_search_options: Annotated[Any, unsupported()] = None
    suffix: Annotated[Any, unsupported("")] = None
    best_of: Annotated[Any, unsupported(1)] = None


PredictedText = Annotated[
    str | list[TextPart],
    Meta(
        description="A text that the answer probably resembles, such as OCR text of the picture. "
        "It changes the speed only, never the answer."
    ),
]


class Prediction(Body, frozen=True, kw_only=True):
    """A prediction of the answer in the form of OpenAI's chat API."""

    type: Literal["content"]
    content: PredictedText


Truncation = Annotated[
    Literal["auto", "disabled"] | None,
    Meta(
        description="auto: leave out the oldest turns of a conversation that is too long for the "
        "context."
    ),
]


class ChatRequest(_CompletionRequest, frozen=True, kw_only=True):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], _CONVERSATION]
    max_completion_tokens: AnswerTokens = None
    truncation: Truncation = None
    continue_final_message: Annotated[
        Flag, Meta(description="Continue the last message, which is an answer.")
    ] = None
    echo: Annotated[Any, unsupported(False)] = None
    prediction: Prediction | None = None
    template: Annotated[
        Literal["chat", "vqa"] | None,
        Meta(description="The prompt's template; vqa: short answers."),
    ] = None
    logprobs: Annotated[Flag, Meta(description="Return the log probability of each token.")] = None
    top_logprobs: TopLogprobs = None
    response_format: ResponseFormat | None = None


PromptToken = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class CompletionRequest(_CompletionRequest, frozen=True, kw_only=True):
    """The body of /v1/completions: plain text, without the chat template."""

    prompt: (
        Annotated[str, Meta(min_length=1)]
        | Annotated[
            list[
                Annotated[str, Meta(min_length=1)]
                | PromptToken
                | Annotated[list[PromptToken], Meta(min_length=1, max_length=MAX_PROMPT_TOKENS)]
            ],
            Meta(
                min_length=1,
                max_length=MAX_PROMPT_TOKENS,
                description="A list is a prompt in tokens, or up to 8 prompts: texts or lists of "
                "tokens.",
            ),
        ]
    )
    echo: Annotated[Flag, Meta(description="Put the prompt before each answer.")] = None
    logprobs: Annotated[
        Annotated[int, Meta(ge=0, le=MOST_LOGPROBS)] | None,
        Meta(description="Return the logprob of each token, and of this many most likely ones."),
    ] = None


class TextOptions(Body, frozen=True, kw_only=True):
    """The form of a response."""

    format: TextFormat | None = None
    verbosity: Annotated[Any, unsupported()] = None


class ResponseRequest(_Request, frozen=True, kw_only=True):
    """The body of /v1/responses."""

    input: Annotated[str, Meta(min_length=1)] | Annotated[list[Item], _CONVERSATION]
    instructions: Annotated[str | None, Meta(description="Put before the first question.")] = None
    max_output_tokens: AnswerTokens = None
    truncation: Truncation = None
    text: TextOptions | None = None
    include: Annotated[
        list[Literal["message.output_text.logprobs"]] | None,
        words("a list that contains only {name}", name=f'"{LOGPROBS}"'),
    ] = None
    top_logprobs: TopLogprobs = None
    metadata: Annotated[dict[str, Any] | None, Meta(description="Returned in the response.")] = None
    store: Annotated[
        Any, unsupported(False, why=Text("must be false: this server stores no answers"))
    ] = None
    previous_response_id: Annotated[
        Any,
        unsupported(
            why=Text(
                "can't be used: this server stores no answers, so send the whole conversation as "
                "input"
            )
        ),
    ] = None
    max_tool_calls: Annotated[Any, unsupported()] = None
    background: Annotated[Any, unsupported(False)] = None
    conversation: Annotated[Any, unsupported()] = None
    prompt: Annotated[Any, unsupported()] = None
    reasoning: Annotated[Any, unsupported({})] = None


class PreviewRequest(Body, frozen=True, kw_only=True):
    """The body of /page/preview."""

    picture: PictureUrl
    page: PictureNumber = None


class MarkdownRequest(Body, frozen=True, kw_only=True):
    """The body of /page/markdown."""

    texts: Annotated[list[str], Meta(max_length=MAX_TEXTS)]
