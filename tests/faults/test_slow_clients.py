"""A client that stops in the middle of its request does not hold its connection for ever."""

import asyncio

import pytest

from olla.failures import Kind
from tests.wire.conftest import MODEL, MakeRouter, post, split

BODY = b'{"model": "%b"}' % MODEL.encode()
WHOLE = post("/api/generate", BODY)
LIMITS = {"read_header_timeout": 0.2, "read_timeout": 0.2}


async def rest_of(router: object, data: bytes) -> bytes:
    """What comes back until the connection is closed, when nothing follows `data`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)  # type: ignore[attr-defined]
    writer.write(data)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("cut", [1, 4, 30, len(WHOLE) - len(BODY) - 1])
async def test_a_head_that_does_not_come_to_its_end_is_408(
    make_router: MakeRouter, cut: int
) -> None:
    """Whatever the last byte was; the message names the setting."""
    router = await make_router(**LIMITS)
    head, body = split(await rest_of(router, WHOLE[:cut]))
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"server.read_header_timeout" in body
    assert router.endpoints[0].requests == []


async def test_dripping_bytes_do_not_prolong_a_head(make_router: MakeRouter) -> None:
    """The limit is for the whole of it: one byte now and then is the oldest trick."""
    router = await make_router(**LIMITS)
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    answer = asyncio.ensure_future(reader.read())
    for byte in WHOLE:
        if answer.done():
            break
        writer.write(bytes([byte]))
        await asyncio.wait([answer], timeout=0.02)
    assert answer.done()
    # A byte that was under way when the connection was closed may cost the client its answer.
    assert answer.exception() is not None or answer.result().startswith(b"HTTP/1.1 408 ")
    assert router.records[0].status == 408
    writer.close()


@pytest.mark.parametrize("sent", [0, 5], ids=["nothing of it", "a part"])
@pytest.mark.parametrize("framing", ["length", "chunks", "blob"])
async def test_a_body_that_stops_is_408(make_router: MakeRouter, framing: str, sent: int) -> None:
    """On either way in, and while it is passed on; no endpoint takes the part for the whole."""
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


@pytest.mark.parametrize("first", [0, 300_000], ids=["from the start", "after a large piece"])
@pytest.mark.parametrize("framing", ["length", "chunks", "blob"])
async def test_a_body_that_dribbles_is_408(
    make_router: MakeRouter, framing: str, first: int
) -> None:
    """A byte now and then does not hold a connection, nor memory, however much came before."""
    router = await make_router(body_timeout=0.4, min_rate=10_000)
    head, piece = {
        "length": (post("/api/generate", b"x" * 1_000_000, close=False)[:-1_000_000], b"%b"),
        "chunks": (CHUNKED, b"%x\r\n%b\r\n"),
        "blob": (BLOB, b"%b"),
    }[framing]

    def formed(data: bytes) -> bytes:
        return piece % ((len(data), data) if framing == "chunks" else data)

    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    answer = asyncio.ensure_future(reader.readuntil(b"}"))
    writer.write(head + (formed(b"x" * first) if first else b""))
    async with asyncio.timeout(10):
        while not answer.done():
            writer.write(formed(b"x"))
            await asyncio.wait([answer], timeout=0.02)
    told = answer.result()
    assert told.startswith(b"HTTP/1.1 408 ")
    assert b"server.min_rate" in told
    assert b"server.body_timeout" in told
    (record,) = router.records
    assert record.failure is not None
    assert record.failure.kind is Kind.REQUEST_TIMEOUT
    assert router.dispatcher.leases == 0
    assert router.services.body_budget.taken == 0
    writer.close()


async def test_a_slow_endpoint_is_not_held_against_an_upload(make_router: MakeRouter) -> None:
    """While the endpoint takes nothing, its client cannot send: only waiting for it counts."""
    router = await make_router(body_timeout=0.3, read_timeout=0.3, min_rate=1e9)
    slowly = asyncio.Event()
    size = 12 << 20

    async def read_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await slowly.wait()
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
    slowly.set()
    assert (await answer).startswith(b"HTTP/1.1 201 ")
    writer.close()


async def test_a_body_that_comes_slowly_but_steadily_is_taken(make_router: MakeRouter) -> None:
    """The limit is for silence."""
    router = await make_router(**LIMITS)
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(WHOLE[: -len(BODY)])
    for at in range(len(BODY)):
        writer.write(BODY[at : at + 1])
        await asyncio.sleep(0.02)
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_a_connection_that_never_asks_is_closed(make_router: MakeRouter) -> None:
    """In silence: there is nothing to answer."""
    router = await make_router(idle_timeout=0.2)
    assert await rest_of(router, b"") == b""
    assert router.downstream.connections == 0


async def test_a_long_answer_is_not_bound_by_the_clients_limits(make_router: MakeRouter) -> None:
    """A client that waits for an answer is silent, and that is as it should be."""
    router = await make_router(**LIMITS)

    async def late(_: bytes, __: object, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.6)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    router.endpoints[0].script = late
    assert (await router.exchange(WHOLE)).startswith(b"HTTP/1.1 200 ")
