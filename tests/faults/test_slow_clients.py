"""A client that stalls within its request does not hold its connection forever."""

import asyncio

import pytest

from olla.failures import Kind
from tests.wire.conftest import MODEL, MakeRouter, post, split

BODY = b'{"model": "%b"}' % MODEL.encode()
WHOLE = post("/api/generate", BODY)
LIMITS = {"read_header_timeout": 0.2, "read_timeout": 0.2}


async def rest_of(router: object, data: bytes) -> bytes:
    """Send `data` and nothing else; return what the router sends until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)  # type: ignore[attr-defined]
    writer.write(data)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("cut", [1, 4, 30, len(WHOLE) - len(BODY) - 1])
async def test_an_incomplete_head_is_408(make_router: MakeRouter, cut: int) -> None:
    """The message names the setting, wherever the head stops."""
    router = await make_router(**LIMITS)
    head, body = split(await rest_of(router, WHOLE[:cut]))
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"server.read_header_timeout" in body
    assert router.endpoints[0].requests == []


async def test_dripping_bytes_do_not_extend_the_header_timeout(make_router: MakeRouter) -> None:
    """The limit is for the whole head: sending single bytes (slowloris) does not reset it."""
    router = await make_router(**LIMITS)
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    answer = asyncio.ensure_future(reader.read())
    for byte in WHOLE:
        if answer.done():
            break
        writer.write(bytes([byte]))
        await asyncio.wait([answer], timeout=0.02)
    assert answer.done()
    # A byte in flight when the connection closes causes a reset, which may discard the response.
    assert answer.exception() is not None or answer.result().startswith(b"HTTP/1.1 408 ")
    assert router.records[0].status == 408
    writer.close()


@pytest.mark.parametrize("sent", [0, 5], ids=["nothing", "part"])
@pytest.mark.parametrize("framing", ["length", "chunks", "blob"])
async def test_a_body_that_stops_is_408(make_router: MakeRouter, framing: str, sent: int) -> None:
    """This holds on both request paths and while the body is forwarded; no endpoint takes the part
    for the whole."""
    router = await make_router(**LIMITS)
    if framing == "length":
        data = WHOLE[: len(WHOLE) - len(BODY) + sent]
    elif framing == "chunks":
        head = b"POST /api/generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        data = head + (b"5\r\n" + BODY[:5] + b"\r\n" if sent else b"")
    else:
        head = b"POST /api/blobs/sha256:%b HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
        data = head % (b"0" * 64) + b"x" * sent
    head, body = split(await rest_of(router, data))
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"server.read_timeout" in body
    assert router.endpoints[0].requests == []
    assert router.dispatcher.leases == 0


CHUNKED = b"POST /api/generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
BLOB = b"POST /api/blobs/sha256:%b HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" % (
    b"0" * 64
)


@pytest.mark.parametrize("first", [0, 300_000], ids=["from the start", "after a large part"])
@pytest.mark.parametrize("framing", ["length", "chunks", "blob"])
async def test_a_body_that_drips_is_408(make_router: MakeRouter, framing: str, first: int) -> None:
    """Single bytes do not hold a connection or memory, however much was sent before."""
    router = await make_router(body_timeout=0.4, min_rate=10_000)
    head, template = {
        "length": (post("/api/generate", b"x" * 1_000_000, close=False)[:-1_000_000], b"%b"),
        "chunks": (CHUNKED, b"%x\r\n%b\r\n"),
        "blob": (BLOB, b"%b"),
    }[framing]

    def framed(data: bytes) -> bytes:
        return template % ((len(data), data) if framing == "chunks" else data)

    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    answer = asyncio.ensure_future(reader.readuntil(b"}"))
    writer.write(head + (framed(b"x" * first) if first else b""))
    async with asyncio.timeout(10):
        while not answer.done():
            writer.write(framed(b"x"))
            await asyncio.wait([answer], timeout=0.02)
    response = answer.result()
    assert response.startswith(b"HTTP/1.1 408 ")
    assert b"server.min_rate" in response
    assert b"server.body_timeout" in response
    (record,) = router.records
    assert record.failure is not None
    assert record.failure.kind is Kind.REQUEST_TIMEOUT
    assert router.dispatcher.leases == 0
    assert router.services.body_budget.taken == 0
    writer.close()


async def test_an_upload_to_a_slow_endpoint_does_not_time_out(make_router: MakeRouter) -> None:
    """The client cannot send while the endpoint does not read: only time spent waiting for the
    client counts."""
    router = await make_router(body_timeout=0.3, read_timeout=0.3, min_rate=1e9)
    reading = asyncio.Event()
    size = 12 << 20

    async def read_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reading.wait()
        await reader.readexactly(size)
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    endpoint = router.endpoints[0]
    endpoint._serve = read_late  # type: ignore[method-assign]
    await endpoint.stop()
    endpoint._server = await asyncio.start_server(read_late, "127.0.0.1", endpoint.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(BLOB.replace(b"1000000", b"%d" % size) + b"x" * size)
    answer = asyncio.ensure_future(reader.readline())
    await asyncio.wait([answer], timeout=1.0)
    assert not answer.done()
    reading.set()
    assert (await answer).startswith(b"HTTP/1.1 201 ")
    writer.close()


async def test_a_slow_but_steady_body_is_accepted(make_router: MakeRouter) -> None:
    """The read timeout limits silence, not duration."""
    router = await make_router(**LIMITS)
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(WHOLE[: -len(BODY)])
    for at in range(len(BODY)):
        writer.write(BODY[at : at + 1])
        await asyncio.sleep(0.02)
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_an_idle_connection_is_closed(make_router: MakeRouter) -> None:
    """It is closed without a response, since it sent no request."""
    router = await make_router(idle_timeout=0.2)
    assert await rest_of(router, b"") == b""
    assert router.downstream.connections == 0


async def test_client_timeouts_do_not_apply_during_the_response(make_router: MakeRouter) -> None:
    """A client is normally silent while it waits for its response."""
    router = await make_router(**LIMITS)

    async def late(_: bytes, __: object, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.6)  # three times the limits
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    router.endpoints[0].script = late
    assert (await router.exchange(WHOLE)).startswith(b"HTTP/1.1 200 ")
