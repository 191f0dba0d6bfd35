"""Define the interface of codecs. See `conversation` and `answer` for the common form."""

from collections.abc import Iterable
from typing import Protocol

import msgspec

from olla.translation.answer import Event
from olla.translation.conversation import Conversation

__all__ = ["AnswerReader", "AnswerWriter", "Reply"]


class Reply(msgspec.Struct, frozen=True):
    """The facts about a request that its answer repeats.

    `model` is the name that the client sent, `id` the request's id (the codec adds its prefix).
    `created` is Unix seconds and `started` monotonic seconds of the request. `prompt_tokens` is an
    estimate, for formats that name the count before the server does.
    """

    model: str
    id: str
    created: float
    conversation: Conversation
    prompt_tokens: int = 0
    started: float = 0.0


class AnswerReader(Protocol):
    """Reads a server's answer with status 200, piece by piece. One for each answer.

    Pieces may be cut anywhere. At most one unfinished record is held, of `RECORD_MAX` bytes.
    """

    def feed(self, data: bytes) -> list[Event]:
        """The events that are complete with this piece, in order."""
        ...

    def end(self) -> list[Event]:
        """The body ended cleanly: the last events. `Failed` if the answer is incomplete."""
        ...


class AnswerWriter(Protocol):
    """Writes an answer for a client. One for each answer.

    `now` is monotonic seconds: formats that report durations measure them where the server does
    not tell.
    """

    content_type: str

    def write(self, events: Iterable[Event], now: float) -> bytes:
        """The bytes of these events: of a stream what can be sent now, of an answer in one piece
        nothing before `End` or `Failed`. If bytes were sent before `Failed`, the caller cuts the
        connection."""
        ...
