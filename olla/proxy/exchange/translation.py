"""Translates one request for an endpoint that does not speak the client's dialect, and its answer.

The codecs are in `olla.translation`. This module builds the request that the endpoint gets, and
stands between the relay and the client: it is fed what the endpoint sends, without framing, and
gives the bytes that the client gets.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from olla.dialects.dialect import Dialect, Ending, Summary
from olla.dialects.paths import Target
from olla.failures import Failed, Failure, Kind, kind_of_status
from olla.fleet.snapshot import EndpointView
from olla.proxy.exchange.attempt import OutgoingRequest
from olla.proxy.http.headers import request_head, unchanging_head
from olla.proxy.http.message_fields import reason_phrase
from olla.proxy.http.request import IncomingRequest
from olla.proxy.http.response_head import ResponseHead, parse_head
from olla.translation.answer import Event, Usage
from olla.translation.answer import Failed as AnswerFailed
from olla.translation.codec import AnswerReader, AnswerWriter, Reply
from olla.translation.conversation import Conversation, Unsupported
from olla.translation.merging import merged_usage
from olla.translation.ollama_answers import loaded
from olla.translation.openai_answers import OpenAIStreamReader, OpenAIWholeReader, error_in
from olla.translation.openai_requests import write_request
from olla.translation.plans import Plan, plan_for
from olla.translation.servers import server_named

__all__ = ["AnswerTranslator", "ErrorTranslator", "Translation"]

BODY_MAX: Final = 32 * 1024 * 1024
"""Bytes of a body that is translated: it is decoded in one go, 10 MB in some 10 ms."""
_ERROR_MAX: Final = 65_536
"""Bytes of an endpoint's error that are read."""
_KEPT: Final = frozenset({b"user-agent", b"traceparent", b"tracestate", b"host"})
"""Fields of the client that go on. All others describe a body that the endpoint does not get, or
speak to a server of the client's dialect."""
_JSON: Final = (b"Content-Type", b"application/json")


def _synthetic(status: int, content_type: str, more: bytes = b"") -> ResponseHead:
    """The head of an answer that is written here: its length is not known when it begins."""
    line = f"HTTP/1.1 {status} {reason_phrase(status)}\r\nContent-Type: {content_type}"
    return parse_head(line.encode() + more + b"\r\nTransfer-Encoding: chunked", "POST")


