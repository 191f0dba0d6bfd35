"""Ambiguous requests are rejected; accepted ones are forwarded with the meaning olla parsed."""

import asyncio
import json

import pytest

from tests.wire.conftest import MODEL, MakeRouter, Router, answer, post, split

BODY = b'{"model": "m", "stream": false}'
HOST = b"Host: x\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = HOST + b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"done":true}'


def request(
    line: bytes = b"POST /api/generate HTTP/1.1",
    fields: bytes = HOST + LENGTH,
    body: bytes = BODY,
) -> bytes:
    """Build a request, of which the caller makes one part malformed."""
    return line + b"\r\n" + fields + b"\r\n" + body


AMBIGUOUS = {
    "chunks beside a length": request(fields=CHUNKED + LENGTH, body=CHUNKS),
    "a length before chunks": request(
        fields=HOST + LENGTH + b"Transfer-Encoding: chunked\r\n", body=CHUNKS
    ),
    "two lengths": request(fields=HOST + LENGTH + b"Content-Length: 5\r\n"),
    "the same length twice": request(fields=HOST + LENGTH + LENGTH),
    "a list of lengths": request(fields=HOST + b"Content-Length: 31, 31\r\n"),
    "a length with a sign": request(fields=HOST + b"Content-Length: +31\r\n"),
    "a negative length": request(fields=HOST + b"Content-Length: -1\r\n"),
    "a hexadecimal length": request(fields=HOST + b"Content-Length: 0x1f\r\n"),
    "a length with an underscore": request(fields=HOST + b"Content-Length: 3_1\r\n"),
    "an unknown coding": request(fields=HOST + b"Transfer-Encoding: xchunked\r\n", body=CHUNKS),
    "chunked, but not as the last coding": request(
        fields=HOST + b"Transfer-Encoding: chunked, identity\r\n", body=CHUNKS
    ),
    "another coding before chunked": request(
        fields=HOST + b"Transfer-Encoding: gzip, chunked\r\n", body=CHUNKS
    ),
    "chunks twice": request(fields=CHUNKED + b"Transfer-Encoding: chunked\r\n", body=CHUNKS),
    "a space before the colon": request(fields=HOST + b"Transfer-Encoding : chunked\r\n" + LENGTH),
    "a folded field": request(fields=HOST + b"X-A: 1\r\n 2\r\n" + LENGTH),
    "a folded length": request(fields=HOST + b"Content-Length:\r\n 31\r\n"),
    "one bare LF": request().replace(b"\r\n", b"\n", 1),
    "only bare LFs": request().replace(b"\r\n", b"\n"),
    "a bare CR": request(fields=HOST + b"X-A: a\rTransfer-Encoding: chunked\r\n" + LENGTH),
    "a NUL in a value": request(fields=HOST + b"X-A: a\0b\r\n" + LENGTH),
    "a NUL in a name": request(fields=HOST + b"X\0A: b\r\n" + LENGTH),
    "a field without a name": request(fields=HOST + b": b\r\n" + LENGTH),
    "a chunk of negative size": request(fields=CHUNKED, body=b"-5\r\n"),
    "a chunk's size with a sign": request(fields=CHUNKED, body=b"+" + CHUNKS),
    "a chunk's size with 0x": request(fields=CHUNKED, body=b"0x" + CHUNKS),
    "a chunk's size that overflows": request(fields=CHUNKED, body=b"f" * 17 + CHUNKS),
    "a chunk with a wrong end": request(fields=CHUNKED, body=b"1f\r\n" + BODY + b"XX0\r\n\r\n"),
    "chunks with bare LFs": request(fields=CHUNKED, body=CHUNKS.replace(b"\r\n", b"\n")),
    "an LF in a chunk's extension": request(
        fields=CHUNKED, body=CHUNKS.replace(b"\r\n", b";a\n=b\r\n", 1)
    ),
    "a length among the trailers": request(
        fields=CHUNKED, body=CHUNKS[:-2] + b"Content-Length: 5\r\n\r\n"
    ),
    "no Host": request(fields=LENGTH),
    "two Hosts": request(fields=b"Host: a\r\nHost: b\r\n" + LENGTH),
    "a Host with a path": request(fields=b"Host: x/y\r\n" + LENGTH),
    "a Host with a user": request(fields=b"Host: a@x\r\n" + LENGTH),
    "a list of Hosts": request(fields=b"Host: x, y\r\n" + LENGTH),
    "a Host with a space": request(fields=b"Host: x y\r\n" + LENGTH),
    "an empty Host": request(fields=b"Host:\r\n" + LENGTH),
    "a Host with a bad port": request(fields=b"Host: x:99999\r\n" + LENGTH),
    "a Host in another alphabet": request(fields="Host: \u00fc\r\n".encode() + LENGTH),
    "an absolute target with a user": request(
        line=b"POST http://a@localhost/api/generate HTTP/1.1"
    ),
    "an absolute target over TLS": request(line=b"POST https://x/api/generate HTTP/1.1"),
    "an absolute target": request(line=b"POST http://evil.example/api/generate HTTP/1.1"),
    "CONNECT": request(line=b"CONNECT evil.example:443 HTTP/1.1"),
    "a fragment": request(line=b"POST /api/generate#x HTTP/1.1"),
    "an unknown method": request(line=b"BREW /api/generate HTTP/1.1"),
    "a method in lower case": request(line=b"post /api/generate HTTP/1.1"),
    "HTTP/0.9": b"GET /api/version\r\n\r\n",
    "HTTP/1.2": request(line=b"POST /api/generate HTTP/1.2"),
    "HTTP/2.0": request(line=b"POST /api/generate HTTP/2.0"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TRACE": b"TRACE /api/tags HTTP/1.1\r\nHost: x\r\n\r\n",
    "a body without the announced compression": request(
        fields=HOST + b"Content-Encoding: gzip\r\n" + LENGTH
    ),
    "a body compressed twice": request(
        fields=HOST + b"Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n" + LENGTH
    ),
    "a body with the codings identity and gzip": request(
        fields=HOST + b"Content-Encoding: identity\r\nContent-Encoding: gzip\r\n" + LENGTH
    ),
    "a dot segment": request(line=b"POST /api/x/../generate HTTP/1.1"),
    "an escaped dot segment": request(line=b"POST /api/%2e%2e/generate HTTP/1.1"),
    "an escaped slash": request(line=b"POST /api%2fgenerate HTTP/1.1"),
    "an escape within an escape": request(line=b"POST /api/%252e%252e/x HTTP/1.1"),
    "a backslash": request(line=b"POST /api\\generate HTTP/1.1"),
    "a NUL in the target": request(line=b"POST /api/generate%00 HTTP/1.1"),
    "two models": request(
        fields=HOST + b"Content-Length: 26\r\n", body=b'{"model":"m","model":"n"} '
    ),
    "two models, one in another case": request(
        fields=HOST + b"Content-Length: 26\r\n", body=b'{"model":"m","Model":"n"} '
    ),
    "a model name with a line break": request(
        fields=HOST + b"Content-Length: 23\r\n", body=b'{"model":"m\\r\\nX-A: b"}'
    ),
}


@pytest.fixture
async def router(make_router: MakeRouter) -> Router:
    """Provide a router over an endpoint that answers every request."""
    made = await make_router(read_timeout=0.5, read_header_timeout=0.5, idle_timeout=0.5)
    made.endpoints[0].script = answer(OK)
    return made


async def first_answer(router: Router, raw: bytes) -> bytes:
    """Send the bytes, and return the head of the first response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    try:
        writer.write(raw)
        async with asyncio.timeout(5):
            return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()


@pytest.mark.parametrize("raw", AMBIGUOUS.values(), ids=list(AMBIGUOUS))
async def test_ambiguous_requests_are_rejected(router: Router, raw: bytes) -> None:
    """They get a 4xx on both request paths, and no endpoint receives any of it."""
    head = await first_answer(router, raw)
    assert 400 <= int(head.split()[1]) < 500
    assert router.endpoints[0].requests == []


@pytest.mark.parametrize("raw", AMBIGUOUS.values(), ids=list(AMBIGUOUS))
async def test_ambiguous_requests_are_rejected_behind_a_valid_one(
    router: Router, raw: bytes
) -> None:
    """The ambiguous request follows on the same connection, as in request smuggling."""
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(request() + raw)
    async with asyncio.timeout(5):
        answers = await reader.read()
    writer.close()
    assert answers.count(b"HTTP/1.1 200 ") <= 1
    assert len(router.endpoints[0].requests) <= 1
    assert all(seen.endswith(BODY) for seen in router.endpoints[0].requests)


NEUTRAL = {
    "a foreign Host": (request(fields=b"Host: evil.example\r\n" + LENGTH), b"evil"),
    "an upgrade to HTTP/2": (
        request(
            fields=HOST
            + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
            + LENGTH
        ),
        b"pgrade",
    ),
    "Content-Length as a hop-by-hop field": (
        request(fields=HOST + b"Connection: Content-Length, Host\r\n" + LENGTH),
        b"Connection",
    ),
    "an ID with spaces": (
        request(fields=HOST + b"X-Olla-Request-ID: a b\tc\r\n" + LENGTH),
        b"a b\tc",
    ),
    "Transfer_Encoding with an underscore": (
        request(fields=HOST + b"Transfer_Encoding: chunked\r\n" + LENGTH),
        b"chunked",
    ),
    "Content_Length with an underscore": (
        request(fields=HOST + b"Content_Length: 5\r\n" + LENGTH),
        b"Content_Length",
    ),
    "a chunk extension": (
        request(fields=CHUNKED, body=CHUNKS.replace(b"\r\n", b";a=b\r\n", 1)),
        b"a=b",
    ),
    "a path with two slashes": (request(line=b"POST //api//generate HTTP/1.1"), b"//"),
    "escaped letters in a path": (request(line=b"POST /api/g%65nerate HTTP/1.1"), b"%65"),
}


@pytest.mark.parametrize(("raw", "hidden"), NEUTRAL.values(), ids=list(NEUTRAL))
async def test_harmless_oddities_are_normalized(router: Router, raw: bytes, hidden: bytes) -> None:
    """The endpoint gets one plain request with a length that olla wrote; the oddity has no
    effect."""
    assert (await first_answer(router, raw)).startswith(b"HTTP/1.1 200 ")
    (seen,) = router.endpoints[0].requests
    head, body = split(seen)
    assert head.startswith(b"POST /api/generate HTTP/1.1\r\n")
    assert head.count(b"Content-Length: 31") == 1
    assert body == BODY
    without = b"\r\n".join(
        line for line in head.split(b"\r\n") if not line.startswith(b"X-Forwarded-Host")
    )
    assert hidden not in without


async def test_a_model_name_cannot_inject_headers(make_router: MakeRouter) -> None:
    """Characters outside printable ASCII are percent-encoded in the response headers."""
    router = await make_router()
    body = json.dumps({"model": "ü\u00a0model: x", "stream": False}).encode()
    head, error = split(await router.exchange(post("/api/generate", body)))
    assert head.startswith(b"HTTP/1.1 404 ")
    assert head.isascii()
    assert b"X-Olla-Model: " not in head or b"%C3%BC" in head
    assert json.loads(error)["error"]


async def test_a_body_with_very_many_keys_is_rejected_early(make_router: MakeRouter) -> None:
    """A long body of keys is rejected before they are parsed one by one."""
    router = await make_router()
    keys = b",".join(b'"k%d":1' % number for number in range(60_000))
    body = b'{"model":"%b",%b}' % (MODEL.encode(), keys)
    head, error = split(await router.exchange(post("/api/generate", body)))
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"keys" in error
    assert router.endpoints[0].requests == []


@pytest.mark.parametrize("make_router", ["fast path"], indirect=True)
async def test_both_request_paths_treat_all_of_these_alike(make_router: MakeRouter) -> None:
    """They return the same status and forward the same number of requests."""
    fast, slow = await make_router(read_timeout=0.2), await make_router(read_timeout=0.2)
    slow.downstream.server.fast_path = None
    for router in (fast, slow):
        router.endpoints[0].script = answer(OK)
    for name, raw in {**AMBIGUOUS, **{name: raw for name, (raw, _) in NEUTRAL.items()}}.items():
        outcomes = []
        for router in (fast, slow):
            head = await first_answer(router, raw)
            outcomes.append((head.split()[1], len(router.endpoints[0].requests)))
        assert outcomes[0] == outcomes[1], name
