"""The words every wire format shares, and what a wire format must be able to tell.

The formats themselves are in `ollama`, `openai`, `anthropic` and `own`; which path speaks which
is in `paths`.
"""

import enum
from typing import Protocol

import msgspec

from olla.dialects.json_scan import JsonObject
from olla.failures import Failure

__all__ = ["Dialect", "Ending", "Operation", "Peek", "Right", "Summary"]


class Right(enum.Enum):
    """The right that an operation needs. The value is the word in configurations and keys."""

    GENERATE = "generate"
    EMBED = "embed"
    LIST = "list"
    """Read lists and status."""
    MANAGE = "manage"
    """Change nodes."""
    ADMIN = "admin"
    """Manage keys, read the usage of others, and choose endpoints by name."""

    __hash__ = object.__hash__  # as with `Operation`


class Operation(enum.Enum):
    """The operation of a request in any wire format. The value is the word in logs and metrics."""

    HEARTBEAT = "heartbeat"
    VERSION = "version"
    LIST = "list"
    MODEL = "model"
    RUNNING = "ps"
    SHOW = "show"
    GENERATE = "generate"
    CHAT = "chat"
    EMBED = "embed"
    RESPONSES = "responses"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    TRANSCRIBE = "transcribe"
    RERANK = "rerank"
    TOKENIZE = "tokenize"
    INFER = "infer"
    """An inference path of one kind of server, such as llama.cpp's `/completion`."""
    PULL = "pull"
    PUSH = "push"
    CREATE = "create"
    COPY = "copy"
    DELETE = "delete"
    BLOB = "blob"
    OTHER = "other"
    """A path unknown to olla, passed through: with GET or HEAD a list, otherwise management."""

    # Members are single objects; an Enum's own hash runs Python code, 0.1 µs at each look-up.
    __hash__ = object.__hash__

    @property
    def occupies_slot(self) -> bool:
        """Whether it occupies a slot of a loaded model while it runs."""
        return self in _OCCUPIES


_OCCUPIES = frozenset(
    {
        Operation.GENERATE,
        Operation.CHAT,
        Operation.EMBED,
        Operation.RESPONSES,
        Operation.MESSAGES,
        Operation.TRANSCRIBE,
        Operation.RERANK,
        Operation.INFER,
    }
)


class Peek(msgspec.Struct, frozen=True):
    """What olla needs to know of a request's body.

    `model` as the client spelled it, None where the operation takes none; `stream` whether the
    answer will be a stream, the dialect's default applied; `others` are further models that the
    operation reads or makes.

    The rest is for routing, and empty where the body does not say: `load_options` are Ollama's
    options that belong to a loaded model, sorted, without those that say nothing; `keep_alive`
    is seconds; `prompt` the JSON text of what the model is to read, undecoded; `output_max` how
    many tokens the answer may have; `only_loads` says that there is nothing to read, so that the
    model is only loaded (or unloaded).
    """

    model: str | None
    stream: bool
    load_options: tuple[tuple[str, float], ...] = ()
    keep_alive: float | None = None
    prompt: memoryview | None = None
    output_max: int | None = None
    only_loads: bool = False
    others: tuple[str, ...] = ()


class Ending(enum.Enum):
    """How a response ended, judged by its last bytes."""

    COMPLETE = "complete"
    ERROR = "error"
    """It carries the endpoint's own in-band error."""
    INCOMPLETE = "incomplete"
    """It was cut off: the end that the format requires is missing."""


class Summary(msgspec.Struct, frozen=True):
    """What the last bytes of an answer tell.

    Token counts are the endpoint's own, `load_seconds` the time it spent on loading the model,
    `prompt_seconds` on reading the prompt, `output_seconds` on the output, `total_seconds` in all;
    None where it does not say.
    """

    ending: Ending
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    load_seconds: float | None = None
    prompt_seconds: float | None = None
    output_seconds: float | None = None
    total_seconds: float | None = None


class Dialect(Protocol):
    """A wire format."""

    @property
    def name(self) -> str:
        """`ollama`, `openai`, `anthropic` or `olla`."""
        ...

    def peek(self, operation: Operation, body: bytes, scanned: JsonObject | None = None) -> Peek:
        """Read model and stream flag from a JSON body, whatever its Content-Type. A long body was
        scanned before, see `peek.scan_body`.

        Raises:
            Failed: the body is not a JSON object, or `model` is missing or not a string where
                the operation needs one, or could be read in two ways.
        """
        ...

    def error_body(self, failure: Failure) -> bytes:
        """The JSON body of an error that comes before any byte of the answer."""
        ...

    def in_band_error(self, failure: Failure, *, mid_record: bool) -> bytes:
        """The record that tells of an error in the middle of a stream, line ends included.

        `mid_record` says that the stream broke off within a record, which has to be ended first.
        """
        ...

    def waiting(self, operation: Operation, text: str) -> bytes | None:
        """Return bytes that may precede the first record of a response, to show that the request
        waits. Clients ignore them. None if the format has no such bytes."""
        ...

    @property
    def counts_at_start(self) -> bool:
        """Whether the first record of a stream has counts that the last ones may lack."""
        ...

    def summary(
        self, operation: Operation, streaming: bool, tail: bytes, start: bytes = b""
    ) -> Summary:
        """Read the end of an answer with status 200: how it ended, tokens, durations.

        `tail` is the whole body of a short answer, or the last records of a stream, without
        framing; `start` the first bytes of a stream where `counts_at_start`. INCOMPLETE only
        comes of streams whose format has an end of its own (inference, not progress): such an
        answer has failed, however cleanly it ended. Garbage raises nothing.
        """
        ...
