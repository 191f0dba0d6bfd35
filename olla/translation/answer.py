"""The common form of an answer: a sequence of events, whether it is streamed or not.

A codec reads a server's answer into events, and another writes them for the client. Each answer is
`Begin`, then any number of deltas, then `Finish`, `Usage` if the server counts, and `End`; or
`Failed` at any place, after which nothing follows. A reader that sees an answer end without its
`Finish` says `Failed`.
"""

import enum

import msgspec

__all__ = [
    "ArgumentsDelta",
    "Begin",
    "CallBegin",
    "CallEnd",
    "End",
    "Event",
    "Failed",
    "Finish",
    "FinishReason",
    "Logprobs",
    "TextDelta",
    "ThinkingDelta",
    "Usage",
]


class FinishReason(enum.Enum):
    """Why an answer ends."""

    STOP = "stop"
    LENGTH = "length"
    CALLS = "calls"
    """The model called tools, completely."""
    FILTERED = "filtered"
    LOADED = "loaded"
    """A request without content loaded the model."""
    UNLOADED = "unloaded"


class Begin(msgspec.Struct, frozen=True):
    """The first record came. `prompt_tokens` if the server tells it already."""

    prompt_tokens: int | None = None


class ThinkingDelta(msgspec.Struct, frozen=True):
    """More reasoning."""

    text: str


class TextDelta(msgspec.Struct, frozen=True):
    """More text."""

    text: str


class CallBegin(msgspec.Struct, frozen=True):
    """A call of a tool begins. `call` counts the calls of the answer from 0."""

    call: int
    id: str
    name: str


class ArgumentsDelta(msgspec.Struct, frozen=True):
    """More of the JSON text of a call's arguments."""

    call: int
    fragment: str


class CallEnd(msgspec.Struct, frozen=True):
    """The arguments of a call are complete: `arguments` is the JSON text of an object.

    A call that was cut off by the output limit has none.
    """

    call: int
    arguments: str


class Logprobs(msgspec.Struct, frozen=True):
    """Log probabilities of tokens, as OpenAI's `choices[].logprobs.content`: a JSON array."""

    content: msgspec.Raw


class Finish(msgspec.Struct, frozen=True):
    """The model is done. `stop` is the stop sequence that it met, if the server tells it."""

    reason: FinishReason
    stop: str | None = None


class Usage(msgspec.Struct, frozen=True):
    """Token counts, and durations in seconds; None where the server does not tell them.

    A server may tell them in parts: of several, the last known value of each counts.

    `prompt_tokens` includes `cached_tokens`; `output_tokens` includes `reasoning_tokens`.
    """

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    load_seconds: float | None = None
    prompt_seconds: float | None = None
    output_seconds: float | None = None
    total_seconds: float | None = None


class End(msgspec.Struct, frozen=True):
    """The answer is complete: the format's own end was seen, or its body ended cleanly."""


class Failed(msgspec.Struct, frozen=True):
    """The answer will not become complete. `status` is the HTTP status that fits."""

    message: str
    status: int = 502


Event = (
    Begin
    | ThinkingDelta
    | TextDelta
    | CallBegin
    | ArgumentsDelta
    | CallEnd
    | Logprobs
    | Finish
    | Usage
    | End
    | Failed
)
