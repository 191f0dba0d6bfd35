"""One attempt on streams in memory: each sequence of events has exactly one outcome."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from olla.failures import Failed, Failure, Kind
from olla.proxy.bounds.timer_wheel import TimerWheel
from olla.proxy.exchange.attempt import Attempt, OutgoingRequest, Timeouts
from olla.proxy.http.response_head import ResponseHead
from olla.proxy.upstream.pool import Pool, UpstreamConnection
from olla.proxy.upstream.relay import Relay, RelayOptions
from tests.proxy.exchange.test_exchange import PATHS
from tests.proxy.streams import SPEC, Client, Endpoint, idle_endpoint, new_pool

REQUEST = b"POST /api/chat HTTP/1.1\r\n\r\n"
WHOLE = b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"done":true}'
STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
)
FIRST = b'e\r\n{"done":false}\r\n'


class Run:
    """An attempt, and an owner that records the calls."""

    def __init__(self, limits: Timeouts, request: OutgoingRequest, *, idle: bool = True) -> None:
        self.pool: Pool = new_pool()
        self.endpoint: Endpoint | None = idle_endpoint(self.pool) if idle else None
        self.client = Client()
        self.failure: Failure | None = None
        self.outcomes: list[str] = []
        self.acceptable = True
        self.attempt = Attempt(self.pool, TimerWheel(), SPEC, request, limits, self, load=0.0)
        self.attempt.start()

    def relay(self, connection: UpstreamConnection, head: ResponseHead) -> Relay:
        """See `Owner.relay`."""
        return Relay(
            connection,
            self.client,
            PATHS.resolve("POST", "/api/chat"),
            head,
            lambda head: b"HEAD %d|" % head.status,
            RelayOptions(endpoint="a", trailer=None),
        )

    def accepts(self, head: ResponseHead) -> bool:
        """See `Owner.accepts`."""
        if not self.acceptable:
            self.attempt.abort()
        return self.acceptable

    def failed(self, failure: Failure) -> None:
        """See `Owner.failed`."""
        self.failure = failure
        self.outcomes.append("failed")

    def relayed(self) -> None:
        """See `Owner.relayed`."""
        self.outcomes.append("relayed")

    def crashed(self, error: Exception) -> None:
        """See `Owner.crashed`."""
        self.outcomes.append(f"crashed: {error!r}")

    def send(self, *pieces: bytes) -> None:
        """Send bytes from the endpoint."""
        assert self.endpoint is not None
        self.endpoint.send(*pieces)

    def pass_time(self, seconds: float) -> None:
        """Move the endpoint's last data into the past, and fire the timer."""
        assert self.endpoint is not None
        self.endpoint.connection.last_data -= seconds
        self.attempt.due()


def begin(
    limits: Timeouts | None = None, request: OutgoingRequest | None = None, *, idle: bool = True
) -> Run:
    """Start an attempt."""
    sent = request or OutgoingRequest("POST", REQUEST, b"body")
    return Run(limits or Timeouts(), sent, idle=idle)


async def test_a_response_is_relayed() -> None:
    """The request is sent at once; head and body of one read are relayed together."""
    run = begin()
    assert run.endpoint is not None
    assert run.endpoint.transport.written == REQUEST + b"body"
    run.send(WHOLE)
    assert run.outcomes == ["relayed"]
    assert run.client.received == b'HEAD 200|{"done":true}'
    assert run.pool.idle == 1


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        ((), Kind.RESET),
        ((b"HTTP/1.1 200 OK\r\nContent-",), Kind.RESET),
        ((b"SMTP ready\r\n\r\n",), Kind.BAD_HEAD),
        ((STREAM + b"zz\r\n",), Kind.BAD_ANSWER),
    ],
    ids=["nothing", "half a head", "no HTTP", "bad framing"],
)
async def test_a_fault_before_the_first_byte_fails_the_attempt(
    sent: tuple[bytes, ...], kind: Kind
) -> None:
    """The client has received nothing, so the request can be retried."""

    async def nothing() -> AsyncIterator[bytes]:
        yield b""

    # With a streamed body, a closed idle connection is not replaced silently.
    run = begin(request=OutgoingRequest("POST", REQUEST, pieces=nothing))
    run.send(*sent)
    if not run.outcomes:
        assert run.endpoint is not None
        run.endpoint.close()
    assert run.outcomes == ["failed"]
    assert run.failure is not None
    assert run.failure.kind is kind
    assert run.client.received == b""


