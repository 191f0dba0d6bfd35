"""Answers that come compressed though they were asked not to: passed on verbatim, and read."""

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
    """The records, each flushed by itself, and the end."""
    packer = zlib.compressobj(wbits=wbits)
    pieces = [packer.compress(each) + packer.flush(zlib.Z_SYNC_FLUSH) for each in records]
    return [*pieces, packer.flush()]


def zstd_stream(records: Records) -> list[bytes]:
    """The same."""
    packer = zstd.ZstdCompressor()
    block = zstd.ZstdCompressor.FLUSH_BLOCK
    pieces = [packer.compress(each) + packer.flush(block) for each in records]
    return [*pieces, packer.flush()]


PACK: dict[str, Callable[[Records], list[bytes]]] = {
    "gzip": lambda records: zlib_stream(records, 31),
    "deflate": lambda records: zlib_stream(records, 15),
    "zstd": zstd_stream,
}
STREAMS = {
    "/api/generate": (b"application/x-ndjson", NDJSON),
    "/v1/chat/completions": (b"text/event-stream", SSE),
}


def head(coding: str, kind: bytes, length: int | None = None) -> bytes:
    """The head of a compressed answer, in chunks or with a length."""
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Encoding: %b\r\n%b\r\n\r\n" % (
        kind,
        coding.encode(),
        framing,
    )


def chunks(pieces: list[bytes]) -> bytes:
    """Chunks, without the last."""
    return b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces if each)


@pytest.mark.parametrize("coding", sorted(PACK))
async def test_a_whole_answer_is_counted_wherever_it_is_cut(
    make_router: MakeRouter, coding: str
) -> None:
    """Its bytes arrive as they were sent, and its counts are the endpoint's."""
    router = await make_router()
    body = b"".join(PACK[coding]((ANSWER,)))
    raw = head(coding, b"application/json", len(body)) + body
    start = len(raw) - len(body)
    for cut in (start - 1, *range(start, len(raw))):
        router.endpoints[0].script = answer(raw[:cut], raw[cut:])
        told = await router.exchange(post("/api/generate", WHOLE))
        assert split(told)[1] == body
        assert b"Content-Encoding: " + coding.encode() in told
        record = router.records.pop()
        assert record.failure is None
        assert (record.prompt_tokens, record.output_tokens) == (700, 500)
        assert not record.estimated
    assert b"\r\nAccept-Encoding: identity\r\n" in router.endpoints[0].requests[0]


@pytest.mark.parametrize("path", sorted(STREAMS))
@pytest.mark.parametrize("coding", sorted(PACK))
async def test_a_stream_is_complete_by_its_records_wherever_it_is_cut(
    make_router: MakeRouter, coding: str, path: str
) -> None:
    """And broken where they are not all there, however cleanly its framing ended. Nothing is said
    within it: the client could not read that."""
    router = await make_router()
    kind, records = STREAMS[path]
    pieces = PACK[coding](records)
    whole = chunks(pieces)
    raw = head(coding, kind) + whole + b"0\r\n\r\n"
    start = len(raw) - len(whole) - 5
    for cut in range(start, len(raw), 7):
        router.endpoints[0].script = answer(raw[:cut], raw[cut:])
        told = await router.exchange(post(path, STREAM))
        assert split(told)[1] == whole + b"0\r\n\r\n"
        record = router.records.pop()
        assert record.failure is None
    part = chunks(pieces[:1])
    raw = head(coding, kind) + part
    router.endpoints[0].script = answer(raw, b"0\r\n\r\n", close=True)
    told = await router.exchange(post(path, STREAM))
    assert split(told)[1] == part
    record = router.records.pop()
    assert record.failure is not None
    assert record.failure.kind is Kind.STREAM_INCOMPLETE


@pytest.mark.parametrize("trouble", ["reset", "silence"])
async def test_a_compressed_stream_that_breaks_off_gets_no_error_within(
    make_router: MakeRouter, trouble: str
) -> None:
    """The connection closes without an end."""
    router = await make_router(timeouts=Timeouts(silence=0.2))
    part = chunks(PACK["gzip"](NDJSON[:1])[:1])

    async def script(_: bytes, __: object, writer: asyncio.StreamWriter) -> None:
        writer.write(head("gzip", b"application/x-ndjson") + part)
        await writer.drain()
        if trouble == "reset":
            writer.close()

    router.endpoints[0].script = script
    told = await router.exchange(post("/api/generate", STREAM))
    assert split(told)[1] == part
    assert router.records[0].failure is not None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("coding", "bomb"), [("br", False), ("gzip, br", False), ("gzip", True), ("zstd", True)]
)
async def test_what_cannot_be_read_is_passed_on_and_estimated(
    make_router: MakeRouter, coding: str, bomb: bool, stream: bool
) -> None:
    """It is never nothing, and the record says that it is an estimate."""
    router = await make_router()
    body = b"not what it says" * 100
    if bomb:
        body = b"".join(PACK[coding]((bytes(40 << 20),)))
    kind = b"application/x-ndjson" if stream else b"application/json"
    router.endpoints[0].script = answer(head(coding, kind, len(body)) + body)
    told = await router.exchange(post("/api/generate", STREAM if stream else WHOLE))
    assert split(told)[1] == body
    record = router.records[0]
    assert record.failure is None
    assert record.estimated
    assert record.output_tokens == round(len(body) / 4)


async def test_a_stream_that_olla_has_begun_gets_no_compressed_bytes(
    make_router: MakeRouter,
) -> None:
    """Its head has promised plain ones: it ends with an error."""
    router = await make_router(wait_keepalive=0.05)

    async def script(_: bytes, __: object, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        pieces = PACK["gzip"](SSE)
        writer.write(head("gzip", b"text/event-stream") + chunks(pieces) + b"0\r\n\r\n")

    router.endpoints[0].script = script
    told = await router.exchange(post("/v1/chat/completions", STREAM))
    assert b": waiting" in told
    assert b"sent a compressed stream" in told
    assert router.records[0].failure is not None
    assert router.records[0].failure.kind is Kind.BAD_HEAD


async def test_paths_that_olla_does_not_read_are_asked_for_as_the_client_likes(
    make_router: MakeRouter,
) -> None:
    """Such as the page of a server, which may have it compressed only."""
    router = await make_router(profile="llamacpp")
    page = gzip.compress(b"<html>")
    router.endpoints[0].script = answer(head("gzip", b"text/html", len(page)) + page)
    told = await router.exchange(
        b"GET /olla/llamacpp/index.html HTTP/1.1\r\nHost: olla\r\nAccept-Encoding: gzip\r\n"
        b"Connection: close\r\n\r\n"
    )
    assert split(told)[1] == page
    assert b"\r\nAccept-Encoding: gzip\r\n" in router.endpoints[0].requests[0]