class Translation:
    """A request whose dialect its endpoint may not speak. Read once, written for each attempt."""

    __slots__ = ("_body", "_conversation", "_plan", "_reply", "_target", "dropped")

    def __init__(self, target: Target, body: bytes, reply_id: str, wall: float, now: float) -> None:
        """`body` is read when the first attempt needs it; `wall` and `now` are when the request
        came, in Unix and monotonic seconds."""
        plan = plan_for(target.dialect.name, target.operation)
        assert plan is not None
        self._plan: Plan = plan
        self._target = target
        self._body = body
        self._conversation: Conversation | None = None
        self._reply = (reply_id, wall, now)
        self.dropped: tuple[str, ...] = ()
        """Fields of the request that the endpoint does not get."""

    def conversation(self) -> Conversation:
        """The request in the common form.

        Raises:
            Failed: it cannot be translated.
        """
        if self._conversation is None:
            if len(self._body) > BODY_MAX:
                size = f"{BODY_MAX // 1024 // 1024} MB"
                message = f"a request that has to be translated may have {size} at most"
                raise Failed(Failure(Kind.BODY_TOO_LARGE, message))
            try:
                self._conversation = self._plan.read(self._body)
            except Unsupported as error:
                raise Failed(Failure(Kind.BAD_REQUEST, str(error))) from None
        return self._conversation

    def request(
        self, incoming: IncomingRequest, view: EndpointView, model: str, id: str, via: str | None
    ) -> OutgoingRequest:
        """The request for an endpoint; `model` is the endpoint's own name for it.

        Raises:
            Failed: it cannot be translated for this kind of server.
        """
        profile = view.profile
        assert profile is not None
        try:
            written = write_request(self.conversation(), model, server_named(profile.name))
        except Unsupported as error:
            raise Failed(Failure(Kind.BAD_REQUEST, str(error))) from None
        self.dropped = written.dropped
        path = profile.list_path.removesuffix("/models") + "/chat/completions"
        headers = [each for each in incoming.headers if each[0].lower() in _KEPT]
        head = unchanging_head(
            "POST", path, view.spec, [*headers, _JSON], peer=incoming.peer, via=via
        )
        return OutgoingRequest(
            "POST", request_head(head, id, len(written.body), chunked=False), written.body
        )

    def answer(self, head: ResponseHead, clock: Callable[[], float]) -> "AnswerTranslator":
        """What translates an answer with status 200."""
        conversation = self.conversation()
        id, wall, now = self._reply
        about = msgspec.structs.replace(conversation, messages=())
        reply = Reply(conversation.model, id, wall, about, len(self._body) // 4, now)
        streams = head.streams
        reader: AnswerReader = OpenAIStreamReader() if streams else OpenAIWholeReader()
        make = self._plan.stream if conversation.stream else self._plan.whole
        return AnswerTranslator(reader, make(reply), conversation.stream, clock)

    def drop(self) -> None:
        """Let go of the request: its answer has begun, and no other attempt will need it."""
        self._body = b""
        self._conversation = None

    def loaded(self) -> bytes:
        """The answer to a request that only loads or unloads a model."""
        conversation = self.conversation()
        id, wall, now = self._reply
        reply = Reply(conversation.model, id, wall, conversation, 0, now)
        keep_alive = conversation.keep_alive
        unloaded = keep_alive is not None and bytes(keep_alive) in (b"0", b'"0"', b'"0s"')
        chat = self._target.word == "chat"
        return loaded(reply, chat=chat, unloaded=unloaded)


class AnswerTranslator:
    """Translates an answer with status 200. See `relay.Translator`."""

    __slots__ = ("_clock", "_reader", "_usage", "_writer", "failure", "head", "streams")

    def __init__(
        self,
        reader: AnswerReader,
        writer: AnswerWriter,
        streams: bool,
        clock: Callable[[], float],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._clock = clock
        self._usage = Usage()
        self.streams = streams
        self.failure: str | None = None
        """Why the answer will not become complete."""
        self.head = _synthetic(200, writer.content_type)
        """The head that the client gets."""

    def feed(self, payload: list[bytes]) -> bytes:
        """Translate what came."""
        written = b""
        for piece in payload:
            if self.failure is None:
                written += self._write(self._reader.feed(piece))
        return written

    def end(self) -> bytes:
        """Translate the end."""
        return self._write(self._reader.end()) if self.failure is None else b""

    def _write(self, events: list[Event]) -> bytes:
        for event in events:
            if isinstance(event, Usage):
                self._usage = merged_usage(self._usage, event)
            elif isinstance(event, AnswerFailed):
                self.failure = event.message
        return self._writer.write(events, self._clock())

    def summary(self) -> Summary:
        """What the answer told of itself."""
        usage = self._usage
        return Summary(
            Ending.COMPLETE if self.failure is None else Ending.ERROR,
            usage.prompt_tokens,
            usage.output_tokens,
            usage.load_seconds,
            usage.prompt_seconds,
            usage.output_seconds,
        )


class ErrorTranslator:
    """Translates an endpoint's error, which comes before any answer. See `relay.Translator`."""

    __slots__ = (
        "_dialect",
        "_endpoint",
        "_pieces",
        "_size",
        "_status",
        "failure",
        "head",
        "streams",
    )

    def __init__(self, dialect: Dialect, endpoint: str, head: ResponseHead) -> None:
        self._dialect = dialect
        self._endpoint = endpoint
        self._pieces: list[bytes] = []
        self._size = 0
        self.streams = False
        self.failure: str | None = None
        status = {422: 400, 401: 502, 403: 502}.get(head.status, head.status)
        self._status = head.status
        pause = head.get(b"retry-after")
        more = b"\r\nRetry-After: " + pause if pause is not None and status in (429, 503) else b""
        if status in (400, 404, 413):
            more += b"\r\nx-should-retry: false"
        self.head = _synthetic(status, "application/json", more)

    def feed(self, payload: list[bytes]) -> bytes:
        """Keep what came."""
        for piece in payload:
            if self._size < _ERROR_MAX:
                self._pieces.append(piece)
                self._size += len(piece)
        return b""

    def end(self) -> bytes:
        """The error in the client's dialect."""
        told = error_in(b"".join(self._pieces)[:_ERROR_MAX])
        said = f": {told[0]}" if told is not None else ""
        kind = kind_of_status(self._status) or Kind.BAD_REQUEST
        message = f"endpoint '{self._endpoint}' answered {self._status}{said}"
        return self._dialect.error_body(
            Failure(kind, message, self._endpoint, endpoint_status=self._status)
        )

    def summary(self) -> Summary:
        """An error tells no counts."""
        return Summary(Ending.COMPLETE)
