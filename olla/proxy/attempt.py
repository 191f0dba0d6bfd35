"""One try against one endpoint: connect, send, and either relay or hand back a failure.

Everything that ends before the first byte for the client comes back to the owner as a failure, so
that it can try elsewhere; from the first byte on the relay owns the answer. Does not choose
endpoints, and does not retry. Runs in the event loop's callbacks: a task is only made to connect,
and to send a body that comes in pieces.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol, assert_never

import msgspec

from olla.failures import Failed, Failure, Kind
from olla.fleet.endpoint import EndpointSpec
from olla.proxy.deadlines import Deadlines
from olla.proxy.framing import chunk
from olla.proxy.head import ResponseHead
from olla.proxy.relay import Relay
from olla.proxy.upstream import Pool, UpstreamConnection
from olla.routing.decision import Choice, ChooseEndpoint, ChooseFallback, ChooseLine
from olla.tasks import report, spawn

__all__ = ["Attempt", "OutgoingRequest", "Owner", "Timeouts", "load_patience"]

_SILENT_TOO = 3.0
"""Seconds."""
LOAD_PATIENCE = 3.0
"""Times what is expected of a load: large models on slow disks take longer than any fixed limit."""


class Timeouts(msgspec.Struct, frozen=True):
    """Limits of one attempt, in seconds; 0 is none.

    `first_byte`: from the request's last byte to the answer's head; `silence`: between two pieces
    of the answer; `total`: in all. Where the endpoint may have to load the model first,
    `load_patience` is added to `first_byte`.
    """

    first_byte: float = 600.0
    silence: float = 600.0
    total: float = 0.0


def load_patience(choice: Choice, first_byte: float, now: float) -> float:
    """Seconds to wait longer for the first byte because a model may have to be loaded: 0 where it
    is in memory, else `first_byte` once more, or three times what that load and those before it
    are expected to take."""
    match choice:
        case ChooseLine():
            if choice.ready:
                return 0.0
            expected = max(choice.delay or 0.0, choice.line.load_seconds(now))
            return max(first_byte, LOAD_PATIENCE * expected)
        case ChooseFallback():
            return first_byte
        case ChooseEndpoint():
            return 0.0
        case never:
            assert_never(never)


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


class Owner(Protocol):
    """Who wants to know how a try ends. Exactly one of `failed`, `relayed` and `crashed` is
    called, once, or none of them after `Attempt.abort`."""

    def relay(self, connection: UpstreamConnection, head: ResponseHead) -> Relay:
        """The answer's head is there and will be relayed: by what."""
        ...

    def held(self, head: ResponseHead) -> None:
        """The endpoint answers with an error: `Attempt.accept` or `Attempt.abort` it."""
        ...

    def failed(self, failure: Failure) -> None:
        """Nothing went to the client."""
        ...

    def relayed(self) -> None:
        """The answer went to the client; the relay tells how that ended."""
        ...

    def crashed(self, error: Exception) -> None:
        """Olla's own code has failed at this try."""
        ...


