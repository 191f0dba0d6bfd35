"""Corner cases of HTTP/1.1 over raw sockets."""

import asyncio
import json

import pytest

from tests.waiting import unchanged
from tests.wire.conftest import MODEL, MakeRouter, answer, post, read_body, split

BODY = json.dumps({"model": MODEL, "stream": False, "prompt": "p"}).encode()
STREAM = json.dumps({"model": MODEL, "stream": True, "prompt": "p"}).encode()
OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"done":true}'
LAST = b'{"done":true}\n'
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"e\r\n" + LAST + b"\r\n0\r\n\r\n"
)


async def test_a_client_that_expects_100_continue_gets_it_before_its_body(
    make_router: MakeRouter,
) -> None:
    """The body is sent after the interim response, and arrives complete."""
    router = await make_router()
    router.endpoints[0].script = answer(OK)
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    head, _, body = post("/api/generate", BODY, "Expect: 100-continue").partition(b"\r\n\r\n")
    writer.write(head + b"\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()
    assert b"expect" not in router.endpoints[0].requests[0].lower()


async def test_a_body_over_the_limit_is_rejected_before_it_is_sent(
    make_router: MakeRouter,
) -> None:
    """The client gets a 413 in the dialect instead of 100 Continue."""
    router = await make_router()
    request = post("/api/chat", b"", "Expect: 100-continue")
    request = request.replace(b"Content-Length: 0", b"Content-Length: 1048577")
    head, body = split(await router.exchange(request))
    assert head.startswith(b"HTTP/1.1 413 ")
    assert "max_body_size" in json.loads(body)["error"]


async def test_a_chunked_body_over_the_limit_is_rejected(make_router: MakeRouter) -> None:
    """A body without a length is counted while it is read."""
    router = await make_router()
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for _ in range(17):
        writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    writer.close()


async def test_a_chunked_request_arrives_with_a_length(make_router: MakeRouter) -> None:
    """Clients may send chunks; endpoints get the body with its length."""
    router = await make_router()
    router.endpoints[0].script = answer(OK)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
    request = (
        b"POST /api/generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        b"Connection: close\r\n\r\n" + chunks
    )
    assert (await router.exchange(request)).startswith(b"HTTP/1.1 200 ")
    assert router.endpoints[0].requests[0].endswith(BODY)
    assert b"content-length: %d" % len(BODY) in router.endpoints[0].requests[0].lower()


async def test_an_http_1_0_client_gets_no_chunks(make_router: MakeRouter) -> None:
    """It gets the payload, and the connection's close marks the end."""
    router = await make_router()
    router.endpoints[0].script = answer(CHUNKED)
    head, body = split(
        await router.exchange(post("/api/generate", STREAM, version="1.0", close=False))
    )
    assert b"transfer-encoding" not in head.lower()
    assert body == LAST


async def test_an_http_1_0_client_may_keep_its_connection(make_router: MakeRouter) -> None:
    """With a length and `Connection: keep-alive`, the next request is answered too."""
    router = await make_router()
    router.endpoints[0].script = answer(OK)
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    for _ in range(2):
        writer.write(
            post("/api/generate", BODY, "Connection: keep-alive", version="1.0", close=False)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Connection: keep-alive" in head
        assert await read_body(head, reader) == b'{"done":true}'
    writer.close()


async def test_pipelined_requests_reach_the_endpoint_in_order(make_router: MakeRouter) -> None:
    """Three requests in one write get three responses in order, over one endpoint connection."""
    router = await make_router()

    async def echo(request: bytes, reader: object, writer: asyncio.StreamWriter) -> None:
        body = request.partition(b"\r\n\r\n")[2]
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        writer.write(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))

    router.endpoints[0].script = echo
    bodies = [
        json.dumps({"model": MODEL, "stream": False, "prompt": str(number)}).encode()
        for number in range(3)
    ]
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(b"".join(post("/api/generate", body, close=False) for body in bodies))
    for body in bodies:
        head = await reader.readuntil(b"\r\n\r\n")
        assert await read_body(head, reader) == body
    writer.close()
    assert router.endpoints[0].connections == 1


async def test_head_has_no_body_and_keeps_the_connection(make_router: MakeRouter) -> None:
    """A HEAD response with a length has no body, in both directions."""
    router = await make_router()
    router.endpoints[0].script = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    request = b"HEAD /olla/ollama/health HTTP/1.1\r\nHost: x\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    for _ in range(2):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Content-Length: 5" in head
    writer.close()
    assert router.endpoints[0].connections == 1


@pytest.mark.parametrize("status", [204, 304])
async def test_responses_without_a_body_end_after_their_head(
    make_router: MakeRouter, status: int
) -> None:
    """204 and 304 keep the connection, even with fields that announce a body."""
    router = await make_router()
    router.endpoints[0].script = answer(b"HTTP/1.1 %d X\r\nETag: a\r\n\r\n" % status)
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    for _ in range(2):
        writer.write(b"GET /olla/ollama/health HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"ETag: a" in head
    writer.close()
    assert router.endpoints[0].connections == 1


async def test_a_response_without_framing_ends_when_the_connection_closes(
    make_router: MakeRouter,
) -> None:
    """With neither length nor chunks, the client gets all bytes and a closed connection."""
    router = await make_router()
    router.endpoints[0].script = answer(b"HTTP/1.1 200 OK\r\n\r\nall", b" of it", close=True)
    head, body = split(await router.exchange(post("/api/show", BODY, close=False)))
    assert b"Connection: close" in head
    assert body == b"all of it"


async def test_interim_responses_are_not_forwarded(make_router: MakeRouter) -> None:
    """An endpoint's 100 and 103 are dropped."""
    router = await make_router()
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    router.endpoints[0].script = answer(b"HTTP/1.1 100 Continue\r\n\r\n" + early, OK)
    head, _ = split(await router.exchange(post("/api/generate", BODY)))
    assert head.startswith(b"HTTP/1.1 200 ")


async def test_trailers_are_forwarded_with_the_response_time(make_router: MakeRouter) -> None:
    """A client that sent `TE: trailers` gets the endpoint's trailers and the total time."""
    router = await make_router()
    router.endpoints[0].script = answer(CHUNKED[:-2] + b"X-Sum: 1\r\n\r\n")
    head, body = split(await router.exchange(post("/api/generate", STREAM, "TE: trailers")))
    assert b"Trailer: X-Olla-Response-Time" in head
    assert b"\r\n0\r\nX-Sum: 1\r\nX-Olla-Response-Time: 0." in body
    assert body.endswith(b"s\r\n\r\n")


async def test_the_headers_sent_to_the_endpoint(make_router: MakeRouter) -> None:
    """It gets its own Host, the forwarding fields and the request ID, without hop-by-hop fields or
    credentials."""
    router = await make_router()
    router.endpoints[0].script = answer(OK)
    extra = (
        "X-Olla-Request-ID: my-id",
        "X-Forwarded-For: 10.0.0.9",
        "Authorization: Bearer secret",
        "X-API-Key: secret",
        "Cookie: secret",
        "Keep-Alive: timeout=5",
        "X-Custom: kept",
        "User-Agent: tester",
    )
    head, _ = split(await router.exchange(post("/api/generate?ts=1", BODY, *extra)))
    sent, _ = split(router.endpoints[0].requests[0])
    assert sent.startswith(b"POST /api/generate?ts=1 HTTP/1.1\r\n")
    assert b"\r\nHost: 127.0.0.1:%d\r\n" % router.endpoints[0].port in sent
    assert b"\r\nX-Forwarded-For: 10.0.0.9, 127.0.0.1" in sent
    assert b"\r\nX-Forwarded-Host: olla" in sent
    assert b"\r\nX-Forwarded-Proto: http" in sent
    assert b"\r\nX-Olla-Request-ID: my-id" in sent
    assert b"\r\nX-Custom: kept" in sent
    assert b"\r\nUser-Agent: tester" in sent
    assert b"secret" not in sent
    assert b"eep-alive" not in sent.lower().replace(b"keep-alive", b"eep-alive")
    assert b"X-Olla-Request-ID: my-id" in head


async def test_a_response_has_ollas_headers(make_router: MakeRouter) -> None:
    """The X-Olla headers are olla's; an endpoint's field with such a name is dropped."""
    router = await make_router()
    router.endpoints[0].script = answer(OK.replace(b"\r\n\r\n", b"\r\nX-Olla-Endpoint: no\r\n\r\n"))
    head, _ = split(await router.exchange(post("/api/generate", BODY)))
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert fields[b"X-Olla-Endpoint"] == b"e0"
    assert fields[b"X-Olla-Model"] == MODEL.encode()
    assert fields[b"X-Olla-Backend-Type"] == b"ollama"
    assert fields[b"X-Olla-Routing-Strategy"] == b"strict"
    assert fields[b"X-Olla-Routing-Decision"] == b"routed"
    assert fields[b"X-Olla-Routing-Reason"] == b"model_loaded"
    assert fields[b"X-Olla-Response-Time"].endswith(b"s")
    assert head.count(b"X-Olla-Endpoint") == 1


async def test_a_slow_reader_makes_the_endpoint_wait(make_router: MakeRouter) -> None:
    """A 64 MB response to a client that does not read is not buffered in memory."""
    router = await make_router()
    size = 64 * 1024 * 1024
    piece = b"x" * 65536
    written = 0

    async def flood(_: bytes, __: object, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _number in range(size // len(piece)):
            writer.write(piece)
            await writer.drain()
            written += len(piece)

    router.endpoints[0].script = flood
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port, limit=65536)
    writer.write(post("/api/show", BODY))
    await reader.readuntil(b"\r\n\r\n")
    assert await unchanged(lambda: written) < size / 2
    received = 0
    while data := await reader.read(1 << 20):
        received += len(data)
    assert received == size
    writer.close()


async def test_a_blob_is_streamed_to_the_endpoint(make_router: MakeRouter) -> None:
    """64 MB in chunks are forwarded as chunks, and the endpoint reads them before the upload
    ends."""
    router = await make_router()
    digest = "sha256:" + "0" * 64
    started = asyncio.Event()
    received = 0

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"\r\nTransfer-Encoding: chunked\r\n" in head
        started.set()
        while (size := int(await reader.readuntil(b"\r\n"), 16)) > 0:
            received += len(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readexactly(2)
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    endpoint = router.endpoints[0]
    await endpoint.stop()
    server = await asyncio.start_server(take, "127.0.0.1", endpoint.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(
        f"POST /api/blobs/{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        "Transfer-Encoding: chunked\r\n\r\n".encode()
    )
    piece = b"10000\r\n" + b"b" * 65536 + b"\r\n"
    writer.write(piece)
    await started.wait()
    for _ in range(1023):
        writer.write(piece)
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 201 ")
    assert received == 64 * 1024 * 1024
    writer.close()
    server.close()
    await server.wait_closed()


async def test_a_blob_with_invalid_chunks_is_400(
    make_router: MakeRouter,
) -> None:
    """The endpoint's connection is closed before it can take the start for the whole blob."""
    router = await make_router()
    endpoint = router.endpoints[0]
    response = await router.exchange(
        f"POST /api/blobs/sha256:{'0' * 64} HTTP/1.1\r\nHost: x\r\n"
        "Transfer-Encoding: chunked\r\n\r\n4\r\nblob\r\nzz\r\n".encode()
    )
    assert response.startswith(b"HTTP/1.1 400 ")
    assert endpoint.requests == []


@pytest.mark.parametrize(
    "start",
    [
        "GET /olla/nothing/%b",
        "GET /olla/ollama/api/new/%b",
        "PUT /olla/ollama/api/blobs/sha256:%b",
        "POST /api/chat/%b",
        "POST /api/%b?x",
    ],
)
async def test_a_record_is_short_whatever_the_length_of_the_path(
    make_router: MakeRouter, start: str
) -> None:
    """Up to ten thousand records wait for the log and the store, so a client must not choose their
    size."""
    router = await make_router()
    path = start.encode() % (b"y" * 60_000)
    await router.exchange(b"%b HTTP/1.1\r\nHost: olla\r\nConnection: close\r\n\r\n" % path)
    record = router.records[-1]
    assert len(record.path) <= 1024
    assert record.failure is None or len(record.failure.message) <= 1024
