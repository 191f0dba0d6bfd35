"""One try against one endpoint: connect, send, and either relay or hand back a failure.

Whatever fails before the first byte has gone to the client comes back to the owner as a failure,
so that it can try elsewhere: also when the answer's head was good, and what came with it was not.
From the first byte on the relay owns the answer. Does not choose endpoints, and does not retry.
Runs in the event loop's callbacks: a task is only made to connect, and to send a body that comes in
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

_SENT_AT_ONCE = 262_144
"""Bytes."""
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
    """What is sent: the head, and a body that is either whole or comes in pieces. `parts` is a
    whole one that is long, see `forming`."""

    method: str
    head: bytes
    body: bytes = b""
    pieces: Callable[[], AsyncIterator[bytes]] | None = None
    chunked: bool = False
    fresh_connection: bool = False
    """Never on a connection that was idle: it could die in a way that leaves open whether the
    endpoint has acted."""
    parts: tuple[bytes | memoryview, ...] = ()


class Owner(Protocol):
    """Who wants to know how a try ends. Exactly one of `failed`, `relayed` and `crashed` is
    called, once, or none of them after `Attempt.abort`."""

    def relay(self, connection: UpstreamConnection, head: ResponseHead) -> Relay:
        """What relays the answer. Nothing is decided by that: the try can still fail, until the
        relay asks for the head that the client gets."""
        ...

    def accepts(self, head: ResponseHead) -> bool:
        """Whether an endpoint's error is to be relayed; if not, the owner has aborted the try."""
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
        """What relays the answer; None as long as no byte of it has gone to the client."""
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
        """The answer begins. A head that came alone is passed on at once, because a client may
        wait for it; another one waits for what came with it."""
        owner = self._owner
        assert owner is not None
        self.status = head.status
        if (head.status < 400 or owner.accepts(head)) and not more:
            self._start_relay(head).head(head, False)

    def body(self, raw: bytes, payload: list[bytes], last: bool) -> None:
        """The first of the body is there, and good."""
        relay = self._relaying()
        if relay is not None:
            relay.body(raw, payload, last)

    def end(self, trailers: bytes) -> None:
        """There is no body."""
        relay = self._relaying()
        if relay is not None:
            relay.end(trailers)

    def broken(self, kind: Kind, message: str, raw: bytes, payload: list[bytes]) -> None:
        """The connection broke before anything went to the client: what was good of the answer is
        not wanted any more."""
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
        name = self._spec.name
        self._fail(_unseen(Failure(kind, f"endpoint '{name}' {message}", name)))

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
            # What the client sent is no body: the endpoint must not take its start for the whole.
            connection.abort()
            self._task = None
            self._fail(failed.failure)
        except Exception:
            connection.abort()
            self._task = None
            message = "the client broke off in the middle of its request"
            self._fail(Failure(Kind.CLIENT_GONE, message))

    async def _send_parts(
        self, connection: UpstreamConnection, parts: tuple[bytes | memoryview, ...]
    ) -> None:
        """Send a long body, as fast as the endpoint takes it: given to a TLS connection at once, it
        would be encrypted at once, which takes a tenth of a second and as much memory again."""
        for part in parts:
            view = memoryview(part)
            for at in range(0, len(view), _SENT_AT_ONCE):
                connection.write(view[at : at + _SENT_AT_ONCE])
                await connection.drained()
                connection.last_data = self._loop.time()
                if not connection.usable:
                    return  # whoever reads from it is told
        connection.sent = True
        self._task = None

    def _relaying(self) -> Relay | None:
        """The relay, once it has accepted the head; None where it has not."""
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
        self._request.body = b""  # nothing is sent twice from here on; a stream may last long
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
            self._fail(_unseen(relay.failure))
            return
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


def _unseen(failure: Failure) -> Failure:
    """The failure of a body of which nothing has gone to the client: another endpoint may do
    better."""
    if failure.facts.phase is not Phase.BODY:
        return failure
    return msgspec.structs.replace(failure, kind=Kind.BAD_ANSWER)
