"""Responses that are compressed against olla's request are forwarded verbatim and decoded for
usage."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable

import pytest
from backports import zstd

from olla.failures import Kind
from olla.proxy.exchange.attempt import Timeouts
from tests.wire.conftest import MODEL, MakeRouter, answer, post, split
from tests.wire.test_relay_verbatim import NDJSON, SSE

STREAM = json.dumps({"model": MODEL, "stream": True, "prompt": "p", "messages": []}).encode()
WHOLE = json.dumps({"model": MODEL, "stream": False, "prompt": "p", "messages": []}).encode()
ANSWER = b'{"response":"Hello","done":true,"prompt_eval_count":700,"eval_count":500}'
Records = tuple[bytes, ...]


def zlib_stream(records: Records, wbits: int) -> list[bytes]:
    """Compress the records, each flushed separately, then the end."""
    compressor = zlib.compressobj(wbits=wbits)
    pieces = [compressor.compress(each) + compressor.flush(zlib.Z_SYNC_FLUSH) for each in records]
    return [*pieces, compressor.flush()]


def zstd_stream(records: Records) -> list[bytes]:
    """Compress the records like `zlib_stream`, with zstd."""
    compressor = zstd.ZstdCompressor()
    block = zstd.ZstdCompressor.FLUSH_BLOCK
    pieces = [compressor.compress(each) + compressor.flush(block) for each in records]
    return [*pieces, compressor.flush()]


COMPRESSORS: dict[str, Callable[[Records], list[bytes]]] = {
    "gzip": lambda records: zlib_stream(records, 31),
    "deflate": lambda records: zlib_stream(records, 15),
    "zstd": zstd_stream,
}
STREAMS = {
    "/api/generate": (b"application/x-ndjson", NDJSON),
    "/v1/chat/completions": (b"text/event-stream", SSE),
}


def head(coding: str, kind: bytes, length: int | None = None) -> bytes:
    """Build the head of a compressed response, chunked or with a length."""
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Encoding: %b\r\n%b\r\n\r\n" % (
        kind,
        coding.encode(),
        framing,
    )


def chunks(pieces: list[bytes]) -> bytes:
    """Build chunks, without the last one."""
    return b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces if each)


@pytest.mark.parametrize("coding", sorted(COMPRESSORS))
async def test_a_compressed_response_is_counted_wherever_it_is_split(
    make_router: MakeRouter, coding: str
) -> None:
    """Its bytes arrive unchanged, and the token counts are the endpoint's."""
    router = await make_router()
    body = b"".join(COMPRESSORS[coding]((ANSWER,)))
    raw = head(coding, b"application/json", len(body)) + body
    start = len(raw) - len(body)
    for cut in (start - 1, *range(start, len(raw))):
        router.endpoints[0].script = answer(raw[:cut], raw[cut:])
        response = await router.exchange(post("/api/generate", WHOLE))
        assert split(response)[1] == body
        assert b"Content-Encoding: " + coding.encode() in response
        record = router.records.pop()
        assert record.failure is None
        assert (record.prompt_tokens, record.output_tokens) == (700, 500)
        assert not record.estimated
    assert b"\r\nAccept-Encoding: identity\r\n" in router.endpoints[0].requests[0]


@pytest.mark.parametrize("path", sorted(STREAMS))
@pytest.mark.parametrize("coding", sorted(COMPRESSORS))
async def test_a_compressed_stream_is_complete_when_its_records_are(
    make_router: MakeRouter, coding: str, path: str
) -> None:
    """It is broken if its last record is missing, even when the chunked body ends cleanly. No error
    record is added, because the client could not decode it."""
    router = await make_router()
    kind, records = STREAMS[path]
    pieces = COMPRESSORS[coding](records)
    whole = chunks(pieces)
    raw = head(coding, kind) + whole + b"0\r\n\r\n"
    start = len(raw) - len(whole) - 5
    for cut in range(start, len(raw), 7):
        router.endpoints[0].script = answer(raw[:cut], raw[cut:])
        response = await router.exchange(post(path, STREAM))
        assert split(response)[1] == whole + b"0\r\n\r\n"
        record = router.records.pop()
        assert record.failure is None
    part = chunks(pieces[:1])
    raw = head(coding, kind) + part
    router.endpoints[0].script = answer(raw, b"0\r\n\r\n", close=True)
    response = await router.exchange(post(path, STREAM))
    assert split(response)[1] == part
    record = router.records.pop()
    assert record.failure is not None
    assert record.failure.kind is Kind.STREAM_INCOMPLETE


@pytest.mark.parametrize("trouble", ["reset", "silence"])
async def test_a_broken_compressed_stream_gets_no_error_record(
    make_router: MakeRouter, trouble: str
) -> None:
    """The connection closes without a clean end."""
    router = await make_router(timeouts=Timeouts(silence=0.2))
    part = chunks(COMPRESSORS["gzip"](NDJSON[:1])[:1])

    async def script(_: bytes, __: object, writer: asyncio.StreamWriter) -> None:
        writer.write(head("gzip", b"application/x-ndjson") + part)
        await writer.drain()
        if trouble == "reset":
            writer.close()

    router.endpoints[0].script = script
    response = await router.exchange(post("/api/generate", STREAM))
    assert split(response)[1] == part
    assert router.records[0].failure is not None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("coding", "bomb"), [("br", False), ("gzip, br", False), ("gzip", True), ("zstd", True)]
)
async def test_an_undecodable_response_is_forwarded_and_estimated(
    make_router: MakeRouter, coding: str, bomb: bool, stream: bool
) -> None:
    """The estimate is never zero, and the record marks it as one."""
    router = await make_router()
    body = b"not what it says" * 100
    if bomb:
        body = b"".join(COMPRESSORS[coding]((bytes(40 << 20),)))
    kind = b"application/x-ndjson" if stream else b"application/json"
    router.endpoints[0].script = answer(head(coding, kind, len(body)) + body)
    response = await router.exchange(post("/api/generate", STREAM if stream else WHOLE))
    assert split(response)[1] == body
    record = router.records[0]
    assert record.failure is None
    assert record.estimated
    assert record.output_tokens == round(len(body) / 4)


async def test_a_stream_that_olla_began_ends_when_the_endpoint_compresses(
    make_router: MakeRouter,
) -> None:
    """The head promised an uncompressed stream, so the stream ends with an error."""
    router = await make_router(wait_keepalive=0.05)

    async def script(_: bytes, __: object, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        pieces = COMPRESSORS["gzip"](SSE)
        writer.write(head("gzip", b"text/event-stream") + chunks(pieces) + b"0\r\n\r\n")

    router.endpoints[0].script = script
    response = await router.exchange(post("/v1/chat/completions", STREAM))
    assert b": waiting" in response
    assert b"sent a compressed stream" in response
    assert router.records[0].failure is not None
    assert router.records[0].failure.kind is Kind.BAD_HEAD


async def test_accept_encoding_is_forwarded_on_paths_that_olla_does_not_parse(
    make_router: MakeRouter,
) -> None:
    """A server's web page, for example, may exist in compressed form only."""
    router = await make_router(profile="llamacpp")
    page = gzip.compress(b"<html>")
    router.endpoints[0].script = answer(head("gzip", b"text/html", len(page)) + page)
    response = await router.exchange(
        b"GET /olla/llamacpp/index.html HTTP/1.1\r\nHost: olla\r\nAccept-Encoding: gzip\r\n"
        b"Connection: close\r\n\r\n"
    )
    assert split(response)[1] == page
    assert b"\r\nAccept-Encoding: gzip\r\n" in router.endpoints[0].requests[0]
