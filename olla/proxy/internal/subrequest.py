"""Requests of olla's own making: what a surface asks the fleet on behalf of its client.

The same exchange as for everybody else, between a request that never was on a wire and an answer
that is read where it would have been written. So queue, retries, limits and records hold for the
gateways' surfaces without a line of their own.
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
"""Bytes of an answer that wait for a slow reader, before its endpoint stops being read."""
ANSWER_MAX = 4_000_000
"""Bytes of an answer that are gathered: some million tokens of text."""
LINE_MAX = 1_000_000
"""Bytes of one line of an answer that is read line by line."""


class SubrequestIncoming:
    """A request that a surface has made. See `IncomingRequest`."""

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
        """The target without its query."""
        return self.target.partition("?")[0]

    def header(self, name: str) -> str | None:
        """The value of a header."""
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
        """Never."""
        return False

    def send_continue(self) -> None:
        """Nothing."""

    def whole(self) -> bytes | None:
        """Never: its body is there before the exchange begins."""
        return None

    def decoded(self) -> None:
        """Never: it was never encoded."""

    def pieces(self) -> AsyncIterator[bytes]:
        """Never: its body is there before the exchange begins."""
        raise AssertionError("an inner request has its body with it")


class SubrequestHost:
    """Whoever began an inner exchange: what it was for is recorded by who asked."""

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
    """The answer to an inner request, as it comes: read by a surface.

    A `Downstream` for its exchange. `leave` must be called by whoever stops reading. An answer
    that is longer than a surface gathers is stopped with a failure: an endless one used to take
    3.7 GB in six seconds.
    """

    def __init__(self, record: RequestRecord) -> None:
        self.minor = 1
        self.persistent = True
        self.wants_trailers = False
        self.closing = False
        self.record = record
        self.leave: Callable[[], None] = _nothing
        """Give up on it: the exchange is abandoned."""
        self.stop: Callable[[Failure], None] = _go_on
        """End it with a failure, as if its endpoint had broken off."""
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
        """The answer's status, once its head is there: 200, or an endpoint's error. What breaks it
        off after that, the body tells, however soon.

        Raises:
            Failed: olla refuses the request, or no endpoint could answer it. Redirects and other
                successes than 200 are no answers to inference.
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
        """End it because of what its reader found wrong with it; returns the failure."""
        self.stop(failure)
        if self.record.failure is None:  # all of it had come
            self.record.failure = failure
        return failure

    @property
    def streams(self) -> bool:
        """Whether its Content-Type is that of a stream, whose end the exchange checks."""
        return self._head is not None and self._head.streams

    @property
    def compressed(self) -> bool:
        """Whether it came compressed: the exchange can then say nothing within it."""
        return self._head is not None and self._head.coding != ""

    def told(self) -> list[tuple[str, str]]:
        """What olla tells of itself in the answer's head: `X-Olla-*` and `X-RateLimit-*`."""
        headers = self._head.headers if self._head is not None else []
        return [
            (name.decode(), value.decode("latin-1"))
            for lower, name, value in headers
            if lower.startswith((b"x-olla-", b"x-ratelimit-"))
        ]

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes, without framing. What broke it off is in `record.failure`, and
        in the dialect's own words the last piece."""
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                self._held -= len(piece)
                if not self.paused:
                    drained, self._drained = self._drained, []
                    for each in drained:
                        each()
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
        """The body's lines that are not empty, without their ends. A line of more than `LINE_MAX`
        bytes stops the answer: `record.failure` says so."""
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
                self.stop(self._too_large("one line of its answer", LINE_MAX))
                return
        line = b"".join(rest)
        if line.strip():
            yield line

    async def body(self) -> bytes:
        """The whole body.

        Raises:
            Failed: it broke off, or has more than `ANSWER_MAX` bytes.
        """
        pieces: list[bytes] = []
        size = 0
        async for piece in self.pieces():
            pieces.append(piece)
            size += len(piece)
            if size > ANSWER_MAX:
                too_large = self._too_large("its answer", ANSWER_MAX)
                self.stop(too_large)
                raise Failed(too_large)
        whole = b"".join(pieces)
        failure = self.record.failure
        if failure is not None and failure.endpoint_status is None:
            raise Failed(failure)
        return whole

    def _too_large(self, what: str, most: int) -> Failure:
        endpoint = self.record.endpoint
        message = f"endpoint '{endpoint}' sent more than {most / 1e6:g} MB for {what}"
        return Failure(Kind.ANSWER_TOO_LARGE, f"{message}; ask for less at a time", endpoint)

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    # --- for the exchange: see `relay.Downstream` -------------------------------------------

    @property
    def paused(self) -> bool:
        """The reader is slow."""
        return self._held > _HELD_MAX

    def write(self, data: bytes) -> None:
        """Take what would go to a client."""
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
        """What an answer says that was compressed unasked; one that cannot be read ends here."""
        try:
            return [part for piece in found for part in decoder.read(piece)]
        except Undecodable:
            self._unreadable = True
            return []

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Call back once the reader has caught up."""
        self._drained.append(callback)

    def close_delimited(self) -> None:
        """What breaks an answer off is told by its record, not by how it ends."""

    def complete(self) -> None:
        """See `close_delimited`."""

    def answered(self) -> None:
        """Nothing more will come."""
        # The exchange holds this, and is not held by it: no cycle.
        self.leave, self.stop = _nothing, _go_on
        # The connection to the endpoint may carry another answer by the time a slow reader has
        # caught up with this one.
        self._drained.clear()
        self._over = True
        self._changed.set()


def _nothing() -> None:
    """There is nothing to leave any more."""


def _go_on(_: Failure) -> None:
    """There is nothing to stop any more."""
