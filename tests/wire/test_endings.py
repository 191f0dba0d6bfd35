"""An incomplete response ends so that no client takes it for complete.

A chunked response lacks its last chunk, and one with a length stays short. Where closing the
connection marks the end (HTTP/1.0, responses without framing) the connection is reset.
"""

import asyncio
import json

import pytest

from olla.proxy.exchange.attempt import Timeouts
from olla.proxy.server import aiohttp_internals
from tests.waiting import until
from tests.wire.conftest import MODEL, MakeRouter, Script, answer, ended, post, split
from tests.wire.test_failover import CUT, NDJSON_HEAD, RECORD, chunk, hang

BODY = json.dumps({"model": MODEL, "stream": False, "prompt": "p"}).encode()
STREAM = json.dumps({"model": MODEL, "stream": True, "prompt": "p"}).encode()
LAST = b'{"done":true}\n'
PLAIN_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n"
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


async def reset_after(_: bytes, __: object, writer: asyncio.StreamWriter) -> None:
    """Send a part of a response without framing, then reset the connection."""
    writer.write(PLAIN_HEAD + RECORD)
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.transport.abort()


async def silent_after(
    request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send a first record, then nothing more."""
    await answer(NDJSON_HEAD + chunk(RECORD))(request, reader, writer)
    await hang(request, reader, writer)


def in_parts(*pieces: bytes) -> Script:
    """Return a script that sends its pieces with pauses: a failure before the first byte was
    forwarded would be retried."""

    async def script(_: bytes, __: object, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.05)
        writer.close()

    return script


BROKEN: dict[str, tuple[Script, bytes]] = {
    **{name: (in_parts(*pieces), STREAM) for name, pieces in CUT.items()},
    "silence": (silent_after, STREAM),
    "the endpoint's error record": (
        answer(NDJSON_HEAD + chunk(b'{"error":"no"}\n') + b"0\r\n\r\n"),
        STREAM,
    ),
    "no framing, no last record": (answer(PLAIN_HEAD + RECORD, close=True), STREAM),
    "no framing, a reset": (reset_after, STREAM),
    "half a JSON text in chunks": (
        in_parts(
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
async def test_a_broken_response_to_http_1_0_is_reset(
    make_router: MakeRouter, script: Script, body: bytes
) -> None:
    """The client gets everything before the failure, and for a stream the error; a clean end would
    read as success."""
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
async def test_a_broken_response_to_http_1_1_is_reset_only_without_framing(
    make_router: MakeRouter, name: str
) -> None:
    """A chunked response lacks its last chunk instead, so that a reset cannot discard what was
    sent."""
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
async def test_a_complete_response_ends_cleanly(
    make_router: MakeRouter, raw: bytes, version: str
) -> None:
    """It is never reset, with any framing."""
    router = await make_router()
    router.endpoints[0].script = answer(raw, close=True)
    body = STREAM if b"ndjson" in raw else BODY
    for _ in range(3):
        _, clean = await ended(router.port, post("/api/generate", body, version=version))
        assert clean


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("body", [b"{", b'{"model":"other"}', b"{}"], ids=["bad", "404", "none"])
async def test_the_routers_errors_end_cleanly(
    make_router: MakeRouter, body: bytes, version: str
) -> None:
    """They are complete responses."""
    router = await make_router()
    raw, clean = await ended(router.port, post("/api/generate", body, version=version))
    assert clean
    assert b'{"error":' in raw


async def test_a_stream_with_comments_only_is_reset(
    make_router: MakeRouter,
) -> None:
    """The router has begun the stream, so it must end it."""
    router = await make_router(wait_keepalive=0.05, timeouts=Timeouts(first_byte=0.3))
    router.endpoints[0].script = hang
    raw, clean = await ended(router.port, post("/v1/chat/completions", STREAM, version="1.0"))
    assert not clean
    _, body = split(raw)
    assert body.startswith(b": waiting")
    assert b"proxy.response_header_timeout" in body


async def test_a_complete_stream_after_comments_ends_cleanly(
    make_router: MakeRouter,
) -> None:
    """The comments do not change how it ends."""
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


async def test_a_shutdown_does_not_end_a_response_cleanly(make_router: MakeRouter) -> None:
    """The client gets the error, then a reset."""
    router = await make_router()
    router.endpoints[0].script = silent_after
    request = post("/api/generate", STREAM, version="1.0")
    started = asyncio.Event()
    pending = asyncio.create_task(ended(router.port, request, started.set))
    await started.wait()
    await router.downstream.drain(0.0)
    raw, clean = await pending
    assert not clean
    assert b"shutting down" in raw


@pytest.mark.parametrize("name", ["clean end without the last record", "a complete response"])
async def test_an_internal_error_does_not_end_an_incomplete_response(
    make_router: MakeRouter, name: str
) -> None:
    """An incomplete response is reset however the exchange ends; a complete one ends cleanly."""
    router = await make_router()
    whole = name == "a complete response"
    script = answer(WHOLE["chunks"]) if whole else BROKEN[name][0]

    def failing(*_: object) -> None:
        raise RuntimeError("out of order")

    router.endpoints[0].script = script
    router.fleet.observe = failing  # type: ignore[method-assign]
    _, clean = await ended(router.port, post("/api/generate", STREAM, version="1.0"))
    assert clean is whole
    assert "out of order" in router.log.getvalue()
    router.log.truncate(0)


async def test_a_client_that_does_not_read_holds_a_broken_response_briefly(
    make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It loses what it has not read by then, and the reset shows it."""
    monkeypatch.setattr(aiohttp_internals, "_RESET_WAIT_MAX", 0.3)
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
    await until(lambda: not router.downstream.connections)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
