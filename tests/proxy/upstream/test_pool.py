"""Connections to endpoints: reuse, expiry, broken responses, connection errors."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from olla.clock import SystemClock
from olla.failures import OURS, Failed, Kind
from olla.fleet.endpoint import EndpointSpec
from olla.proxy.http.response_head import ResponseHead
from olla.proxy.upstream.pool import Pool, UpstreamConnection, connect_failure

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%b\r\nhi"


class RecordingReceiver:
    """A receiver that records the response."""

    def __init__(self) -> None:
        self.status = 0
        self.raw = b""
        self.broke: Kind | None = None
        self.done = asyncio.Event()

    def head(self, head: ResponseHead, more: bool) -> None:
        """Record the status."""
        self.status = head.status

    def body(self, raw: bytes, payload: list[bytes], last: bool) -> None:
        """Record a piece of the body."""
        self.raw += raw

    def end(self, trailers: bytes) -> None:
        """Record the end."""
        self.done.set()

    def broken(self, kind: Kind, message: str, raw: bytes, payload: list[bytes]) -> None:
        """Record the failure."""
        self.broke = kind
        self.done.set()


class Endpoint:
    """A server that answers each request with the same bytes."""

    def __init__(self, answer: bytes, *, then: bytes = b"", close: bool = False) -> None:
        self.answer, self.then, self.close = answer, then, close
        self.writers: list[asyncio.StreamWriter] = []
        self.lost = asyncio.Event()

    async def __aenter__(self) -> "Endpoint":
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        self.spec = EndpointSpec("e", "127.0.0.1", port, authority="e")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for writer in self.writers:
            writer.close()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(self.answer)
                if self.then:
                    await writer.drain()
                    await asyncio.sleep(0.01)
                    writer.write(self.then)
                if self.close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        self.lost.set()
        writer.close()


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    """Provide a pool, and check that it has no open connections after `close`."""
    made = Pool(SystemClock(), connect_timeout=30.0, idle_timeout=30.0)
    yield made
    await made.close()
    assert made.open == 0
    assert made.idle == 0


async def send_request(connection: UpstreamConnection) -> RecordingReceiver:
    """Send a request and wait for the end of the response."""
    receiver = RecordingReceiver()
    connection.begin("GET", receiver)
    connection.write(b"GET / HTTP/1.1\r\n\r\n")
    connection.sent = True
    await receiver.done.wait()
    return receiver


async def test_a_connection_is_reused_after_a_complete_response(pool: Pool) -> None:
    """By one request at a time."""
    async with Endpoint(OK % b"") as endpoint:
        connection = await pool.connect(endpoint.spec)
        assert (await send_request(connection)).raw == b"hi"
        assert pool.take_idle(endpoint.spec) is connection
        assert connection.reused
        assert pool.take_idle(endpoint.spec) is None


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint(OK % b"Connection: close\r\n"),
        Endpoint(OK % b"" + b"more"),
        Endpoint(b"HTTP/1.1 200 OK\r\n\r\nhi", close=True),
        Endpoint(OK % b"Keep-Alive: timeout=0\r\n"),
    ],
    ids=["close", "left over bytes", "no framing", "no time"],
)
async def test_a_connection_that_cannot_be_reused_is_closed(pool: Pool, endpoint: Endpoint) -> None:
    """Because the endpoint closes it, or because bytes are left over from the response."""
    async with endpoint:
        receiver = await send_request(await pool.connect(endpoint.spec))
        assert receiver.raw == b"hi"
        assert pool.take_idle(endpoint.spec) is None


async def test_an_idle_connection_closed_by_the_endpoint_is_removed(pool: Pool) -> None:
    """No request gets a closed connection."""
    async with Endpoint(OK % b"", close=True) as endpoint:
        await send_request(await pool.connect(endpoint.spec))
        async with asyncio.timeout(5):
            while pool.open:
                await asyncio.sleep(0.001)
        assert pool.take_idle(endpoint.spec) is None


async def test_unsolicited_bytes_close_an_idle_connection(pool: Pool) -> None:
    """They would be receiver for the next response."""
    async with Endpoint(OK % b"", then=b"HTTP/1.1 408 X\r\n\r\n") as endpoint:
        await send_request(await pool.connect(endpoint.spec))
        async with asyncio.timeout(5):
            while pool.open:
                await asyncio.sleep(0.001)
        assert pool.take_idle(endpoint.spec) is None


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", Kind.RESET),
        (b"HTTP/1.1 200 OK\r\nContent-", Kind.RESET),
        (b"rubbish and more rubbish\r\n\r\n", Kind.BAD_HEAD),
        (b"x" * 10, Kind.BAD_HEAD),
        (b"HTTP/1.1 101 Switching\r\n\r\n", Kind.BAD_HEAD),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70000, Kind.BAD_HEAD),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", Kind.BODY_TRUNCATED),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", Kind.BODY_FRAMING),
    ],
)
async def test_a_broken_response_has_a_kind_of_failure(
    pool: Pool, answer: bytes, kind: Kind
) -> None:
    """Before the head, in the head, or in the body."""
    async with Endpoint(answer, close=True) as endpoint:
        assert (await send_request(await pool.connect(endpoint.spec))).broke is kind


async def test_abort_closes_the_connection_at_once(pool: Pool) -> None:
    """Which makes the endpoint stop its work."""
    async with Endpoint(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n") as endpoint:
        connection = await pool.connect(endpoint.spec)
        receiver = RecordingReceiver()
        connection.begin("GET", receiver)
        connection.write(b"GET / HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(5):
            while not receiver.status:
                await asyncio.sleep(0.001)
        connection.abort()
        await endpoint.lost.wait()
        assert receiver.broke is None


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (EndpointSpec("e", "127.0.0.1", 1), Kind.CONNECT_REFUSED),
        (EndpointSpec("e", "no-such-host.invalid", 80), Kind.CONNECT_DNS),
    ],
)
async def test_a_failed_connection_names_the_endpoint(
    pool: Pool, spec: EndpointSpec, kind: Kind
) -> None:
    """With the kind of failure."""
    with pytest.raises(Failed) as caught:
        await pool.connect(spec)
    assert caught.value.failure.kind is kind
    assert "'e'" in caught.value.failure.message


async def test_a_server_without_tls_causes_a_tls_failure(pool: Pool) -> None:
    """If the endpoint is configured with https."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)  # the client's hello
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(Failed) as caught:
        await pool.connect(EndpointSpec("e", "127.0.0.1", port, tls=True))
    assert caught.value.failure.kind is Kind.CONNECT_TLS
    server.close()
    await server.wait_closed()


