"""Many requests on one client connection: order, pipelining, idle time, mixed request paths."""

import asyncio
import re

import pytest

from olla.failures import Kind
from tests.waiting import until
from tests.wire.conftest import MODEL, MakeRouter, Router, Script, answer, post, split

BODY = b'{"model":"%b","stream":false,"prompt":"%d"}'
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"


def body(number: int) -> bytes:
    """Build a body with a number, so that tests can tell responses apart."""
    return BODY % (MODEL.encode(), number)


def request(number: int) -> bytes:
    """Build a request that leaves the connection open."""
    return post("/api/generate", body(number), close=False)


async def echo(raw: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with the prompt."""
    match = re.search(rb'"prompt":"(\d+)"', raw)
    assert match is not None
    text = b'{"response":"%b","done":true}' % match[1]
    writer.write(OK % (len(text), text))


async def answers(reader: asyncio.StreamReader, count: int) -> list[bytes]:
    """Read `count` responses; returns their bodies."""
    bodies = []
    for _ in range(count):
        head = await reader.readuntil(b"\r\n\r\n")
        match = re.search(rb"\r\nContent-Length: (\d+)\r\n", head)
        assert match is not None
        bodies.append(await reader.readexactly(int(match[1])))
    return bodies


async def connected(router: Router) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a client connection."""
    return await asyncio.open_connection("127.0.0.1", router.port)


async def test_pipelined_requests_are_answered_in_order(make_router: MakeRouter) -> None:
    """Fifty requests in one write are more than one read returns."""
    router = await make_router()
    router.endpoints[0].script = echo
    reader, writer = await connected(router)
    writer.write(b"".join(request(number) for number in range(50)))
    for number, received in enumerate(await answers(reader, 50)):
        assert received == b'{"response":"%d","done":true}' % number
    writer.close()


async def test_a_thousand_pipelined_invalid_requests_are_all_answered(
    make_router: MakeRouter,
) -> None:
    """Each ends immediately; none is lost and nothing recurses."""
    router = await make_router()
    reader, writer = await connected(router)
    bad = post("/api/generate", b"no json", close=False)
    writer.write(bad * 1000)
    for received in await answers(reader, 1000):
        assert b"not valid JSON" in received or b"JSON" in received
    writer.close()
    assert len(router.records) == 1000
    assert {record.failure and record.failure.kind for record in router.records} == {
        Kind.BODY_NOT_JSON
    }


async def test_both_request_paths_mix_on_one_connection(make_router: MakeRouter) -> None:
    """A plain POST, a chunked POST, an unknown path and a plain POST are answered in order."""
    router = await make_router()
    router.endpoints[0].script = echo
    reader, writer = await connected(router)
    chunked = (
        b"POST /api/generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(body(1)), body(1))
    )
    unknown = b"GET /nothing/here HTTP/1.1\r\nHost: x\r\n\r\n"
    for _ in range(3):
        writer.write(request(0) + chunked + unknown + request(2))
        received = await answers(reader, 4)
        assert [b'"0"' in received[0], b'"1"' in received[1], b'"2"' in received[3]] == [True] * 3
        assert b"error" in received[2]
    writer.close()


@pytest.mark.parametrize("size", [1, 7, 50])
async def test_requests_may_be_split_anywhere(make_router: MakeRouter, size: int) -> None:
    """The splits fall within heads and bodies and across requests."""
    router = await make_router()
    router.endpoints[0].script = echo
    reader, writer = await connected(router)
    raw = b"".join(request(number) for number in range(4))
    for at in range(0, len(raw), size):
        writer.write(raw[at : at + size])
        await asyncio.sleep(0)
    for number, received in enumerate(await answers(reader, 4)):
        assert received == b'{"response":"%d","done":true}' % number
    writer.close()


async def test_garbage_after_a_request_does_not_spoil_its_answer(make_router: MakeRouter) -> None:
    """The garbage gets a separate 400, and the connection is closed."""
    router = await make_router()
    router.endpoints[0].script = echo
    reader, writer = await connected(router)
    writer.write(request(7))
    assert await answers(reader, 1) == [b'{"response":"7","done":true}']
    writer.write(b"\x00\x01garbage\r\n\r\n")
    head, _ = split(await reader.read())
    assert head.startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_connection_close_is_honored(make_router: MakeRouter) -> None:
    """The router closes the connection right after the response."""
    router = await make_router()
    router.endpoints[0].script = echo
    raw = await router.exchange(post("/api/generate", body(3)))
    head, received = split(raw)
    assert b"Connection: close" in head
    assert received == b'{"response":"3","done":true}'


async def test_data_after_the_last_request_does_not_cost_its_answer(
    make_router: MakeRouter,
) -> None:
    """The client sends `Connection: close`, and then another request while the first is
    processed."""
    router = await make_router()
    released = asyncio.Event()

    async def late(raw: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        await echo(raw, reader, writer)

    router.endpoints[0].script = late
    reader, writer = await connected(router)
    writer.write(post("/api/generate", body(3)))
    await until(lambda: router.endpoints[0].requests)
    writer.write(request(4))
    await writer.drain()
    await asyncio.sleep(0.01)  # reading it has no visible effect to wait for
    released.set()
    head, received = split(await reader.read())
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert received.startswith(b'{"response":"3","done":true}')
    assert len(router.endpoints[0].requests) == 1
    writer.close()


@pytest.mark.parametrize("sent", [5, -5], ids=["head", "body"])
async def test_a_client_that_hangs_up_within_its_request_leaks_nothing(
    make_router: MakeRouter, sent: int
) -> None:
    """Nothing is forwarded, and the read timer is removed at once: a hundred thousand such clients
    must not hold memory until `server.read_timeout` expires."""
    router = await make_router()
    deadlines = router.downstream.server.deadlines
    _, writer = await connected(router)
    writer.write(request(1)[:sent])
    # While aiohttp reads a body, asyncio times it out, not the timer wheel.
    await until(lambda: len(deadlines) + router.downstream.active > 0)
    writer.close()
    await until(lambda: not router.downstream.connections)
    assert len(deadlines) == 0
    assert router.endpoints[0].requests == []


def answer_partly(started: bytes, forwarded: asyncio.Event) -> Script:
    """Return a script that begins to answer and then waits for the router to hang up."""

    async def script(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(started)
        forwarded.set()
        await reader.read()

    return script


HALF = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Length: 99\r\n\r\n{}\n"


@pytest.mark.parametrize("started", [b"", HALF], ids=["waiting", "streaming"])
@pytest.mark.parametrize("cut", [0, 5, -5], ids=["whole", "head in two", "body in two"])
async def test_a_request_has_one_timer_and_a_client_that_hung_up_has_none(
    make_router: MakeRouter, cut: int, started: bytes
) -> None:
    """Once the request has been read only the attempt is timed; when the client hangs up, its timer
    is removed too."""
    router = await make_router()
    deadlines, forwarded = router.downstream.server.deadlines, asyncio.Event()
    router.endpoints[0].script = answer_partly(started, forwarded)
    reader, writer = await connected(router)
    if cut:
        writer.write(request(1)[:cut])
        await until(lambda: len(deadlines) + router.downstream.active > 0)
    writer.write(request(1)[cut:])
    await forwarded.wait()
    if started:
        await reader.readuntil(b"{}\n")
    assert len(deadlines) == 1
    writer.close()
    await until(lambda: not router.downstream.active)
    assert len(deadlines) == 0


async def test_only_an_idle_connection_is_closed(
    make_router: MakeRouter,
) -> None:
    """A connection is idle between requests. A response may take longer than the idle timeout."""
    router = await make_router(idle_timeout=0.3)
    released = asyncio.Event()

    async def late(raw: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        await echo(raw, reader, writer)

    router.endpoints[0].script = late
    busy, busy_writer = await connected(router)
    idle, idle_writer = await connected(router)
    busy_writer.write(request(1))
    assert await idle.read() == b""  # closed
    released.set()
    assert await answers(busy, 1) == [b'{"response":"1","done":true}']
    assert await busy.read() == b""
    busy_writer.close()
    idle_writer.close()


async def test_a_failed_request_leaves_the_connection_usable(make_router: MakeRouter) -> None:
    """This requires that no part of a response was sent."""
    router = await make_router()
    router.endpoints[0].script = answer(b"rubbish\r\n\r\n", close=True)
    reader, writer = await connected(router)
    writer.write(request(1))
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 502 ")
    await reader.readuntil(b"}")
    router.endpoints[0].script = echo
    writer.write(request(2))
    assert await answers(reader, 1) == [b'{"response":"2","done":true}']
    writer.close()
