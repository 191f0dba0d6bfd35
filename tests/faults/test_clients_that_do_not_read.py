"""A client that asks and does not read gives back what it holds."""

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
from tests.wire.conftest import MODEL, MakeRouter, Router, post

BODY = b'{"model":"%b","stream":false}' % MODEL.encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LONG = 64 << 20
"""Bytes: more than the kernel's buffers take."""


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


async def connection_of(downstream: ProxyServer) -> Connection:
    """The router's end of the only connection, once the client does not take what it has."""
    async with asyncio.timeout(10):
        while True:
            for connection in downstream.server.connections:
                assert isinstance(connection, Connection)
                if connection.paused:
                    return connection
            await asyncio.sleep(0.005)


async def endless(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An answer that does not end while anybody takes it."""
    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % LONG)
    for _ in range(LONG // 65536):
        writer.write(b" " * 65536)
        await writer.drain()


async def until_recorded(router: Router, count: int = 1) -> None:
    """Wait for so many ends."""
    async with asyncio.timeout(10):
        while len(router.records) < count:
            await asyncio.sleep(0.005)


async def test_a_client_that_never_reads_gives_its_slot_back(make_router: MakeRouter) -> None:
    """Its endpoint stops working for it, and the record says whose fault it was."""
    router = await make_router(send_timeout=0.3, min_rate=1e9)
    router.endpoints[0].script = endless
    async with ask(router.port, post("/api/generate", BODY)):
        await until_recorded(router)
        async with asyncio.timeout(10):
            await router.endpoints[0].lost.wait()
            while router.downstream.connections:
                await asyncio.sleep(0.005)
    (record,) = router.records
    assert record.failure is not None
    assert record.failure.kind is Kind.CLIENT_STALLED
    assert "server.send_timeout" in record.failure.message
    assert record.status == 200
    assert router.dispatcher.leases == 0
    assert router.fleet.observed == []


async def test_last_bytes_that_nobody_takes_hold_no_connection(make_router: MakeRouter) -> None:
    """The answer is over, and its slot free, while its end still waits in the router's memory."""
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
        await connection_of(router.downstream)
        await until_recorded(router)
        assert router.downstream.connections == 1
        async with asyncio.timeout(10):
            while router.downstream.connections:
                await asyncio.sleep(0.005)
        assert router.records[0].failure is None
        assert router.dispatcher.leases == 0


@pytest.mark.parametrize("requests", [200])
async def test_a_client_that_asks_on_without_reading_fills_no_memory(
    make_router: MakeRouter, requests: int
) -> None:
    """The next of its requests is not taken while the last answer waits for it."""
    router = await make_router(send_timeout=30.0)
    large = b"[" + b"0," * 100_000 + b"0]"

    async def script(_: bytes, __: object, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(large), large))

    router.endpoints[0].script = script
    async with ask(router.port, post("/api/generate", BODY, close=False) * requests):
        connection = await connection_of(router.downstream)
        while True:
            before = len(router.endpoints[0].requests)
            for _ in range(50):
                await asyncio.sleep(0.002)
            if len(router.endpoints[0].requests) == before:
                break
        assert before < requests
        assert connection.transport is not None
        assert connection.transport.get_write_buffer_size() < 2 * len(large)


async def test_a_client_that_reads_in_the_end_gets_everything(make_router: MakeRouter) -> None:
    """A pause shorter than the limit costs nothing, and what comes afterwards is answered."""
    router = await make_router(send_timeout=30.0)
    size = 16 << 20

    async def script(_: bytes, __: object, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % size)
        for _ in range(size // 65536):
            writer.write(b"[" + b" " * 65534 + b"]")
            await writer.drain()

    router.endpoints[0].script = script
    async with ask(router.port, post("/api/generate", BODY, close=False) * 2) as sock:
        await connection_of(router.downstream)
        reader, writer = await asyncio.open_connection(sock=sock)
        for _ in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            body = await reader.readexactly(size)
            assert body == (b"[" + b" " * 65534 + b"]") * (size // 65536)
        writer.close()
        await writer.wait_closed()


CHAT_LINE = json.dumps({"model": "m", "response": "word " * 10_000, "done": False}).encode() + b"\n"


async def words_without_end(writer: asyncio.StreamWriter) -> None:
    """A stream that does not end while anybody takes it."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n")
    while True:
        writer.write(CHAT_LINE)
        await writer.drain()


@pytest.mark.parametrize("path", ["/chat/stream", "/api/tags"])
async def test_ollas_own_answers_are_bound_too(path: str) -> None:
    """Streams of the gateways' surfaces, and lists that are asked for again and again."""
    if path == "/chat/stream":
        data = post(path, b'{"message": "hi", "model": "smollm"}').replace(b"olla", b"x", 1)
    else:
        data = b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2000
    server = "send_timeout: 300ms, min_rate: 100MB"
    async with scripted(words_without_end, server=server) as (app, _):
        port = int(app.url.rpartition(":")[2])
        async with ask(port, b"") as sock:
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(10):
                while not app.downstream.connections:
                    await asyncio.sleep(0.005)
            (connection,) = app.downstream.server.connections
            kernel = connection.transport.get_extra_info("socket")
            kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            sending = asyncio.ensure_future(loop.sock_sendall(sock, data))
            await connection_of(app.downstream)
            async with asyncio.timeout(10):
                while app.downstream.connections or app.downstream.active:
                    await asyncio.sleep(0.005)
            await asyncio.wait([sending])
            assert sending.exception() is None or isinstance(sending.exception(), OSError)
        assert app.dispatcher.leases == 0
        if path == "/chat/stream":
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{app.url}/metrics") as response,
            ):
                assert '"client_stalled"' in await response.text()
