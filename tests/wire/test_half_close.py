"""A client closes its sending side after its request, as `nc -N` and health scripts do."""

import asyncio
import json

import pytest

from olla.failures import Kind
from tests.waiting import until
from tests.wire.conftest import MODEL, MakeRouter, Router, answer, ended, post, split
from tests.wire.test_failover import NDJSON_HEAD, RECORD, chunk, hang

BODY = json.dumps({"model": MODEL, "stream": False, "prompt": "p"}).encode()
STREAM = json.dumps({"model": MODEL, "stream": True, "prompt": "p"}).encode()
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n"
OK += b'{"done":true}'
TIMES = 20
"""Repetitions: the outcome once depended on a race."""


def get(path: str, version: str = "1.1") -> bytes:
    """Build a GET without `Connection: close`."""
    return f"GET {path} HTTP/{version}\r\nHost: x\r\n\r\n".encode()


CHUNKED = (
    b"POST /api/generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"1\r\n{\r\n0\r\n\r\n"
)
REJECTED = {
    "not HTTP": (b"\x00\x01\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a bad Host": (get("/").replace(b"x", b"a b"), 400),
    "a long head": (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
    "an unknown path": (get("/nothing"), 404),
    "an unknown path in 1.0": (get("/nothing", "1.0"), 404),
    "a wrong method": (get("/api/chat"), 405),
    "not JSON": (post("/api/generate", b"{", close=False), 400),
    "not JSON, in chunks": (CHUNKED, 400),
    "not JSON, in 1.0": (post("/v1/messages", b"{", version="1.0", close=False), 400),
    "an unknown model": (post("/api/generate", b'{"model":"other"}', close=False), 404),
    "a compressed body": (post("/api/generate", BODY, "Content-Encoding: x", close=False), 415),
}


@pytest.mark.parametrize(("raw", "status"), REJECTED.values(), ids=list(REJECTED))
async def test_rejections_always_reach_a_half_closed_client(
    make_router: MakeRouter, raw: bytes, status: int
) -> None:
    """The half close does not prevent the response, and the connection closes after it."""
    router = await make_router()
    for _ in range(TIMES):
        got, clean = await ended(router.port, raw, half_close=True)
        assert clean
        assert int(got.split()[1]) == status
        head, body = split(got)
        assert b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"
    await no_connection(router)


async def test_pipelined_requests_before_a_half_close_are_all_answered(
    make_router: MakeRouter,
) -> None:
    """They are answered in order; an incomplete request after them is ignored."""
    router = await make_router()
    rejected = {get("/nothing"): 404, get("/api/chat"): 405}
    rejected[post("/api/generate", b"{", close=False)] = 400
    first, second, third = rejected
    rests = [b"", b"GET /not", post("/api/chat", BODY)[:-3], CHUNKED[:-5]]
    orders = [(first, third, second, third, third, first), (third,), (third, third), (first,)]
    for rest in rests:
        for order in (*orders, (third, first), (first, third)):
            for _ in range(3):
                got, clean = await ended(router.port, b"".join(order) + rest, half_close=True)
                assert clean
                statuses = [int(part.split()[0]) for part in got.split(b"HTTP/1.1 ")[1:]]
                assert statuses == [rejected[request] for request in order], rest
    await no_connection(router)
    assert router.endpoints[0].requests == []


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
async def test_a_half_closed_request_is_not_forwarded(
    make_router: MakeRouter, version: str, chunked: bool
) -> None:
    """The client may have hung up. If it has not, it always gets a 499 that says to keep the
    connection open."""
    router = await make_router()
    router.endpoints[0].script = hang
    raw = post("/api/generate", BODY, version=version, close=False)
    if chunked:
        if version == "1.0":
            return
        raw = CHUNKED.replace(b"1\r\n{\r\n", b"%x\r\n%b\r\n" % (len(BODY), BODY))
    for _ in range(TIMES):
        got, clean = await ended(router.port, raw, half_close=True)
        assert clean
        assert got.startswith(b"HTTP/1.1 499 Client Closed Request\r\n")
        assert b"keep it open" in got
    assert {record.failure and record.failure.kind for record in router.records} == {
        Kind.CLIENT_GONE
    }
    assert not [failure for _, failure in router.fleet.observed if failure is not None]
    await until(lambda: not router.pool.open)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_stream_ends_at_a_half_close(make_router: MakeRouter, version: str) -> None:
    """The connection to the endpoint is closed at once, and the client's response ends as
    broken."""
    router = await make_router()

    async def begin(
        request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await answer(NDJSON_HEAD + chunk(RECORD))(request, reader, writer)
        await hang(request, reader, writer)

    router.endpoints[0].script = begin
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(post("/api/generate", STREAM, version=version, close=False))
    await reader.readuntil(RECORD)
    writer.write_eof()
    await router.endpoints[0].lost.wait()
    if version == "1.1":
        rest = await reader.read()
        assert b"closed its side" in rest
        assert not rest.endswith(b"0\r\n\r\n")
    else:
        with pytest.raises(ConnectionResetError):
            await reader.read()
    writer.close()
    record = router.records[0]
    assert record.status == 200
    assert record.failure is not None
    assert record.failure.kind is Kind.CLIENT_GONE


async def test_a_half_close_after_the_response_is_normal(make_router: MakeRouter) -> None:
    """The client is done, and the record has no failure."""
    router = await make_router()
    router.endpoints[0].script = answer(OK)
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(post("/api/generate", BODY, close=False))
    await reader.readuntil(b'{"done":true}')
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    assert router.records[0].failure is None


HALF = {
    "nothing": b"",
    "half a line": b"GET /inter",
    "half a head": b"POST /api/generate HTTP/1.1\r\nHost: x\r\n",
    "half a body": post("/api/generate", BODY)[:-3],
    "half a body in chunks": CHUNKED[:-5],
}


@pytest.mark.parametrize("raw", HALF.values(), ids=list(HALF))
async def test_an_incomplete_half_closed_request_gets_no_response(
    make_router: MakeRouter, raw: bytes
) -> None:
    """The connection closes at once, without waiting for a timeout."""
    router = await make_router()
    for _ in range(5):
        assert await ended(router.port, raw, half_close=True) == (b"", True)
    await no_connection(router)
    assert router.endpoints[0].requests == []


async def test_an_idle_connection_closes_at_a_half_close(make_router: MakeRouter) -> None:
    """This holds after a response on either request path."""
    router = await make_router()
    router.endpoints[0].script = answer(OK)
    for request, end in ((post("/api/generate", BODY, close=False), b"e}"), (get("/x"), b"}}}")):
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(request)
        await reader.readuntil(end)
        writer.write_eof()
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
    await no_connection(router)


async def no_connection(router: Router) -> None:
    """Wait until the router has no client connection."""
    await until(lambda: not router.downstream.connections)
