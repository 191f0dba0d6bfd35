"""A client that does not read: its endpoint waits, and memory stays bounded."""

import asyncio

from tests.wire.conftest import MODEL, MakeRouter, post

BODY = b'{"model":"%b","stream":false}' % MODEL.encode()
SIZE = 32 << 20
HELD_MAX = 256 * 1024


async def test_a_slow_reader_holds_a_quarter_of_a_megabyte_at_most(
    make_router: MakeRouter,
) -> None:
    """Whatever the endpoint would send; and gets all of it in the end, byte for byte."""
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
    held = 0
    while True:  # until the endpoint has been made to wait
        before = sent
        for _turn in range(50):
            await asyncio.sleep(0.002)
            (connection,) = router.downstream.server.connections
            assert connection.transport is not None
            held = max(held, connection.transport.get_write_buffer_size())
        if sent == before:
            break
    assert sent < SIZE
    assert 0 < held <= HELD_MAX + 4096
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    body = await reader.readexactly(SIZE)
    assert body == b"0123456789abcdef" * (SIZE // 16)
    writer.close()
