"""One try against one endpoint: connect, send, and either relay or hand back a failure.

Everything that ends before the first byte for the client comes back as an outcome, so that the
exchange can try elsewhere; from the first byte on the relay owns the answer. Does not choose
endpoints, and does not retry.
"""

import asyncio
import enum
from collections.abc import AsyncIterator, Callable

import msgspec

from olla.failures import Failed, Failure, Kind
from olla.fleet.endpoint import EndpointSpec
from olla.proxy.framing import chunk
from olla.proxy.head import ResponseHead
from olla.proxy.relay import Relay
from olla.proxy.upstream import Pool, UpstreamConnection

__all__ = ["Attempt", "Outcome", "OutgoingRequest", "Timeouts"]

_JOINED_MAX = 65536
"""Up to this size, bytes, head and body go out in one write."""
_RETRYABLE = frozenset({502, 503, 504})


class Timeouts(msgspec.Struct, frozen=True):
    """Limits of one attempt, in seconds; 0 is none.

    `first_byte`: from the request's last byte to the answer's head; `silence`: between two pieces
    of the answer; `total`: in all; `load`: what is added to `first_byte` when the endpoint may
    have to load the model first.
    """

    first_byte: float = 600.0
    silence: float = 600.0
    total: float = 0.0
    load: float = 600.0


class OutgoingRequest(msgspec.Struct):
    """What is sent: the head, and a body that is either whole or comes in pieces."""

    method: str
    head: bytes
    body: bytes = b""
    pieces: Callable[[], AsyncIterator[bytes]] | None = None
    chunked: bool = False
    fresh_connection: bool = False
    """Never on a connection that was idle: it could die in a way that leaves open whether the
    endpoint has acted."""


class Outcome(enum.Enum):
    """How a try ended."""

    RELAYED = "relayed"
    """The answer went to the client; `relay` tells how that ended."""
    FAILED = "failed"
    """Nothing went to the client; `failure` says why."""
    HELD = "held"
    """The endpoint answered that it cannot now; the answer waits in `held`, and can still be
    relayed with `accept`."""


