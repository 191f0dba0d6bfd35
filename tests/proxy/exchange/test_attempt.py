"""One attempt on streams in memory: exactly one outcome, whatever the endpoint does and when."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from olla.dialects.dialect import Operation
from olla.dialects.registry import DIALECTS
from olla.failures import Failed, Failure, Kind
from olla.proxy.bounds.timer_wheel import TimerWheel
from olla.proxy.exchange.attempt import Attempt, OutgoingRequest, Timeouts
from olla.proxy.http.response_head import ResponseHead
from olla.proxy.upstream.pool import Pool, UpstreamConnection
from olla.proxy.upstream.relay import Relay
from tests.proxy.streams import SPEC, Client, Endpoint, idle_endpoint, new_pool

REQUEST = b"POST /api/chat HTTP/1.1\r\n\r\n"
WHOLE = b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"done":true}'
STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
)
FIRST = b'e\r\n{"done":false}\r\n'


class Run:
    """An attempt with its owner, which remembers what it was told."""

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
            DIALECTS["ollama"],
            Operation.CHAT,
            head,
            lambda head: b"HEAD %d|" % head.status,
            endpoint="a",
            trailer=None,
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
        """The endpoint sends bytes."""
        assert self.endpoint is not None
        self.endpoint.send(*pieces)

    def pass_time(self, seconds: float) -> None:
        """The endpoint was last heard of so long ago, and the timer fires."""
        assert self.endpoint is not None
        self.endpoint.connection.last_data -= seconds
        self.attempt.due()


def begin(
    limits: Timeouts | None = None, request: OutgoingRequest | None = None, *, idle: bool = True
) -> Run:
    """Start an attempt."""
    sent = request or OutgoingRequest("POST", REQUEST, b"body")
    return Run(limits or Timeouts(), sent, idle=idle)


async def test_an_answer_is_relayed() -> None:
    """The request is sent at once; the head goes to the client with the body that came with it."""
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
async def test_before_the_first_byte_every_fault_is_a_failure(
    sent: tuple[bytes, ...], kind: Kind
) -> None:
    """The client has seen nothing, so another endpoint can be tried."""

    async def nothing() -> AsyncIterator[bytes]:
        yield b""

    # A streamed body: an idle connection that died is not replaced unseen.
    run = begin(request=OutgoingRequest("POST", REQUEST, pieces=nothing))
    run.send(*sent)
    if not run.outcomes:
        assert run.endpoint is not None
        run.endpoint.close()
    assert run.outcomes == ["failed"]
    assert run.failure is not None
    assert run.failure.kind is kind
    assert run.client.received == b""


async def test_after_the_first_byte_a_fault_ends_the_answer() -> None:
    """It was relayed as far as it went, and the client can tell that it is not whole."""
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


async def test_an_idle_connection_that_had_died_is_replaced() -> None:
    """The client need not know; the new connection is refused here."""
    run = begin()
    assert run.endpoint is not None
    run.endpoint.close()
    assert run.outcomes == []
    assert run.attempt._task is not None
    await asyncio.gather(run.attempt._task, return_exceptions=True)
    assert run.outcomes == ["failed"]
    assert run.failure is not None
    assert run.failure.kind is Kind.CONNECT_REFUSED


async def test_a_refused_connection_is_a_failure() -> None:
    """No byte was sent: even a request that changes something may go elsewhere."""
    run = begin(idle=False)
    assert run.attempt._task is not None
    await asyncio.gather(run.attempt._task, return_exceptions=True)
    assert run.outcomes == ["failed"]


async def test_an_error_of_the_endpoint_is_the_owners_to_judge() -> None:
    """If it is not wanted, the owner has aborted the attempt, and hears no more of it."""
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
    """Before the first byte a failure, in the middle an answer that is cut."""
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


async def test_a_slow_client_is_no_silence_of_the_endpoint() -> None:
    """The router itself makes the endpoint wait."""
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


async def test_after_abort_the_owner_hears_nothing() -> None:
    """Whatever the endpoint still sends."""
    run = begin()
    run.attempt.abort()
    assert run.endpoint is not None
    assert run.endpoint.transport.aborted
    run.endpoint.close()
    run.attempt.due()
    assert run.outcomes == []


async def test_a_body_that_breaks_off_is_the_clients_fault() -> None:
    """The endpoint must not take its start for the whole."""

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


async def test_a_dead_endpoint_ends_only_answers_that_are_silent() -> None:
    """One that moves is the better evidence."""
    run = begin()
    run.send(STREAM, FIRST)
    why = Failure(Kind.RESET, "endpoint 'a' stopped answering", "a")
    run.attempt.end_if_silent(why)
    assert run.outcomes == []
    assert run.endpoint is not None
    run.endpoint.connection.last_data -= 10.0
    run.attempt.end_if_silent(why)
    assert run.outcomes == ["relayed"]
