"""How an answer ends that will not be complete: in a way that no client takes for its end.

A chunked answer lacks its last chunk, one with a length stays short. Where the close of the
connection is the end (HTTP/1.0, answers without framing) it is a reset.
"""

import asyncio
import json

import pytest

from olla.proxy.exchange.attempt import Timeouts
from olla.proxy.server import aiohttp_internals
from tests.wire.conftest import MODEL, MakeRouter, Script, answer, ended, post, split
from tests.wire.test_failover import CUT, NDJSON_HEAD, RECORD, chunk, hang

BODY = json.dumps({"model": MODEL, "stream": False, "prompt": "p"}).encode()
STREAM = json.dumps({"model": MODEL, "stream": True, "prompt": "p"}).encode()
LAST = b'{"done":true}\n'
PLAIN_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n"
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


async def reset_after(_: bytes, __: object, writer: asyncio.StreamWriter) -> None:
    """A script that drops the connection in the middle of an answer without framing."""
    writer.write(PLAIN_HEAD + RECORD)
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.transport.abort()


async def silent_after(
    request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """A script that says nothing more."""
    await answer(NDJSON_HEAD + chunk(RECORD))(request, reader, writer)
    await hang(request, reader, writer)


def apart(*pieces: bytes) -> Script:
    """A script whose answer has begun when its end comes: until then it would be tried again."""

    async def script(_: bytes, __: object, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.05)
        writer.close()

    return script


BROKEN: dict[str, tuple[Script, bytes]] = {
    **{name: (apart(*pieces), STREAM) for name, pieces in CUT.items()},
    "silence": (silent_after, STREAM),
    "an error of the endpoint's own": (
        answer(NDJSON_HEAD + chunk(b'{"error":"no"}\n') + b"0\r\n\r\n"),
        STREAM,
    ),
    "no framing, no last record": (answer(PLAIN_HEAD + RECORD, close=True), STREAM),
    "no framing, a reset": (reset_after, STREAM),
    "half a JSON text in chunks": (
        apart(
            JSON_HEAD + b'Transfer-Encoding: chunked\r\n\r\n2\r\n{"\r\n', b'3\r\na":\r\n0\r\n\r\n'
        ),
        BODY,
    ),
    "chunks of JSON that break off": (
        answer(JSON_HEAD + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n', close=True),
        BODY,
    ),
    "half a JSON text without framing": (answer(JSON_HEAD + b'\r\n{"a":', close=True), BODY),
}


@pytest.mark.parametrize(("script", "body"), BROKEN.values(), ids=list(BROKEN))
async def test_a_broken_answer_to_http_1_0_ends_with_a_reset(
    make_router: MakeRouter, script: Script, body: bytes
) -> None:
    """All that came before is there, the error in a stream too; an end would read as success."""
    router = await make_router(timeouts=Timeouts(silence=0.2))
    router.endpoints[0].script = script
    raw, clean = await ended(router.port, post("/api/generate", body, version="1.0"))
    assert not clean
    head, payload = split(raw)
    assert b"Transfer-Encoding" not in head
    if body is STREAM:
        lines = payload.splitlines()
        assert "error" in json.loads(lines[-1])
        assert len(lines) == 1 or lines[0] + b"\n" == RECORD
    else:
        assert payload == b'{"a":'
    assert router.records[-1].failure is not None


UNFRAMED = [name for name in BROKEN if "no framing" in name or "without framing" in name]


@pytest.mark.parametrize("name", list(BROKEN))
async def test_a_broken_answer_to_http_1_1_is_reset_where_nothing_else_can_tell(
    make_router: MakeRouter, name: str
) -> None:
    """Where there are chunks, the last one is missing, and nothing that came is put at risk."""
    router = await make_router(timeouts=Timeouts(silence=0.2))
    script, body = BROKEN[name]
    router.endpoints[0].script = script
    raw, clean = await ended(router.port, post("/api/generate", body))
    assert clean is (name not in UNFRAMED)
    assert not raw.endswith(b"0\r\n\r\n")
    assert (b"error" in raw) is (body is STREAM)


WHOLE = {
    "chunks": NDJSON_HEAD + chunk(LAST) + b"0\r\n\r\n",
    "no framing": PLAIN_HEAD + LAST,
    "a length": JSON_HEAD + b"Content-Length: 13\r\n\r\n" + LAST[:-1],
    "JSON in chunks": JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "JSON without framing": JSON_HEAD + b"\r\n{}",
    "another type": b"HTTP/1.1 200 OK\r\n\r\nall of it",
    "an error": b"HTTP/1.1 500 X\r\n\r\nno",
    "nothing": b"HTTP/1.1 204 X\r\n\r\n",
}


@pytest.mark.parametrize("raw", WHOLE.values(), ids=list(WHOLE))
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_whole_answer_ends_with_an_end(
    make_router: MakeRouter, raw: bytes, version: str
) -> None:
    """Never with a reset, however it is framed."""
    router = await make_router()
    router.endpoints[0].script = answer(raw, close=True)
    body = STREAM if b"ndjson" in raw else BODY
    for _ in range(3):
        _, clean = await ended(router.port, post("/api/generate", body, version=version))
        assert clean


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("body", [b"{", b'{"model":"other"}', b"{}"], ids=["bad", "404", "none"])
async def test_an_error_of_the_routers_own_ends_with_an_end(
    make_router: MakeRouter, body: bytes, version: str
) -> None:
    """It is whole."""
    router = await make_router()
    raw, clean = await ended(router.port, post("/api/generate", body, version=version))
    assert clean
    assert b'{"error":' in raw


async def test_a_stream_that_is_waited_for_in_vain_ends_with_a_reset(
    make_router: MakeRouter,
) -> None:
    """The router has begun it, so it has to end it."""
    router = await make_router(wait_keepalive=0.05, timeouts=Timeouts(first_byte=0.3))
    router.endpoints[0].script = hang
    raw, clean = await ended(router.port, post("/v1/chat/completions", STREAM, version="1.0"))
    assert not clean
    _, body = split(raw)
    assert body.startswith(b": waiting")
    assert b"proxy.response_header_timeout" in body


async def test_a_stream_that_was_waited_for_and_came_ends_with_an_end(
    make_router: MakeRouter,
) -> None:
    """As it would have without."""
    router = await make_router(wait_keepalive=0.05)
    events = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    raw = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%b"

    async def late(_: bytes, __: object, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        writer.write(raw % (len(events), events))

    router.endpoints[0].script = late
    got, clean = await ended(router.port, post("/v1/chat/completions", STREAM, version="1.0"))
    assert clean
    assert b": waiting" in got
    assert got.endswith(events)


async def test_the_routers_end_does_not_pass_for_the_answers(make_router: MakeRouter) -> None:
    """A stream that shutting down cuts off: the error first, then a reset."""
    router = await make_router()
    router.endpoints[0].script = silent_after
    request = post("/api/generate", STREAM, version="1.0")
    asking = asyncio.create_task(ended(router.port, request))
    async with asyncio.timeout(10):
        while not (router.records or router.downstream.active):
            await asyncio.sleep(0.001)
        while not router.endpoints[0].requests:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    await router.downstream.drain(0.0)
    raw, clean = await asking
    assert not clean
    assert b"shutting down" in raw


@pytest.mark.parametrize("name", ["clean end without the last record", "a whole answer"])
async def test_a_failure_of_the_routers_own_does_not_end_an_answer(
    make_router: MakeRouter, name: str
) -> None:
    """What is not whole is reset however the exchange ends; a whole answer stays one."""
    router = await make_router()
    whole = name == "a whole answer"
    script = answer(WHOLE["chunks"]) if whole else BROKEN[name][0]

    def failing(*_: object) -> None:
        raise RuntimeError("out of order")

    router.endpoints[0].script = script
    router.fleet.observe = failing  # type: ignore[method-assign]
    _, clean = await ended(router.port, post("/api/generate", STREAM, version="1.0"))
    assert clean is whole
    assert "out of order" in router.log.getvalue()
    router.log.truncate(0)


async def test_a_client_that_does_not_read_does_not_hold_a_broken_answer_for_long(
    make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has not taken by then is lost to it, and it sees that something is."""
    monkeypatch.setattr(aiohttp_internals, "_PARTING_SECONDS_MAX", 0.3)
    router = await make_router()
    size = 16 * 1024 * 1024

    async def much(_: bytes, __: object, writer: asyncio.StreamWriter) -> None:
        writer.write(PLAIN_HEAD.replace(b"x-ndjson", b"x-other"))
        for _ in range(size // 65536):
            writer.write(b"x" * 65536)
            await writer.drain()

    router.endpoints[0].script = much
    raw = post("/api/generate", STREAM, version="1.0")
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port, limit=1024)
    writer.write(raw)
    await reader.readuntil(b"\r\n\r\n")
    await router.downstream.drain(0.2)
    async with asyncio.timeout(10):
        while router.downstream.connections:
            await asyncio.sleep(0.005)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
