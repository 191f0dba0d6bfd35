"""One client connection, many requests: order, pipelining, idleness, both ways in mixed."""

import asyncio
import re
from collections.abc import Callable

import pytest

from olla.failures import Kind
from tests.wire.conftest import MODEL, MakeRouter, Router, Script, answer, post, split

BODY = b'{"model":"%b","stream":false,"prompt":"%d"}'
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"


def body(number: int) -> bytes:
    """A body that can be told apart."""
    return BODY % (MODEL.encode(), number)


def request(number: int) -> bytes:
    """A request that leaves the connection open."""
    return post("/api/generate", body(number), close=False)


async def echo(raw: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with the prompt."""
    match = re.search(rb'"prompt":"(\d+)"', raw)
    assert match is not None
    said = b'{"response":"%b","done":true}' % match[1]
    writer.write(OK % (len(said), said))


async def answers(reader: asyncio.StreamReader, count: int) -> list[bytes]:
    """The bodies of so many answers."""
    found = []
    for _ in range(count):
        head = await reader.readuntil(b"\r\n\r\n")
        match = re.search(rb"\r\nContent-Length: (\d+)\r\n", head)
        assert match is not None
        found.append(await reader.readexactly(int(match[1])))
    return found


async def connected(router: Router) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client's connection."""
    return await asyncio.open_connection("127.0.0.1", router.port)


async def test_pipelined_requests_are_answered_in_order(make_router: MakeRouter) -> None:
    """Fifty in one write, more than one read can hold."""
    router = await make_router()
    router.endpoints[0].script = echo
    reader, writer = await connected(router)
    writer.write(b"".join(request(number) for number in range(50)))
    for number, said in enumerate(await answers(reader, 50)):
        assert said == b'{"response":"%d","done":true}' % number
    writer.close()


async def test_a_thousand_pipelined_requests_that_are_refused_at_once_are_all_answered(
    make_router: MakeRouter,
) -> None:
    """However soon each is over: no recursion, no lost one."""
    router = await make_router()
    reader, writer = await connected(router)
    bad = post("/api/generate", b"no json", close=False)
    writer.write(bad * 1000)
    for said in await answers(reader, 1000):
        assert b"not valid JSON" in said or b"JSON" in said
    writer.close()
    assert len(router.records) == 1000
    assert {record.failure and record.failure.kind for record in router.records} == {
        Kind.BODY_NOT_JSON
    }


async def test_requests_of_both_kinds_mix_on_one_connection(make_router: MakeRouter) -> None:
    """A plain POST, a list, one in chunks, a plain POST: in order, all answered."""
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
        said = await answers(reader, 4)
        assert [b'"0"' in said[0], b'"1"' in said[1], b'"2"' in said[3]] == [True] * 3
        assert b"error" in said[2]
    writer.close()


@pytest.mark.parametrize("size", [1, 7, 50])
async def test_requests_may_come_in_any_pieces(make_router: MakeRouter, size: int) -> None:
    """Cut within heads and bodies, over the borders of requests."""
    router = await make_router()
    router.endpoints[0].script = echo
    reader, writer = await connected(router)
    raw = b"".join(request(number) for number in range(4))
    for at in range(0, len(raw), size):
        writer.write(raw[at : at + size])
        await asyncio.sleep(0)
    for number, said in enumerate(await answers(reader, 4)):
        assert said == b'{"response":"%d","done":true}' % number
    writer.close()


async def test_garbage_after_a_request_does_not_spoil_its_answer(make_router: MakeRouter) -> None:
    """The garbage gets an answer of its own, and the connection is closed."""
    router = await make_router()
    router.endpoints[0].script = echo
    reader, writer = await connected(router)
    writer.write(request(7))
    assert await answers(reader, 1) == [b'{"response":"7","done":true}']
    writer.write(b"\x00\x01garbage\r\n\r\n")
    head, _ = split(await reader.read())
    assert head.startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_the_connection_closes_when_the_client_asked_for_it(make_router: MakeRouter) -> None:
    """After the answer, without waiting for more."""
    router = await make_router()
    router.endpoints[0].script = echo
    raw = await router.exchange(post("/api/generate", body(3)))
    head, said = split(raw)
    assert b"Connection: close" in head
    assert said == b'{"response":"3","done":true}'


async def test_whatever_follows_the_last_request_does_not_cost_its_answer(
    make_router: MakeRouter,
) -> None:
    """A request that says `Connection: close`, and another one while it is answered."""
    router = await make_router()
    released = asyncio.Event()

    async def late(raw: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        await echo(raw, reader, writer)

    router.endpoints[0].script = late
    reader, writer = await connected(router)
    writer.write(post("/api/generate", body(3)))
    while not router.endpoints[0].requests:
        await asyncio.sleep(0.001)
    writer.write(request(4))
    await writer.drain()
    await asyncio.sleep(0.01)
    released.set()
    head, said = split(await reader.read())
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert said.startswith(b'{"response":"3","done":true}')
    assert len(router.endpoints[0].requests) == 1
    writer.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("sent", [5, -5], ids=["head", "body"])
async def test_a_client_that_leaves_in_the_middle_of_its_request_leaves_nothing(
    make_router: MakeRouter, sent: int
) -> None:
    """No endpoint hears of it, and the time-out of what was to come is forgotten at once: a
    hundred thousand such clients must not fill the memory for `server.read_timeout`."""
    router = await make_router()
    deadlines = router.downstream.server.deadlines
    _, writer = await connected(router)
    writer.write(request(1)[:sent])
    # What aiohttp reads of a body has a time-out of asyncio's own.
    await until(lambda: len(deadlines) + router.downstream.active > 0)
    writer.close()
    await until(lambda: not router.downstream.connections)
    assert len(deadlines) == 0
    assert router.endpoints[0].requests == []


def waiting(begun: bytes, asked: asyncio.Event) -> Script:
    """A script that begins to answer and waits for the client to hang up."""

    async def script(_: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begun)
        asked.set()
        await reader.read()

    return script


HALF = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Length: 99\r\n\r\n{}\n"


@pytest.mark.parametrize("begun", [b"", HALF], ids=["waiting", "streaming"])
@pytest.mark.parametrize("cut", [0, 5, -5], ids=["whole", "head in two", "body in two"])
async def test_a_request_has_one_time_out_and_a_client_that_leaves_none(
    make_router: MakeRouter, cut: int, begun: bytes
) -> None:
    """Once a request is there, only the attempt is timed; with its client that ends too."""
    router = await make_router()
    deadlines, asked = router.downstream.server.deadlines, asyncio.Event()
    router.endpoints[0].script = waiting(begun, asked)
    reader, writer = await connected(router)
    if cut:
        writer.write(request(1)[:cut])
        await until(lambda: len(deadlines) + router.downstream.active > 0)
    writer.write(request(1)[cut:])
    await asked.wait()
    if begun:
        await reader.readuntil(b"{}\n")
    assert len(deadlines) == 1
    writer.close()
    await until(lambda: not router.downstream.active)
    assert len(deadlines) == 0


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not(
    make_router: MakeRouter,
) -> None:
    """Idle: between requests. An answer may take longer than that."""
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


async def test_an_answer_that_fails_leaves_the_connection_usable(make_router: MakeRouter) -> None:
    """Where nothing of it has gone out."""
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
