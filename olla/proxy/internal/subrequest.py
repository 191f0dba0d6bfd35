"""Send subrequests: requests that a surface sends to the fleet on behalf of its client.

A subrequest runs in a normal exchange. Its request is built in memory, and its response is read by
the surface instead of being written to a client. So queueing, retries, limits and records apply to
the gateway APIs without code for them.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

from olla.dialects.paths import Target
from olla.failures import Failed, Failure, Kind
from olla.fleet.endpoint import EndpointSpec
from olla.proxy.exchange.exchange import Exchange, ExchangeOwner
from olla.proxy.http.content_coding import AnswerDecoder, Undecodable
from olla.proxy.http.credentials import Credential
from olla.proxy.http.framing import Scanner
from olla.proxy.http.headers import unchanging_head
from olla.proxy.http.response_head import ResponseHead, parse_head
from olla.record import RequestRecord

__all__ = ["SubrequestHost", "SubrequestIncoming", "SubrequestResponse"]

_HEADERS = ((b"Content-Type", b"application/json"),)
_HELD_MAX = 262_144
"""Bytes of a response that wait for a slow reader before reading from the endpoint pauses."""
RESPONSE_MAX = 4_000_000
"""Bytes of a response that are read as a whole: about a million tokens of text."""
LINE_MAX = 1_000_000
"""Bytes of one line of a response that is read line by line."""


class SubrequestIncoming:
    """The request of a subrequest. Implements `IncomingRequest`."""

    def __init__(self, method: str, target: str, body: bytes, peer: str) -> None:
        self.method = method
        self.target = target
        self.peer = peer
        self.headers: Sequence[tuple[bytes, bytes]] = _HEADERS
        self.length: int | None = len(body)
        self.has_body = True
        self.plain = True
        self.cors = b""
        self.hidden: frozenset[bytes] | None = None
        self.credentials: tuple[Credential, ...] = ()

    @property
    def path(self) -> str:
        """Return the target without its query."""
        return self.target.partition("?")[0]

    def header(self, name: str) -> str | None:
        """Return the value of a header; only Content-Type is set."""
        return "application/json" if name.lower() == "content-type" else None

    def listed(self, name: str) -> str | None:
        """See `IncomingRequest.listed`."""
        return self.header(name)

    def outgoing(self, target: Target, spec: EndpointSpec, via: str | None) -> bytes:
        """See `IncomingRequest.outgoing`."""
        return unchanging_head(
            self.method, target.upstream_target, spec, self.headers, peer=self.peer, via=via
        )

    def expects_continue(self) -> bool:
        """Return False: the body is in memory."""
        return False

    def send_continue(self) -> None:
        """Do nothing: no client waits for `100 Continue`."""

    def whole(self) -> bytes | None:
        """Return None: the exchange begins with the body, and does not read it from here."""
        return None

    def decoded(self) -> None:
        """Do nothing: the body has no content coding."""

    def pieces(self) -> AsyncIterator[bytes]:
        """Raise AssertionError: the exchange begins with the body, and does not read it."""
        raise AssertionError("the body of a subrequest is not streamed")


class SubrequestHost:
    """Owns the exchange of a subrequest. The outer request is the one that is recorded."""

    def __init__(self, running: set[Exchange], outer: ExchangeOwner) -> None:
        self._running = running
        self._outer = outer

    def over(self, exchange: Exchange) -> None:
        """See `ExchangeOwner.over`."""
        self._running.discard(exchange)
        exchange.downstream.answered()

    def crashed(self, record: RequestRecord, error: Exception) -> None:
        """See `ExchangeOwner.crashed`."""
        self._outer.crashed(record, error)


class SubrequestResponse:
    """The response to a subrequest, read by a surface while it arrives.

    Its exchange writes to it as a `Downstream`. The surface must call `close` when it stops
    reading. A response that is longer than its bound is ended with a failure: an endless one took
    3.7 GB in six seconds.
    """

    def __init__(self, record: RequestRecord) -> None:
        self.minor = 1
        self.persistent = True
        self.wants_trailers = False
        self.closing = False
        self.record = record
        self.close: Callable[[], None] = _no_close
        """Abandon the exchange; without effect after its end."""
        self.stop: Callable[[Failure], None] = _no_failure
        """End the exchange with a failure, as if the endpoint had broken the response off."""
        self._raw = b""
        self._head: ResponseHead | None = None
        self._scanner: Scanner | None = None
        self._decoder: AnswerDecoder | None = None
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._unreadable = False
        self._over = False
        self._changed = asyncio.Event()
        self._drained: list[Callable[[], None]] = []

    # --- for the surface --------------------------------------------------------------------

    async def status(self) -> int:
        """Wait for the response's head and return its status.

        A failure after the head is reported with the body, even if it comes right after it.

        Raises:
            Failed: the router rejected the request, or no endpoint could answer it.
                Redirects and other successes than 200 are not answers to inference.
        """
        while self._head is None and not self._over:
            await self._wait()
        head, failure = self._head, self.record.failure
        if head is not None and head.status < 400:
            if head.status == 200:
                return 200
            endpoint = self.record.endpoint
            message = f"endpoint '{endpoint}' answered {head.status} and not 200; try again"
            raise Failed(self.fail(Failure(Kind.BAD_ANSWER, message, endpoint)))
        if failure is not None and failure.endpoint_status is None:
            raise Failed(failure)
        if head is None:
            raise Failed(Failure(Kind.INTERNAL, "the router failed at this request"))
        return head.status

    def fail(self, failure: Failure) -> Failure:
        """End the response with a failure that its reader found, and return the failure."""
        self.stop(failure)
        if self.record.failure is None:  # it had been received completely
            self.record.failure = failure
        return failure

    @property
    def streams(self) -> bool:
        """Whether its Content-Type is that of a stream. The exchange checks a stream's end."""
        return self._head is not None and self._head.streams

    @property
    def compressed(self) -> bool:
        """Whether it is compressed, so that the exchange can inject no error."""
        return self._head is not None and self._head.coding != ""

    def router_headers(self) -> list[tuple[str, str]]:
        """Return the headers that the router added: `X-Olla-*` and `X-RateLimit-*`."""
        headers = self._head.headers if self._head is not None else []
        return [
            (name.decode(), value.decode("latin-1"))
            for lower, name, value in headers
            if lower.startswith((b"x-olla-", b"x-ratelimit-"))
        ]

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the unframed body as it arrives. If it broke off, `record.failure` has the reason,
        and the last piece is the error in the format of the dialect."""
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                self._held -= len(piece)
                if not self.paused:
                    drained, self._drained = self._drained, []
                    for callback in drained:
                        callback()
                yield piece
            if self._unreadable:
                endpoint = self.record.endpoint
                message = f"endpoint '{endpoint}' sent a compressed answer that cannot be decoded"
                self.fail(Failure(Kind.BODY_FRAMING, message, endpoint))
                return
            if self._over:
                return
            await self._wait()

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield the body's non-empty lines, without line ends. A line of more than `LINE_MAX` bytes
        ends the response with a failure in `record.failure`."""
        rest: list[bytes] = []
        size = 0
        async for piece in self.pieces():
            first, *more = piece.split(b"\n")
            rest.append(first)
            size += len(first)
            if more:
                *whole, last = [b"".join(rest), *more]
                rest, size = [last], len(last)
                for line in whole:
                    if line.strip():
                        yield line
            if size > LINE_MAX:
                self.fail(self._too_large("one line of its answer", LINE_MAX))
                return
        line = b"".join(rest)
        if line.strip():
            yield line

    async def body(self) -> bytes:
        """Read and return the whole body.

        Raises:
            Failed: the body broke off, or has more than `RESPONSE_MAX` bytes.
        """
        pieces: list[bytes] = []
        size = 0
        async for piece in self.pieces():
            pieces.append(piece)
            size += len(piece)
            if size > RESPONSE_MAX:
                too_large = self._too_large("its answer", RESPONSE_MAX)
                self.fail(too_large)
                raise Failed(too_large)
        body = b"".join(pieces)
        failure = self.record.failure
        if failure is not None and failure.endpoint_status is None:
            raise Failed(failure)
        return body

    def _too_large(self, what: str, size_max: int) -> Failure:
        endpoint = self.record.endpoint
        message = f"endpoint '{endpoint}' sent more than {size_max / 1e6:g} MB for {what}"
        return Failure(Kind.ANSWER_TOO_LARGE, f"{message}; request a shorter answer", endpoint)

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    # --- for the exchange: see `relay.Downstream` -------------------------------------------

    @property
    def paused(self) -> bool:
        """Tell whether the reader is too slow, so that the exchange has to wait."""
        return self._held > _HELD_MAX

    def write(self, data: bytes) -> None:
        """Parse bytes that would be sent to a client."""
        if self._head is None:
            self._raw += data
            end = self._raw.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head = parse_head(self._raw[:end], "POST")
            self._scanner = self._head.scanner()
            self._decoder = AnswerDecoder(self._head.coding) if self._head.coding else None
            self._unreadable = self._head.coding is None
            data, self._raw = self._raw[end + 4 :], b""
        if data and self._scanner is not None and not self._scanner.done and not self._unreadable:
            found: list[bytes] = []
            self._scanner.feed(data, found)
            if self._decoder is not None:
                found = self._decoded(self._decoder, found)
            self._pieces += found
            self._held += sum(map(len, found))
        self._changed.set()

    def _decoded(self, decoder: AnswerDecoder, found: list[bytes]) -> list[bytes]:
        """Decompress a response that was compressed unasked; drop the rest if that fails."""
        try:
            return [part for piece in found for part in decoder.read(piece)]
        except Undecodable:
            self._unreadable = True
            return []

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Call back once the reader has caught up."""
        self._drained.append(callback)

    def close_delimited(self) -> None:
        """Do nothing: the record tells whether the response is complete, not how it ends."""

    def complete(self) -> None:
        """Do nothing, see `close_delimited`."""

    def answered(self) -> None:
        """End the response: the exchange writes nothing more."""
        # Drop the references to the exchange, which refers to this object: no cycle.
        self.close, self.stop = _no_close, _no_failure
        # By the time a slow reader has caught up, the connection to the endpoint may carry another
        # response.
        self._drained.clear()
        self._over = True
        self._changed.set()


def _no_close() -> None:
    """Do nothing: the exchange has ended."""


def _no_failure(_: Failure) -> None:
    """Do nothing: the exchange has ended."""