class Attempt:
    """One try. A `Receiver` until the answer's head is there."""

    def __init__(
        self,
        pool: Pool,
        spec: EndpointSpec,
        request: OutgoingRequest,
        timeouts: Timeouts,
        *,
        may_load: bool,
        make_relay: Callable[[UpstreamConnection, ResponseHead], Relay],
    ) -> None:
        self._pool = pool
        self._spec = spec
        self._request = request
        self._timeouts = timeouts
        self._may_load = may_load
        self._make_relay = make_relay
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[Outcome] = self._loop.create_future()
        self._connection: UpstreamConnection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._upload: asyncio.Task[None] | None = None
        self._started = self._loop.time()
        self._stale = False
        self.relay: Relay | None = None
        self.held: ResponseHead | None = None
        self.failure: Failure | None = None
        self.first_byte: float | None = None
        """When the head came, in the loop's time."""

    async def run(self) -> Outcome:
        """Try. When cancelled, the endpoint is hung up on.

        Raises:
            Failed: connecting failed.
        """
        try:
            connection = None
            if not self._request.fresh_connection:
                connection = self._pool.take_idle(self._spec)
            while True:
                if connection is None:
                    connection = await self._pool.connect(self._spec)
                outcome = await self._on(connection)
                if outcome is not None:
                    return outcome
                # The endpoint had closed the idle connection meanwhile. Others that idle may be
                # as dead, so make a new one; the client need not know.
                connection = None
        except asyncio.CancelledError:
            self.abort()
            raise
        finally:
            if self.held is None:
                self._clear()

    async def accept(self) -> Outcome:
        """Relay the held answer after all."""
        assert self._connection is not None
        assert self.held is not None
        connection, head = self._connection, self.held
        self.held = None
        self._done = self._loop.create_future()
        try:
            self._start_relay(connection, head, more=True)
            connection.release_held()
            return await self._done
        except asyncio.CancelledError:
            self.abort()
            raise
        finally:
            self._clear()

    def abort(self) -> None:
        """Hang up on the endpoint."""
        self.held = None
        self._clear()
        if self._connection is not None:
            self._connection.abort()

    # --- Receiver ---------------------------------------------------------------------------

    def head(self, head: ResponseHead, more: bool) -> None:
        """The answer begins: relay it, or hold it back when another endpoint might do better."""
        assert self._connection is not None
        self.first_byte = self._loop.time()
        if head.status in _RETRYABLE:
            self.held = head
            self._connection.hold()
            self._settle(Outcome.HELD)
            return
        self._start_relay(self._connection, head, more=more)

    def body(self, raw: bytes, payload: list[bytes]) -> None:
        """Never: the body goes to the relay."""
        raise AssertionError("the body of an answer belongs to its relay")

    def end(self, trailers: bytes) -> None:
        """Never: the end goes to the relay."""
        raise AssertionError("the end of an answer belongs to its relay")

    def broken(self, kind: Kind, message: str) -> None:
        """The connection broke before the answer began."""
        connection = self._connection
        if kind is Kind.RESET and connection is not None and connection.reused:
            self._stale = not connection.heard and self._request.pieces is None
        self._fail(kind, message)

    # --- inside -----------------------------------------------------------------------------

    async def _on(self, connection: UpstreamConnection) -> Outcome | None:
        """Send and wait. None when the connection turned out to have been closed before."""
        self._connection = connection
        self._stale = False
        connection.begin(self._request.method, self)
        self._send(connection)
        self._arm()
        outcome = await self._done
        if self._stale:
            self._clear()
            self._done = self._loop.create_future()
            return None
        return outcome

    def _send(self, connection: UpstreamConnection) -> None:
        request = self._request
        if request.pieces is not None:
            connection.write(request.head)
            self._upload = self._loop.create_task(self._send_pieces(connection, request.pieces))
            return
        if len(request.body) <= _JOINED_MAX:
            connection.write(request.head + request.body)
        else:
            connection.write(request.head)
            connection.write(request.body)
        connection.sent = True

    async def _send_pieces(
        self, connection: UpstreamConnection, pieces: Callable[[], AsyncIterator[bytes]]
    ) -> None:
        try:
            async for piece in pieces():
                connection.write(chunk(piece) if self._request.chunked else piece)
                await connection.drained()
                connection.last_data = self._loop.time()
                if not connection.usable:
                    return
            if self._request.chunked:
                connection.write(b"0\r\n\r\n")
            connection.sent = True
        except Failed as failed:
            # What the client sent is no body: the endpoint must not take its start for the whole.
            connection.abort()
            self.failure = failed.failure
            self._settle(Outcome.FAILED)
        except Exception:
            connection.abort()
            self._fail(Kind.CLIENT_GONE, "the client broke off in the middle of its request")

    def _start_relay(
        self, connection: UpstreamConnection, head: ResponseHead, *, more: bool
    ) -> None:
        relay = self._make_relay(connection, head)
        self.relay = relay
        self._request.body = b""  # nothing is sent twice from here on; a stream may last long
        connection.receiver_is(relay)
        relay.on_end = self._relayed
        self._arm()  # the silence limit may end before the first-byte limit would have
        relay.head(head, more)

    def _relayed(self) -> None:
        self._settle(Outcome.RELAYED)

    def _settle(self, outcome: Outcome) -> None:
        if not self._done.done():
            self._done.set_result(outcome)

    def _fail(self, kind: Kind, message: str) -> None:
        self.failure = Failure(kind, f"endpoint '{self._spec.name}' {message}", self._spec.name)
        if kind is Kind.CLIENT_GONE:
            self.failure = Failure(kind, message)
        self._settle(Outcome.FAILED)

    def _clear(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._upload is not None:
            self._upload.cancel()
            self._upload = None

    # --- time-outs: one timer, set to the nearest deadline, that looks again when it fires ----

    def _deadline(self) -> tuple[float, Kind, str] | None:
        limits, connection = self._timeouts, self._connection
        assert connection is not None
        found: list[tuple[float, Kind, str]] = []
        if self.first_byte is None:
            limit = limits.first_byte
            if limit:
                limit += limits.load if self._may_load else 0.0
                found.append(
                    (
                        connection.last_data + limit,
                        Kind.FIRST_BYTE_TIMEOUT,
                        f"did not begin to answer within {limit:g} s "
                        "(proxy.response_header_timeout)",
                    )
                )
        elif limits.silence:
            since = self._loop.time() if connection.paused else connection.last_data
            found.append(
                (
                    since + limits.silence,
                    Kind.BODY_SILENT,
                    f"sent nothing for {limits.silence:g} s (proxy.read_timeout)",
                )
            )
        if limits.total:
            found.append(
                (
                    self._started + limits.total,
                    Kind.TOTAL_TIMEOUT,
                    f"took more than {limits.total:g} s in all (proxy.response_timeout)",
                )
            )
        return min(found, key=lambda each: each[0], default=None)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._deadline()
        if deadline is not None:
            self._timer = self._loop.call_at(deadline[0], self._check)

    def _check(self) -> None:
        self._timer = None
        deadline = self._deadline()
        if deadline is None or self._connection is None or self._done.done():
            return
        at, kind, message = deadline
        if at > self._loop.time():
            self._arm()
            return
        relay = self.relay
        self._connection.abort()
        if relay is None:
            self._fail(kind, message)
        else:
            name = self._spec.name
            relay.fail(Failure(kind, f"endpoint '{name}' {message}", name))
