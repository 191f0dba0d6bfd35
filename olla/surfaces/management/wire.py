"""What the management API takes and answers, as types: checked on the way in, documented by them.

Plain shapes; what becomes of them is the surfaces' business.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

__all__ = [
    "ChatAnswer",
    "ChatRequest",
    "ErrorAnswer",
    "GenerateRequest",
    "KeyList",
    "KeyMade",
    "KeyRequest",
    "KeyRevoked",
    "KeyShown",
    "ModelList",
    "OwnErrorAnswer",
    "Sampling",
    "TextAnswer",
    "Wire",
]

_INT64 = 2**63 - 1


class Wire(BaseModel):
    """A shape on the wire. Values are what JSON says they are: `"1"` is no number."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class _Open(Wire):
    """A shape that may say more; what olla does not know goes to the endpoint as it is."""

    model_config = ConfigDict(extra="allow")


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("only printable characters are possible")
    return text


Text = Annotated[str, Field(max_length=100), AfterValidator(_printable)]
ModelName = Annotated[str, Field(min_length=1, max_length=512)]


class Message(_Open):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant", "tool", "developer"]
    """Who says it."""
    content: str | Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None
    """What is said: text, or parts in OpenAI's format."""


class Sampling(_Open):
    """How an answer is to be made. What is left out is as the model's parameters say."""

    model: ModelName
    """The id of the model."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Randomness: 0 is the most certain answer. Default: 0.7."""
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """Tokens that the answer may have at most. Default: 1024."""
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Only the likeliest tokens that have this probability together."""
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Only so many of the likeliest tokens, where the endpoint knows it."""
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    """Texts before which the answer ends."""
    seed: Annotated[int, Field(ge=-_INT64, le=_INT64)] | None = None
    """The same seed gives the same answer."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """More than 0: rather other words than those that are there."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """More than 0: the rarer, the more often a word is there."""
    stream: bool = False
    """Answer piece by piece, as server-sent events in OpenAI's format."""


class ChatRequest(Sampling):
    """A conversation that is to go on."""

    messages: Annotated[list[Message], Field(min_length=1, fail_fast=True)]
    """The conversation so far."""


class GenerateRequest(Sampling):
    """A text that is to go on."""

    prompt: str
    """The text."""


class ManagedModelShown(Wire):
    """A model of the fleet."""

    id: str
    """What requests name it by."""
    name: str
    """Its name for people."""
    description: str
    """What it is."""
    is_active: bool
    """Whether it may be asked here."""
    parameters: dict[str, Any]
    """What holds for requests that do not say."""


class ModelList(Wire):
    """The models that the caller may use."""

    models: list[ManagedModelShown]


class Usage(Wire):
    """Tokens, as the endpoint has counted them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerMessage(_Open):
    """The model's message."""

    role: str
    content: str | None


class ChatChoice(Wire):
    """One answer."""

    message: AnswerMessage
    finish_reason: str
    """Why it ended: `stop`, `length`, `tool_calls`."""
    index: int


class TextChoice(Wire):
    """One answer."""

    text: str
    finish_reason: str
    """Why it ended: `stop` or `length`."""
    index: int


class _AnswerBase(Wire):
    id: str
    created: int
    """Unix seconds."""
    model: str
    usage: Usage


class ChatAnswer(_AnswerBase):
    """The answer to a conversation."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class TextAnswer(_AnswerBase):
    """The text as it goes on."""

    object: Literal["text.completion"]
    choices: list[TextChoice]


class KeyRequest(Wire):
    """A key to be made."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[Text, Field(min_length=1)]
    """What it is known by."""
    user_id: Text = ""
    """Whose it is."""
    tier: Annotated[Text, Field(min_length=1)] = "standard"
    """Which limits hold for it."""
    operations: list[Literal["generate", "embed", "list", "manage", "admin"]] = Field(
        default=["generate", "embed", "list"], min_length=1, max_length=5
    )
    """What it may do."""
    models: list[Annotated[Text, Field(min_length=1)]] = Field(default=[], max_length=100)
    """Globs of models it may use; empty is all."""
    endpoints: list[Annotated[Text, Field(min_length=1)]] = Field(default=[], max_length=100)
    """Names of endpoints it may be sent to; empty is all."""
    expires_in_days: Annotated[float, Field(gt=0, le=36500)] | None = None
    """How long it is good for; null is for ever."""


class KeyShown(Wire):
    """What may be shown of a key."""

    id: int | str
    name: str
    user_id: str
    tier: str
    prefix: str
    """How the key begins."""
    operations: list[str]
    models: list[str]
    endpoints: list[str]
    is_active: bool
    created_at: str | None
    expires_at: str | None
    revoked_at: str | None
    made_by: int | str | None
    """Which key made it, by its id; `anonymous` for a caller without one, none for a command."""


class KeyRevoked(KeyShown):
    """A key that is revoked."""

    also_revoked: list[int]
    """The keys that it made, which end with it."""


class KeyMade(KeyShown):
    """A new key."""

    key: str
    """The key itself: shown this once."""


class KeyList(Wire):
    """All keys, revoked ones too."""

    keys: list[KeyShown]


class _Error(Wire):
    message: str
    """What is wrong, and what to do."""
    type: str
    param: str | None = None
    code: str | int | None


class ErrorAnswer(Wire):
    """Something is wrong."""

    error: _Error


class _OwnError(Wire):
    code: str
    message: str
    """What is wrong, and what to do."""
    details: dict[str, Any]


class OwnErrorAnswer(Wire):
    """Something is wrong."""

    error: _OwnError
