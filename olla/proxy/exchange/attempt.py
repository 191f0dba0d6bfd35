"""One attempt at one endpoint: connect, send, and either relay the response or report a failure.

A failure before the first byte goes to the client is reported to the owner, which may retry on
another endpoint. This includes a valid head that arrives together with an invalid body. From the
first byte on, the relay owns the response. An attempt neither chooses endpoints nor retries.

It runs in the event loop's callbacks. Tasks are created only to connect and to send a body in
pieces.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol, assert_never

import msgspec

from olla.failures import Failed, Failure, Kind, Phase
from olla.fleet.endpoint import EndpointSpec
from olla.proxy.bounds.timer_wheel import TimerWheel
from olla.proxy.http.framing import chunk
from olla.proxy.http.response_head import ResponseHead
from olla.proxy.upstream.pool import Pool, UpstreamConnection
from olla.proxy.upstream.relay import Relay
from olla.routing.decision import Choice, ChooseEndpoint, ChooseFallback, ChooseInstance
from olla.tasks import report, spawn

__all__ = ["Attempt", "OutgoingRequest", "Owner", "Timeouts", "load_patience"]

_WRITE_SIZE = 262_144
"""Bytes of a long body that are written before waiting for the endpoint."""
_SILENCE_MIN = 3.0
"""Seconds without data after which a response of a dead endpoint is stopped."""
LOAD_PATIENCE = 3.0
"""Multiple of a load's expected time: large models on slow disks exceed any fixed limit."""


class Timeouts(msgspec.Struct, frozen=True):
    """Time limits of one attempt in seconds; 0 for none.

    `first_byte`: from the request's last byte to the response's head; `silence`: between two pieces
    of the response; `total`: the whole attempt. If the endpoint may have to load the model first,
    `load_patience` is added to `first_byte`.
    """

    first_byte: float = 600.0
    silence: float = 600.0
    total: float = 0.0


def load_patience(choice: Choice, first_byte: float, now: float) -> float:
    """Return the extra seconds to wait for the first byte because a model may have to be loaded.

    0 if the model is resident, else at least `first_byte`, and at least three times the expected
    time of that load and of those before it.
    """
    match choice:
        case ChooseInstance():
            if choice.ready:
                return 0.0
            expected = max(choice.delay or 0.0, choice.instance.load_seconds(now))
            return max(first_byte, LOAD_PATIENCE * expected)
        case ChooseFallback():
            return first_byte
        case ChooseEndpoint():
            return 0.0
        case never:
            assert_never(never)


class OutgoingRequest(msgspec.Struct):
    """A request to an endpoint.

    The body is `body`, or `parts` if it is long (see `message_building`), or `pieces` if it is
    streamed from the client.
    """

    method: str
    head: bytes
    body: bytes = b""
    pieces: Callable[[], AsyncIterator[bytes]] | None = None
    chunked: bool = False
    fresh_connection: bool = False
    """Do not reuse an idle connection: if it fails, the endpoint may or may not have acted."""
    parts: tuple[bytes | memoryview, ...] = ()


class Owner(Protocol):
    """The owner of an attempt.

    Exactly one of `failed`, `relayed` and `crashed` is called, once; none after `Attempt.abort`.
    """

    def relay(self, connection: UpstreamConnection, head: ResponseHead) -> Relay:
        """Create the relay for a response. The attempt can still fail until the relay requests the
        head for the client."""
        ...

    def accepts(self, head: ResponseHead) -> bool:
        """Return whether to relay an endpoint's error. If False, the owner aborted the attempt."""
        ...

    def failed(self, failure: Failure) -> None:
        """Called if the attempt failed before anything went to the client."""
        ...

    def relayed(self) -> None:
        """Called when the relay has ended; the relay has the result."""
        ...

    def crashed(self, error: Exception) -> None:
        """Called after an unexpected exception in olla's code."""
        ...


