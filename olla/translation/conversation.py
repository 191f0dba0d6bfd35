"""The common form of a chat request, between the formats of clients and of servers.

A codec reads a client's body into a `Conversation`, and another writes it for a server. Texts,
ids, schemas and argument strings pass through unchanged and in order: servers find the beginning
of a prompt in their caches only if the same history gives the same bytes.

A field without a counterpart in the server's format is dropped and named in `dropped` if it only
tunes or observes, and refused with `Unsupported` if the answer would be a lie without it.
"""

import enum
from typing import Final

import msgspec

__all__ = [
    "NOTHING",
    "Conversation",
    "Effort",
    "Image",
    "Message",
    "OutputFormat",
    "Part",
    "Reasoning",
    "Role",
    "Sampling",
    "Text",
    "Thinking",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "ToolKind",
    "ToolResult",
    "Unsupported",
]


class Unsupported(Exception):
    """A request cannot be translated. Becomes a 400 that names the field.

    `field` is the path of the field in the client's body, such as `messages[2].content[0]`.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class Role(enum.Enum):
    """The role of a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Text(msgspec.Struct, frozen=True, tag=True):
    """A piece of text."""

    text: str


class Thinking(msgspec.Struct, frozen=True, tag=True):
    """The reasoning of an assistant message."""

    text: str


class Image(msgspec.Struct, frozen=True, tag=True):
    """An image: base64 text of a media type, or the URL that it is fetched from."""

    media_type: str = ""
    data: str = ""
    url: str = ""


class ToolCall(msgspec.Struct, frozen=True, tag=True):
    """A call in an assistant message. `arguments` is the JSON text of an object."""

    id: str
    name: str
    arguments: str


class ToolResult(msgspec.Struct, frozen=True, tag=True):
    """The result of a call. `name` is the tool's, empty if the format does not tell it."""

    call_id: str
    content: tuple[Text | Image, ...] = ()
    name: str = ""
    is_error: bool = False


Part = Text | Thinking | Image | ToolCall | ToolResult


class Message(msgspec.Struct, frozen=True):
    """One message. A tool message contains exactly one `ToolResult`."""

    role: Role
    parts: tuple[Part, ...]


class ToolKind(enum.Enum):
    """How a tool takes its input."""

    FUNCTION = "function"
    """A JSON object."""
    CUSTOM = "custom"
    """Free text (OpenAI Responses). Servers see a function with one string, `input`."""


class Tool(msgspec.Struct, frozen=True):
    """A tool that the model may call. `parameters` is a JSON schema, as the client wrote it.

    `name` is the name that the server sees, `shown` the one that the client knows it by, and
    `namespace` the client's group of tools.
    """

    name: str
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw(b'{"type":"object","properties":{}}')
    strict: bool | None = None
    kind: ToolKind = ToolKind.FUNCTION
    shown: str = ""
    namespace: str = ""


class ToolChoice(enum.Enum):
    """Whether the model has to call a tool."""

    AUTO = "auto"
    REQUIRED = "required"
    NONE = "none"
    NAMED = "named"
    """The one in `Conversation.forced_tool`."""


class OutputFormat(msgspec.Struct, frozen=True):
    """JSON output. `schema` is a JSON schema, None for any JSON object."""

    schema: msgspec.Raw | None = None
    name: str = ""
    strict: bool | None = None


class Effort(enum.Enum):
    """How long a model may think, in the order of the formats' scales."""

    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"


class Reasoning(msgspec.Struct, frozen=True):
    """The client's settings for thinking.

    `enabled` is None if they are absent. `budget` is tokens. With `hidden` the answer contains no
    reasoning, even if the model thinks.
    """

    enabled: bool | None = None
    effort: Effort | None = None
    budget: int | None = None
    hidden: bool = False


class Sampling(msgspec.Struct, frozen=True):
    """How tokens are drawn. None stands for the server's default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    num_keep: int | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    logit_bias: msgspec.Raw | None = None


NOTHING: Final = Sampling()
"""A client that names no sampling."""


class Conversation(msgspec.Struct, frozen=True):
    """A chat request.

    `model` is the name that the client sent; `stream` whether it wants a stream, the format's
    default applied; `stream_usage` whether a stream ends with token counts. `messages` begin with
    at most one system message; later ones are folded into their neighbors by the codec. `tools` are
    those that the model may call, in the client's order. `output_max` is tokens, None without a
    limit. `load_options` is Ollama's `options` that belong to a loaded model, `keep_alive` its JSON
    value. `affinity` is a text that the client gives to all requests of one conversation.
    `metadata` is JSON that the answer repeats. `dropped` names fields that have no counterpart.
    """

    model: str
    messages: tuple[Message, ...]
    stream: bool = False
    stream_usage: bool = False
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice.AUTO
    forced_tool: str = ""
    parallel_calls: bool | None = None
    output_max: int | None = None
    stop: tuple[str, ...] = ()
    sampling: Sampling = NOTHING
    output_format: OutputFormat | None = None
    reasoning: Reasoning = Reasoning()
    logprobs: bool = False
    top_logprobs: int | None = None
    load_options: dict[str, float] = {}
    keep_alive: msgspec.Raw | None = None
    affinity: str = ""
    metadata: msgspec.Raw | None = None
    dropped: tuple[str, ...] = ()