class Attempt:
    """One try. A `Receiver` until the answer's head is there."""

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
        "held",
        "relay",
        "slot",
        "status",
    )

    def __init__(
        self,
        pool: Pool,
        deadlines: Deadlines,
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
        self.held = False
        """The endpoint has answered with an error, and the owner decides what becomes of it."""
        self.status: int | None = None
        """What the endpoint answered; None before it did."""

    def start(self) -> None:
        """Try. The owner is called when there is something to say, never within this call."""
        self._started = self._loop.time()
        connection = None
        if not self._request.fresh_connection:
            connection = self._pool.take_idle(self._spec)
        if connection is None:
            self._task = spawn(self._connect(), self._crashed)
        else:
            self._send(connection)

    def accept(self) -> None:
        """Relay the held answer after all."""
        connection = self._connection
        assert connection is not None
        assert connection.head is not None
        self._start_relay(connection, connection.head, more=True)
        connection.release_held()

    def abort(self) -> None:
        """Hang up on the endpoint. The owner hears no more of it."""
        self._owner = None
        self._clear()
        if self._connection is not None:
            self._connection.abort()

    def heard_at(self) -> float | None:
        """When the answer last moved, in the loop's time; None when it has not begun. While the
        client is slow, now: the endpoint is made to wait."""
        connection = self._connection
        if self.relay is None or connection is None:
            return None
        return self._loop.time() if connection.paused else connection.last_data

    def end_if_silent(self, why: Failure) -> None:
        """The endpoint is thought to be dead: an answer that has not moved for a while ends with
        an error; one that moves is the better evidence."""
        heard_at = self.heard_at()
        if self.relay is None or heard_at is None:
            return
        if self._loop.time() - heard_at >= _SILENT_TOO:
            message = f"{why.message} in the middle of its answer; try again"
            self.relay.stop(Failure(Kind.BODY_SILENT, message, why.endpoint))

    # --- Receiver ---------------------------------------------------------------------------

    def head(self, head: ResponseHead, more: bool) -> None:
        """The answer begins: relay it, or hold it back when another endpoint might do better."""
        connection, owner = self._connection, self._owner
        assert connection is not None
        assert owner is not None
        self.status = head.status
        if head.status >= 400:
            connection.hold()
            self.held = True
            self._clear()
            owner.held(head)
        else:
            self._start_relay(connection, head, more=more)

    def body(self, raw: bytes, payload: list[bytes]) -> None:
        """Never: the body goes to the relay."""
        raise AssertionError("the body of an answer belongs to its relay")

    def end(self, trailers: bytes) -> None:
        """Never: the end goes to the relay."""
        raise AssertionError("the end of an answer belongs to its relay")

    def broken(self, kind: Kind, message: str) -> None:
        """The connection broke before the answer began."""
        connection = self._connection
        if (
            kind is Kind.RESET
            and connection is not None
            and connection.reused
            and not connection.heard
            and self._request.pieces is None
        ):
            # The endpoint had closed the idle connection meanwhile. Others that idle may be as
            # dead, so make a new one; the client need not know.
            self._clear()
            self._task = spawn(self._connect(), self._crashed)
            return
        self._fail(Failure(kind, f"endpoint '{self._spec.name}' {message}", self._spec.name))

    # --- inside -----------------------------------------------------------------------------

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
            # What the client sent is no body: the endpoint must not take its start for the whole.
            connection.abort()
            self._task = None
            self._fail(failed.failure)
        except Exception:
            connection.abort()
            self._task = None
            message = "the client broke off in the middle of its request"
            self._fail(Failure(Kind.CLIENT_GONE, message))

    def _start_relay(
        self, connection: UpstreamConnection, head: ResponseHead, *, more: bool
    ) -> None:
        assert self._owner is not None
        self.relay = relay = self._owner.relay(connection, head)
        self._request.body = b""  # nothing is sent twice from here on; a stream may last long
        connection.receiver = relay
        relay.on_end = self._relayed
        limits = self._limits
        if not self.slot or limits.silence < limits.first_byte:
            self._watch(connection.last_data)
        relay.head(head, more)

    def _relayed(self) -> None:
        self._clear()
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.relayed()

    def _fail(self, failure: Failure) -> None:
        self._clear()
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.failed(failure)

    def _crashed(self, error: Exception) -> None:
        self._clear()
        if self._connection is not None:
            self._connection.abort()
        owner, self._owner = self._owner, None
        if owner is None:
            report(error)
        else:
            owner.crashed(error)

    def _clear(self) -> None:
        if self.slot:
            self._deadlines.forget(self)
        if self._task is not None:
            self._task.cancel()
            self._task = None

    # --- time-outs: looked at when the nearest deadline has come ------------------------------

    def _watch(self, now: float) -> None:
        limits = self._limits
        if self.relay is None and not limits.total:  # as it nearly always is
            if limits.first_byte:
                self._deadlines.watch(self, now + limits.first_byte + self._load)
            return
        deadline = self._deadline(now)[0]
        if deadline:
            self._deadlines.watch(self, deadline)

    def _deadline(self, now: float) -> tuple[float, Kind]:
        """When the nearest limit is reached (the loop's time; 0 for never), and which that is."""
        limits, connection = self._limits, self._connection
        assert connection is not None
        deadline, kind = 0.0, Kind.TOTAL_TIMEOUT
        if limits.total:
            deadline = self._started + limits.total
        if self.relay is None:
            if limits.first_byte:
                kind_at = connection.last_data + limits.first_byte + self._load
                if not deadline or kind_at < deadline:
                    deadline, kind = kind_at, Kind.FIRST_BYTE_TIMEOUT
        elif limits.silence:
            # While the client is slow, the endpoint is made to wait: its silence says nothing.
            kind_at = (now if connection.paused else connection.last_data) + limits.silence
            if not deadline or kind_at < deadline:
                deadline, kind = kind_at, Kind.BODY_SILENT
        return deadline, kind

    def due(self) -> None:
        """A deadline has come, unless something was heard meanwhile. See `Watched`."""
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
            kind, f"endpoint '{self._spec.name}' {self._limit_text(kind)}", self._spec.name
        )
        if self.relay is None:
            connection.abort()
            self._fail(failure)
        else:
            self.relay.stop(failure)

    def _limit_text(self, kind: Kind) -> str:
        limits = self._limits
        if kind is Kind.FIRST_BYTE_TIMEOUT:
            limit = limits.first_byte + self._load
            return f"did not begin to answer within {limit:g} s (proxy.response_header_timeout)"
        if kind is Kind.BODY_SILENT:
            return f"sent nothing for {limits.silence:g} s (proxy.read_timeout)"
        return f"took more than {limits.total:g} s in all (proxy.response_timeout)"
