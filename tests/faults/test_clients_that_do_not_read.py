"""A client that sends requests and does not read releases its resources after a timeout."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from olla.failures import Kind
from olla.proxy.server.aiohttp_internals import Connection
from olla.proxy.server.server import ProxyServer
from tests.scripted_ollama import scripted
from tests.waiting import unchanged, until
from tests.wire.conftest import MODEL, MakeRouter, Router, post

BODY = b'{"model":"%b","stream":false}' % MODEL.encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LONG_BYTES = 64 << 20
"""More than the kernel's socket buffers hold."""


@asynccontextmanager
async def ask(port: int, data: bytes) -> AsyncIterator[socket.socket]:
    """Send a request over a connection with a small receive buffer, and read nothing."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", port))
        await loop.sock_sendall(sock, data)
        yield sock


def paused_connections(downstream: ProxyServer) -> list[Connection]:
    """Return the router's connections whose client does not read."""
    connections = downstream.server.connections
    return [each for each in connections if isinstance(each, Connection) and each.paused]


async def paused_connection(downstream: ProxyServer) -> Connection:
    """Wait until the client's unread data pauses the only connection, and return it."""
    await until(lambda: paused_connections(downstream))
    (connection,) = paused_connections(downstream)
    return connection


async def endless(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write a long response for as long as the client reads."""
    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % LONG_BYTES)
    for _ in range(LONG_BYTES // 65536):
        writer.write(b" " * 65536)
        await writer.drain()


async def until_recorded(router: Router, count: int = 1) -> None:
    """Wait until the router has recorded `count` requests."""
    await until(lambda: len(router.records) >= count)


async def test_a_client_that_never_reads_loses_its_slot(make_router: MakeRouter) -> None:
    """The endpoint stops working for it, and the record blames the client."""
    router = await make_router(send_timeout=0.3, min_rate=1e9)
    router.endpoints[0].script = endless
    async with ask(router.port, post("/api/generate", BODY)):
        await until_recorded(router)
        async with asyncio.timeout(10):
            await router.endpoints[0].lost.wait()
        await until(lambda: not router.downstream.connections)
    (record,) = router.records
    assert record.failure is not None
    assert record.failure.kind is Kind.CLIENT_STALLED
    assert "server.send_timeout" in record.failure.message
    assert record.status == 200
    assert router.dispatcher.leases == 0
    assert router.fleet.observed == []


async def test_unread_last_bytes_do_not_hold_a_connection(make_router: MakeRouter) -> None:
    """The request ends and frees its slot while the last bytes wait in the router's buffer."""
    router = await make_router(send_timeout=0.3, min_rate=1e9)

    answer = HEAD + b"Content-Length: 100000\r\n\r\n[" + b" " * 99_998 + b"]"

    async def script(_: bytes, __: object, writer: asyncio.StreamWriter) -> None:
        (connection,) = router.downstream.server.connections
        assert connection.transport is not None
        kernel = connection.transport.get_extra_info("socket")
        kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        writer.write(answer)

    router.endpoints[0].script = script
    async with ask(router.port, post("/api/generate", BODY)):
        await paused_connection(router.downstream)
        await until_recorded(router)
        assert router.downstream.connections == 1
        await until(lambda: not router.downstream.connections)
        assert router.records[0].failure is None
        assert router.dispatcher.leases == 0


@pytest.mark.parametrize("requests", [200])
async def test_pipelined_requests_without_reading_do_not_fill_memory(
    make_router: MakeRouter, requests: int
) -> None:
    """The router does not read the next request while the last response waits for the client."""
    router = await make_router(send_timeout=30.0)
    large = b"[" + b"0," * 100_000 + b"0]"

    async def script(_: bytes, __: object, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(large), large))

    router.endpoints[0].script = script
    async with ask(router.port, post("/api/generate", BODY, close=False) * requests):
        connection = await paused_connection(router.downstream)
        assert await unchanged(lambda: len(router.endpoints[0].requests)) < requests
        assert connection.transport is not None
        assert connection.transport.get_write_buffer_size() < 2 * len(large)


async def test_a_client_that_reads_late_gets_everything(make_router: MakeRouter) -> None:
    """A pause shorter than the limit costs nothing, and the next request is answered."""
    router = await make_router(send_timeout=30.0)
    size = 16 << 20

    async def script(_: bytes, __: object, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % size)
        for _ in range(size // 65536):
            writer.write(b"[" + b" " * 65534 + b"]")
            await writer.drain()

    router.endpoints[0].script = script
    async with ask(router.port, post("/api/generate", BODY, close=False) * 2) as sock:
        await paused_connection(router.downstream)
        reader, writer = await asyncio.open_connection(sock=sock)
        for _ in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            body = await reader.readexactly(size)
            assert body == (b"[" + b" " * 65534 + b"]") * (size // 65536)
        writer.close()
        await writer.wait_closed()


CHAT_LINE = json.dumps({"model": "m", "response": "word " * 10_000, "done": False}).encode() + b"\n"


async def endless_stream(writer: asyncio.StreamWriter) -> None:
    """Stream records for as long as the client reads."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n")
    while True:
        writer.write(CHAT_LINE)
        await writer.drain()


@pytest.mark.parametrize("path", ["/chat/stream", "/api/tags"])
async def test_the_send_timeout_covers_ollas_internal_routes(path: str) -> None:
    """Streams of the gateway APIs and repeated lists are cut as well."""
    if path == "/chat/stream":
        data = post(path, b'{"message": "hi", "model": "smollm"}').replace(b"olla", b"x", 1)
    else:
        data = b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2000
    server = "send_timeout: 300ms, min_rate: 100MB"
    async with scripted(endless_stream, server=server) as (app, _):
        port = int(app.url.rpartition(":")[2])
        async with ask(port, b"") as sock:
            loop = asyncio.get_running_loop()
            await until(lambda: app.downstream.connections)
            (connection,) = app.downstream.server.connections
            kernel = connection.transport.get_extra_info("socket")
            kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            sending = asyncio.ensure_future(loop.sock_sendall(sock, data))
            await paused_connection(app.downstream)
            await until(lambda: not (app.downstream.connections or app.downstream.active))
            await asyncio.wait([sending])
            assert sending.exception() is None or isinstance(sending.exception(), OSError)
        assert app.dispatcher.leases == 0
        if path == "/chat/stream":
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{app.url}/metrics") as response,
            ):
                assert '"client_stalled"' in await response.text()