class Attempt:
    """One attempt. The connection's `Receiver` until the relay takes over."""

    __slots__ = (
        "_connection",
        "_deadlines",
        "_limits",
        "_load",
        "_loop",
        "_owner",
        "_pool",
        "_request",
        "_spec",
        "_started",
        "_task",
        "relay",
        "slot",
        "status",
    )

    def __init__(
        self,
        pool: Pool,
        deadlines: TimerWheel,
        spec: EndpointSpec,
        request: OutgoingRequest,
        limits: Timeouts,
        owner: Owner,
        *,
        load: float,
    ) -> None:
        self._pool = pool
        self._deadlines = deadlines
        self._spec = spec
        self._request = request
        self._limits = limits
        self._owner: Owner | None = owner
        self._load = load
        self._loop = pool.loop
        self._connection: UpstreamConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = 0.0
        self.slot = 0.0
        self.relay: Relay | None = None
        """The relay of the response; None before the response begins."""
        self.status: int | None = None
        """The status of the endpoint's response; None before it begins."""

    def start(self) -> None:
        """Start the attempt. The owner is never called within this call."""
        self._started = self._loop.time()
        connection = None
        if not self._request.fresh_connection:
            connection = self._pool.take_idle(self._spec)
        if connection is None:
            self._task = spawn(self._connect(), self._crashed)
        else:
            self._send(connection)

    def abort(self) -> None:
        """Close the connection to the endpoint. The owner is not called any more."""
        self._owner = None
        self._cancel_pending()
        if self._connection is not None:
            self._connection.abort()

    def last_activity(self) -> float | None:
        """Return when the last byte of the response arrived, in the loop's time; None before it.

        While reading from the endpoint is paused for a slow client, returns the current time.
        """
        connection = self._connection
        if self.relay is None or connection is None:
            return None
        return self._loop.time() if connection.paused else connection.last_data

    def stop_if_silent(self, why: Failure) -> None:
        """Stop a response that is silent, because its endpoint is considered dead.

        A response that still receives data is better evidence, and continues.
        """
        last_activity = self.last_activity()
        if self.relay is None or last_activity is None:
            return
        if self._loop.time() - last_activity >= _SILENCE_MIN:
            message = f"{why.message} in the middle of the response; try again"
            self.relay.stop(Failure(Kind.BODY_SILENT, message, why.endpoint))

    # --- Receiver ---------------------------------------------------------------------------

    def head(self, head: ResponseHead, more: bool) -> None:
        """Handle the head. A head without body bytes is relayed at once, because a client may wait
        for it. Otherwise it is relayed together with the first body bytes."""
        owner = self._owner
        assert owner is not None
        self.status = head.status
        if (head.status < 400 or owner.accepts(head)) and not more:
            self._start_relay(head).head(head, False)

    def body(self, raw: bytes, payload: list[bytes], last: bool) -> None:
        """Relay the head and the first body bytes, which are valid."""
        relay = self._start_relay_with_body()
        if relay is not None:
            relay.body(raw, payload, last)

    def end(self, trailers: bytes) -> None:
        """Relay the head of a response without a body."""
        relay = self._start_relay_with_body()
        if relay is not None:
            relay.end(trailers)

    def broken(self, kind: Kind, message: str, raw: bytes, payload: list[bytes]) -> None:
        """Reconnect or fail, because the connection broke before anything went to the client."""
        connection = self._connection
        if (
            kind is Kind.RESET
            and connection is not None
            and connection.reused
            and not connection.has_response_bytes
            and self._request.pieces is None
        ):
            # The endpoint had closed the idle connection. Other idle connections may be closed as
            # well, so make a new one. The client does not notice.
            self._cancel_pending()
            self._task = spawn(self._connect(), self._crashed)
            return
        name = self._spec.name
        self._fail(_retryable(Failure(kind, f"endpoint '{name}' {message}", name)))

    # --- sending and relaying ---------------------------------------------------------------

    async def _connect(self) -> None:
        try:
            connection = await self._pool.connect(self._spec)
        except Failed as failed:
            self._task = None
            self._fail(failed.failure)
            return
        self._task = None
        self._send(connection)

    def _send(self, connection: UpstreamConnection) -> None:
        request = self._request
        self._connection = connection
        connection.begin(request.method, self)
        if request.pieces is not None:
            connection.write(request.head)
            self._task = spawn(self._send_pieces(connection, request.pieces), self._crashed)
        elif request.parts:
            connection.write(request.head)
            self._task = spawn(self._send_parts(connection, request.parts), self._crashed)
        else:
            connection.write_all(request.head, request.body)
            connection.sent = True
        self._watch(connection.last_data)

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
            # The client's body is invalid: the endpoint must not mistake its start for the whole.
            connection.abort()
            self._task = None
            self._fail(failed.failure)
        except Exception:
            connection.abort()
            self._task = None
            message = "the client disconnected in the middle of its request"
            self._fail(Failure(Kind.CLIENT_GONE, message))

    async def _send_parts(
        self, connection: UpstreamConnection, parts: tuple[bytes | memoryview, ...]
    ) -> None:
        """Send a long body as fast as the endpoint reads it. If written to a TLS connection in one
        call, it would be encrypted in one call, which takes 100 ms and twice the memory."""
        for part in parts:
            view = memoryview(part)
            for at in range(0, len(view), _WRITE_SIZE):
                connection.write(view[at : at + _WRITE_SIZE])
                await connection.drained()
                connection.last_data = self._loop.time()
                if not connection.usable:
                    return  # the connection's receiver is notified
        connection.sent = True
        self._task = None

    def _start_relay_with_body(self) -> Relay | None:
        """Start the relay with a head that body bytes follow. Returns None if it rejects it."""
        connection = self._connection
        assert connection is not None
        assert connection.head is not None
        relay = self._start_relay(connection.head)
        relay.head(connection.head, True)
        return self.relay

    def _start_relay(self, head: ResponseHead) -> Relay:
        connection, owner = self._connection, self._owner
        assert connection is not None
        assert owner is not None
        self.relay = relay = owner.relay(connection, head)
        self._request.body = b""  # no retry from here on; free the memory during long streams
        self._request.parts = ()
        connection.receiver = relay
        relay.on_end = self._relayed
        limits = self._limits
        if not self.slot or limits.silence < limits.first_byte:
            self._watch(connection.last_data)
        return relay

    def _relayed(self) -> None:
        relay = self.relay
        assert relay is not None
        if relay.failure is not None and not relay.begun:
            self.relay = None
            self._fail(_retryable(relay.failure))
            return
        self._cancel_pending()
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.relayed()

    def _fail(self, failure: Failure) -> None:
        self._cancel_pending()
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.failed(failure)

    def _crashed(self, error: Exception) -> None:
        self._cancel_pending()
        if self._connection is not None:
            self._connection.abort()
        owner, self._owner = self._owner, None
        if owner is None:
            report(error)
        else:
            owner.crashed(error)

    def _cancel_pending(self) -> None:
        if self.slot:
            self._deadlines.forget(self)
        if self._task is not None:
            self._task.cancel()
            self._task = None

    # --- timeouts: checked at the earliest deadline -------------------------------------------

    def _watch(self, now: float) -> None:
        limits = self._limits
        if self.relay is None and not limits.total:  # the most frequent case
            if limits.first_byte:
                self._deadlines.watch(self, now + limits.first_byte + self._load)
            return
        deadline = self._deadline(now)[0]
        if deadline:
            self._deadlines.watch(self, deadline)

    def _deadline(self, now: float) -> tuple[float, Kind]:
        """Return when the earliest limit is reached (loop time; 0 for never), and its kind."""
        limits, connection = self._limits, self._connection
        assert connection is not None
        deadline, kind = 0.0, Kind.TOTAL_TIMEOUT
        if limits.total:
            deadline = self._started + limits.total
        if self.relay is None:
            if limits.first_byte:
                kind_deadline = connection.last_data + limits.first_byte + self._load
                if not deadline or kind_deadline < deadline:
                    deadline, kind = kind_deadline, Kind.FIRST_BYTE_TIMEOUT
        elif limits.silence:
            # While reading is paused for a slow client, the endpoint's silence means nothing.
            kind_deadline = (now if connection.paused else connection.last_data) + limits.silence
            if not deadline or kind_deadline < deadline:
                deadline, kind = kind_deadline, Kind.BODY_SILENT
        return deadline, kind

    def due(self) -> None:
        """Time out, or extend the deadline if data has arrived. See `Watched`."""
        try:
            self._time_out()
        except Exception as error:
            self._crashed(error)

    def _time_out(self) -> None:
        now = self._loop.time()
        deadline, kind = self._deadline(now)
        connection = self._connection
        if not deadline or connection is None or self._owner is None:
            return
        if deadline > now + 0.001:
            self._deadlines.watch(self, deadline)
            return
        failure = Failure(
            kind, f"endpoint '{self._spec.name}' {self._timeout_text(kind)}", self._spec.name
        )
        if self.relay is None:
            connection.abort()
            self._fail(failure)
        else:
            self.relay.stop(failure)

    def _timeout_text(self, kind: Kind) -> str:
        limits = self._limits
        if kind is Kind.FIRST_BYTE_TIMEOUT:
            limit = limits.first_byte + self._load
            return f"sent no response within {limit:g} s (proxy.response_header_timeout)"
        if kind is Kind.BODY_SILENT:
            return f"sent nothing for {limits.silence:g} s (proxy.read_timeout)"
        return f"took more than {limits.total:g} s in total (proxy.response_timeout)"


def _retryable(failure: Failure) -> Failure:
    """Convert a body failure into one that allows a retry: the client has received nothing."""
    if failure.facts.phase is not Phase.BODY:
        return failure
    return msgspec.structs.replace(failure, kind=Kind.BAD_ANSWER)