def verification(code: int, message: str) -> ssl.SSLCertVerificationError:
    """Return the error of a rejected certificate."""
    error = ssl.SSLCertVerificationError(1, message)
    error.verify_code, error.verify_message = code, message
    return error


SPEC = EndpointSpec("gpu-1", "node", 11434, authority="node:11434")


@pytest.mark.parametrize(
    ("error", "kind", "word"),
    [
        (TimeoutError(), Kind.CONNECT_TIMEOUT, "within 2 s"),
        (socket.gaierror(-2, "unknown"), Kind.CONNECT_DNS, "resolved"),
        (ssl.SSLError("bad"), Kind.CONNECT_TLS, "TLS"),
        (ConnectionRefusedError(), Kind.CONNECT_REFUSED, "refused"),
        (OSError("Multiple exceptions: Connect call refused, refused"), Kind.CONNECT_REFUSED, ""),
        (OSError(113, "Connect call failed ('node', 11434)"), Kind.CONNECT_UNREACHABLE, "no route"),
        (OSError("Multiple exceptions: node:11434"), Kind.CONNECT_UNREACHABLE, "connection failed"),
        (verification(62, "not valid for 'node'"), Kind.CONNECT_TLS, "match the host name"),
        (verification(18, "self-signed certificate"), Kind.CONNECT_TLS, "self-signed"),
    ],
)
def test_each_connection_error_has_a_kind(error: OSError, kind: Kind, word: str) -> None:
    """The message names the endpoint and the reason, but not the endpoint's address."""
    failure = connect_failure(SPEC, error, 2.0)
    assert failure.kind is kind
    assert failure.endpoint == "gpu-1"
    assert failure.message.startswith("endpoint 'gpu-1' ")
    assert word in failure.message
    assert "node" not in failure.message
    assert "11434" not in failure.message


@pytest.mark.parametrize("number", sorted(OURS))
def test_running_out_of_files_or_memory_is_not_the_endpoints_fault(number: int) -> None:
    """It is a temporary overload of olla."""
    failure = connect_failure(SPEC, OSError(number, os.strerror(number)), 10.0)
    assert failure.kind is Kind.OVERLOADED
    assert failure.endpoint is None
    assert failure.retry_after == 1.0