async def test_a_fault_after_the_first_byte_cuts_the_response_off() -> None:
    """The client gets an in-band error and no regular end."""
    run = begin()
    run.send(STREAM, FIRST)
    assert run.client.received.startswith(b"HEAD 200|")
    assert run.endpoint is not None
    run.endpoint.close()
    assert run.outcomes == ["relayed"]
    assert run.attempt.relay is not None
    assert run.attempt.relay.failure is not None
    assert run.attempt.relay.failure.kind is Kind.BODY_TRUNCATED
    assert not run.client.persistent
    assert b'"error"' in run.client.received
    assert not run.client.received.endswith(b"0\r\n\r\n")


async def test_a_closed_idle_connection_is_replaced() -> None:
    """The client does not notice. In this test the new connection is refused."""
    run = begin()
    assert run.endpoint is not None
    run.endpoint.close()
    assert run.outcomes == []
    assert run.attempt._task is not None
    await asyncio.gather(run.attempt._task, return_exceptions=True)
    assert run.outcomes == ["failed"]
    assert run.failure is not None
    assert run.failure.kind is Kind.CONNECT_REFUSED


async def test_a_refused_connection_fails_the_attempt() -> None:
    """No byte was sent, so even a request that changes a node can be retried."""
    run = begin(idle=False)
    assert run.attempt._task is not None
    await asyncio.gather(run.attempt._task, return_exceptions=True)
    assert run.outcomes == ["failed"]


async def test_the_owner_decides_whether_to_relay_an_endpoints_error() -> None:
    """If not, it aborts the attempt and is not called any more."""
    run = begin()
    run.acceptable = False
    run.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\n{}")
    assert run.outcomes == []
    assert run.client.received == b""
    assert run.endpoint is not None
    assert run.endpoint.transport.aborted


@pytest.mark.parametrize(
    ("limits", "sent", "kind"),
    [
        (Timeouts(first_byte=5.0), (), Kind.FIRST_BYTE_TIMEOUT),
        (Timeouts(silence=5.0), (STREAM, FIRST), Kind.BODY_SILENT),
    ],
)
async def test_silence_times_out(limits: Timeouts, sent: tuple[bytes, ...], kind: Kind) -> None:
    """Before the first byte the attempt fails; later the response is cut off."""
    run = begin(limits)
    run.send(*sent)
    run.pass_time(4.0)
    assert run.outcomes == []
    run.pass_time(1.5)
    relay = run.attempt.relay
    failure = relay.failure if relay is not None else run.failure
    assert failure is not None
    assert failure.kind is kind
    assert run.outcomes == ["relayed" if sent else "failed"]
    assert run.endpoint is not None
    assert run.endpoint.transport.aborted


async def test_silence_during_back_pressure_does_not_time_out() -> None:
    """The router has paused reading from the endpoint, because the client is slow."""
    run = begin(Timeouts(silence=5.0))
    run.client.paused = True
    run.send(STREAM, FIRST)
    assert run.endpoint is not None
    assert not run.endpoint.transport.reading
    run.pass_time(60.0)
    assert run.outcomes == []
    assert run.client.catch_up is not None
    run.client.catch_up()
    assert run.endpoint.transport.reading


async def test_the_owner_is_not_called_after_abort() -> None:
    """Neither by later events of the connection nor by the timer."""
    run = begin()
    run.attempt.abort()
    assert run.endpoint is not None
    assert run.endpoint.transport.aborted
    run.endpoint.close()
    run.attempt.due()
    assert run.outcomes == []


async def test_an_incomplete_body_is_the_clients_failure() -> None:
    """The connection is closed, so the endpoint cannot mistake its start for the whole."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"half"
        raise Failed(Failure(Kind.BAD_REQUEST, "no body"))

    run = begin(request=OutgoingRequest("POST", REQUEST, pieces=pieces))
    task = run.attempt._task
    assert task is not None
    await asyncio.gather(task, return_exceptions=True)
    assert run.outcomes == ["failed"]
    assert run.failure is not None
    assert run.failure.kind is Kind.BAD_REQUEST
    assert run.endpoint is not None
    assert run.endpoint.transport.aborted


async def test_only_silent_responses_of_a_dead_endpoint_are_stopped() -> None:
    """A response that still receives data is better evidence than the probe."""
    run = begin()
    run.send(STREAM, FIRST)
    why = Failure(Kind.RESET, "endpoint 'a' stopped answering", "a")
    run.attempt.stop_if_silent(why)
    assert run.outcomes == []
    assert run.endpoint is not None
    run.endpoint.connection.last_data -= 10.0
    run.attempt.stop_if_silent(why)
    assert run.outcomes == ["relayed"]
