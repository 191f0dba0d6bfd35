"""Backpressure: when a client does not read, the endpoint waits and memory stays bounded."""

import asyncio

from tests.waiting import unchanged, until
from tests.wire.conftest import MODEL, MakeRouter, post

BODY = b'{"model":"%b","stream":false}' % MODEL.encode()
SIZE = 32 << 20
BUFFERED_BYTES_MAX = 256 * 1024


async def test_a_slow_reader_buffers_at_most_256_kib(
    make_router: MakeRouter,
) -> None:
    """The limit holds for any response size, and the client finally gets every byte."""
    router = await make_router()
    sent = 0

    async def script(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % SIZE
        )
        while sent < SIZE:
            writer.write(b"0123456789abcdef" * 4096)
            sent += 65536
            await writer.drain()

    router.endpoints[0].script = script
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port, limit=1024)
    writer.write(post("/api/generate", BODY))
    buffered = 0

    def progress() -> int:
        nonlocal buffered
        for connection in router.downstream.server.connections:
            assert connection.transport is not None
            buffered = max(buffered, connection.transport.get_write_buffer_size())
        return sent

    await until(lambda: sent)
    assert await unchanged(progress) < SIZE
    assert 0 < buffered <= BUFFERED_BYTES_MAX + 4096
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    body = await reader.readexactly(SIZE)
    assert body == b"0123456789abcdef" * (SIZE // 16)
    writer.close()
