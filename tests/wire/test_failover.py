"""A request fails over until the first byte of its response; later failures reach the client."""

import asyncio
import json

import pytest

from olla.failures import Kind, Phase
from olla.proxy.exchange.attempt import Timeouts
from tests.wire.conftest import MODEL, MakeRouter, Script, answer, post, split

BODY = json.dumps({"model": MODEL, "stream": False, "prompt": "p"}).encode()
STREAM = json.dumps({"model": MODEL, "stream": True, "prompt": "p"}).encode()
OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"done":true}'
NDJSON_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
)
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%b\r\n\r\n"
RECORD = b'{"response":"Hel","done":false}\n'


def chunk(data: bytes) -> bytes:
    """Build one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def status(code: int, phrase: str = "X") -> Script:
    """Return a script that sends a complete response with this status."""
    body = b'{"error":"no"}'
    head = f"HTTP/1.1 {code} {phrase}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return answer(head + body)


async def reset(_: bytes, __: object, writer: object) -> None:
    """Reset the connection."""
    writer.transport.abort()  # type: ignore[attr-defined]


def answer_and_reset(data: bytes) -> Script:
    """Return a script that sends these bytes and resets the connection."""

    async def script(request: bytes, reader: object, writer: object) -> None:
        await answer(data)(request, reader, writer)  # type: ignore[arg-type]
        await reset(request, reader, writer)

    return script


async def hang(_: bytes, reader: object, __: object) -> None:
    """Never answer; return once the router hangs up."""
    await reader.read()  # type: ignore[attr-defined]


HALF = b'{"response":"Hel'
EARLY_FAILURES = {
    "closed before a byte": answer(b"", close=True),
    "reset before a byte": reset,
    "half a head": answer(b"HTTP/1.1 200 OK\r\nContent-", close=True),
    "not HTTP": answer(b"\x16\x03\x01 hello\r\n\r\n", close=True),
    "two lengths": answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}"),
    "502": status(502),
    "503 server busy": status(503),
    "504": status(504),
    "500": status(500),
    "an invalid chunk size": answer(NDJSON_HEAD + b"zz\r\n", close=True),
    "a wrong chunk size": answer(NDJSON_HEAD + b"3\r\n" + RECORD + b"\r\n"),
    "an invalid chunk after a good one": answer(NDJSON_HEAD + chunk(RECORD) + b"zz\r\n"),
    "part of a chunk size": answer(NDJSON_HEAD + b"4", close=True),
    "part of a chunk size, reset": answer_and_reset(NDJSON_HEAD + b"4"),
    "an endless chunk size": answer(NDJSON_HEAD + b"0" * 5000),
    "an empty stream": answer(NDJSON_HEAD + b"0\r\n\r\n"),
    "a stream without its last record": answer(NDJSON_HEAD + chunk(RECORD) + b"0\r\n\r\n"),
    "half a JSON text": answer(JSON_HEAD % (b"Content-Length: %d" % len(HALF)) + HALF),
    "half a JSON text in chunks": answer(
        JSON_HEAD % b"Transfer-Encoding: chunked" + chunk(HALF) + b"0\r\n\r\n"
    ),
}


@pytest.mark.parametrize("trouble", EARLY_FAILURES.values(), ids=list(EARLY_FAILURES))
async def test_a_failure_before_the_first_byte_fails_over(
    make_router: MakeRouter, trouble: Script
) -> None:
    """The client gets one good response, with the number of attempts. This includes a good head
    with a broken start of the body in the same read."""
    router = await make_router(2)
    router.endpoints[0].script = trouble
    router.endpoints[1].script = answer(OK)
    head, body = split(await router.exchange(post("/api/generate", BODY)))
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"X-Olla-Attempts: 2" in head
    assert b"X-Olla-Endpoint: e1" in head
    assert body == b'{"done":true}'
    assert len(router.endpoints[0].requests) == 1
    assert router.endpoints[0].requests[0].endswith(BODY)
    assert router.endpoints[1].requests[0].endswith(BODY)
    (first, failure), (second, well) = router.fleet.observed
    assert (first, second, well) == ("e0", "e1", None)
    assert failure is not None
    assert failure.facts.against_endpoint


async def test_a_refused_connection_fails_over(make_router: MakeRouter) -> None:
    """An endpoint that does not listen costs one attempt."""
    router = await make_router(2)
    await router.endpoints[0].stop()
    router.endpoints[1].script = answer(OK)
    head, _ = split(await router.exchange(post("/api/generate", BODY)))
    assert b"X-Olla-Endpoint: e1" in head
    failure = router.fleet.observed[0][1]
    assert failure is not None
    assert failure.kind is Kind.CONNECT_REFUSED


async def test_the_first_byte_timeout_fails_over(make_router: MakeRouter) -> None:
    """The connection to the silent endpoint is closed."""
    router = await make_router(2, timeouts=Timeouts(first_byte=0.1))
    router.endpoints[0].script = hang
    router.endpoints[1].script = answer(OK)
    head, _ = split(await router.exchange(post("/api/generate", BODY)))
    assert b"X-Olla-Endpoint: e1" in head
    await router.endpoints[0].lost.wait()


@pytest.mark.parametrize(
    "drip", [b"HTTP/1.1 102 Processing\r\n\r\n", b"X"], ids=["endless 1xx", "byte by byte"]
)
async def test_partial_heads_do_not_extend_the_first_byte_timeout(
    make_router: MakeRouter, drip: bytes
) -> None:
    """Interim responses and single bytes of a head do not count as the first byte."""
    router = await make_router(2, timeouts=Timeouts(first_byte=0.3))

    async def script(_: bytes, __: object, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 "[: 34 if drip == b"X" else 25])
        while not router.endpoints[0].lost.is_set() and not writer.is_closing():
            writer.write(drip)
            await writer.drain()
            await asyncio.sleep(0.01)  # well below the timeout

    router.endpoints[0].script = script  # type: ignore[assignment]
    router.endpoints[1].script = answer(OK)
    head, _ = split(await router.exchange(post("/api/generate", BODY)))
    assert b"X-Olla-Endpoint: e1" in head
    failure = router.fleet.observed[0][1]
    assert failure is not None
    assert failure.kind is Kind.FIRST_BYTE_TIMEOUT


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [(reset, 502), (hang, 504), (answer(b"rubbish\r\n\r\n", close=True), 502)],
    ids=["reset", "silent", "rubbish"],
)
async def test_without_another_endpoint_the_error_has_the_paths_dialect(
    make_router: MakeRouter, trouble: Script, expected: int
) -> None:
    """It is a 502 or 504 whose message names the endpoint, in Ollama's and OpenAI's format."""
    router = await make_router(1, timeouts=Timeouts(first_byte=0.1))
    router.endpoints[0].script = trouble
    head, body = split(await router.exchange(post("/api/generate", BODY)))
    assert head.startswith(b"HTTP/1.1 %d " % expected)
    assert "e0" in json.loads(body)["error"]
    head, body = split(await router.exchange(post("/v1/completions", BODY)))
    assert head.startswith(b"HTTP/1.1 %d " % expected)
    assert "e0" in json.loads(body)["error"]["message"]
    assert len(router.endpoints[0].requests) == 2


async def test_the_last_endpoints_503_is_relayed(
    make_router: MakeRouter,
) -> None:
    """The client gets the endpoint's error rather than one of the router."""
    router = await make_router(2)
    for endpoint in router.endpoints:
        endpoint.script = status(503, "Service Unavailable")
    head, body = split(await router.exchange(post("/api/generate", BODY)))
    assert head.startswith(b"HTTP/1.1 503 ")
    assert body == b'{"error":"no"}'
    assert b"X-Olla-Attempts: 2" in head


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (401, Kind.UPSTREAM_UNAUTHORIZED),
        (403, Kind.UPSTREAM_UNAUTHORIZED),
        (404, Kind.UPSTREAM_MODEL_GONE),
        (429, Kind.UPSTREAM_LIMITED),
    ],
)
async def test_an_endpoint_specific_error_fails_over(
    make_router: MakeRouter, code: int, kind: Kind
) -> None:
    """A rejected key of olla's, a rate limit and a missing model are not the client's fault."""
    router = await make_router(2)
    router.endpoints[0].script = status(code)
    router.endpoints[1].script = answer(OK)
    head, _ = split(await router.exchange(post("/api/generate", BODY)))
    assert head.startswith(b"HTTP/1.1 200 ")
    failure = router.fleet.observed[0][1]
    assert failure is not None
    assert failure.kind is kind
    assert not failure.facts.against_endpoint
    assert router.fleet.probed == (["e0"] if code == 404 else [])


async def test_a_rejected_client_key_does_not_fail_over(make_router: MakeRouter) -> None:
    """If the endpoint receives the client's key, its 401 is the response."""
    router = await make_router(2, forward_authorization=True)
    router.endpoints[0].script = status(401)
    head, _ = split(await router.exchange(post("/api/generate", BODY, "Authorization: Bearer x")))
    assert head.startswith(b"HTTP/1.1 401 ")
    assert router.endpoints[1].requests == []


async def test_other_client_errors_are_relayed(make_router: MakeRouter) -> None:
    """400, 413, 422 and 501 come from the first endpoint: any other would answer the same."""
    router = await make_router(2)
    for code in (400, 413, 422, 501):
        router.endpoints[0].script = status(code)
        head, body = split(await router.exchange(post("/api/generate", BODY)))
        assert head.startswith(b"HTTP/1.1 %d " % code)
        assert body == b'{"error":"no"}'
    assert router.endpoints[1].requests == []


CUT = {
    "between chunks": (NDJSON_HEAD + chunk(RECORD),),
    "within a chunk": (NDJSON_HEAD + chunk(RECORD) + b"40\r\n" + RECORD[:10],),
    "within a chunk's size": (NDJSON_HEAD + chunk(RECORD) + b"4",),
    "before a chunk's line end": (NDJSON_HEAD + chunk(RECORD)[:-2],),
    "broken framing": (NDJSON_HEAD + chunk(RECORD), b"zz\r\n"),
    "clean end without the last record": (NDJSON_HEAD + chunk(RECORD), b"0\r\n\r\n"),
    "broken framing after a separate head": (NDJSON_HEAD, chunk(RECORD) + b"zz\r\n"),
}


@pytest.mark.parametrize("pieces", CUT.values(), ids=list(CUT))
async def test_a_broken_stream_ends_with_an_error_and_no_clean_end(
    make_router: MakeRouter, pieces: tuple[bytes, ...]
) -> None:
    """The client gets the records so far, then an error record, then a closed connection."""
    router = await make_router(2)
    router.endpoints[0].script = answer(*pieces, close=True)
    head, body = split(await router.exchange(post("/api/generate", STREAM)))
    assert head.startswith(b"HTTP/1.1 200 ")
    assert not body.endswith(b"0\r\n\r\n")
    lines = [line for line in payload_of(body).split(b"\n") if line]
    assert lines[0] + b"\n" == RECORD
    assert "error" in json.loads(lines[-1])
    assert router.endpoints[1].requests == []
    assert router.records[-1].failure is not None


def payload_of(body: bytes) -> bytes:
    """Decode a chunked body as far as it goes, as a client would."""
    payload = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        payload += rest[:length]
        body = rest[length + 2 :]
    return payload


@pytest.mark.parametrize(
    "trouble",
    [name for name in EARLY_FAILURES if name not in ("502", "503 server busy", "504", "500")],
)
async def test_a_failure_before_the_first_byte_is_a_502_without_another_endpoint(
    make_router: MakeRouter, trouble: str
) -> None:
    """It is a complete error in the path's dialect, never a broken 200, and it counts against the
    endpoint."""
    router = await make_router(1)
    router.endpoints[0].script = EARLY_FAILURES[trouble]
    head, body = split(await router.exchange(post("/api/generate", STREAM)))
    assert head.startswith(b"HTTP/1.1 502 ")
    assert "e0" in json.loads(body)["error"]
    failure = router.fleet.observed[0][1]
    assert failure is not None
    assert failure.facts.against_endpoint
    assert failure.facts.phase is Phase.HEAD


async def test_a_broken_error_response_is_a_502(make_router: MakeRouter) -> None:
    """The last endpoint's 503 is relayed only if it is well-formed."""
    router = await make_router(2)
    for endpoint in router.endpoints:
        endpoint.script = answer(
            b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", close=True
        )
    head, body = split(await router.exchange(post("/api/generate", BODY)))
    assert head.startswith(b"HTTP/1.1 502 ")
    assert "sent an invalid body" in json.loads(body)["error"]
    assert [len(endpoint.requests) for endpoint in router.endpoints] == [1, 1]


async def test_a_head_without_a_body_is_forwarded_at_once(make_router: MakeRouter) -> None:
    """A client may have a timeout for the head. From then on the request is not retried."""
    router = await make_router(2)
    seen = asyncio.Event()

    async def script(request: bytes, reader: object, writer: asyncio.StreamWriter) -> None:
        writer.write(NDJSON_HEAD)
        await seen.wait()
        writer.transport.abort()

    router.endpoints[0].script = script  # type: ignore[assignment]
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(post("/api/generate", STREAM))
    head = await reader.readuntil(b"\r\n\r\n")
    seen.set()
    body = await reader.read()
    writer.close()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"X-Olla-Endpoint: e0" in head
    assert "error" in json.loads(payload_of(body))
    assert router.endpoints[1].requests == []


async def test_a_node_change_is_not_retried_after_a_broken_response(
    make_router: MakeRouter,
) -> None:
    """A pull whose response broke before its first byte may be running."""
    router = await make_router(2)
    for endpoint in router.endpoints:
        endpoint.script = EARLY_FAILURES["an invalid chunk size"]
    head, _ = split(await router.exchange(post("/api/pull", STREAM)))
    assert head.startswith(b"HTTP/1.1 502 ")
    assert sorted(len(endpoint.requests) for endpoint in router.endpoints) == [0, 1]


async def test_a_broken_start_of_a_body_counts_toward_the_retry_budget(
    make_router: MakeRouter,
) -> None:
    """The endpoint has spent work on it, as for any broken response."""
    router = await make_router(2)
    router.endpoints[0].script = EARLY_FAILURES["a stream without its last record"]
    router.endpoints[1].script = answer(OK)
    router.dispatcher.retries.share = 0.0
    while router.dispatcher.retries.refused == 0:
        head, body = split(await router.exchange(post("/api/generate", BODY)))
    assert head.startswith(b"HTTP/1.1 502 ")
    assert json.loads(body)["error"]


async def test_silence_within_a_stream_ends_it_with_an_error(make_router: MakeRouter) -> None:
    """The in-band error names the read timeout, and the connection to the endpoint is closed."""
    router = await make_router(1, timeouts=Timeouts(silence=0.1))

    async def script(request: bytes, reader: object, writer: object) -> None:
        await answer(NDJSON_HEAD + chunk(RECORD))(request, reader, writer)  # type: ignore[arg-type]
        await hang(request, reader, writer)

    router.endpoints[0].script = script
    _, body = split(await router.exchange(post("/api/generate", STREAM)))
    assert b"proxy.read_timeout" in payload_of(body)
    await router.endpoints[0].lost.wait()


async def test_a_body_shorter_than_its_length_closes_the_connection(
    make_router: MakeRouter,
) -> None:
    """An error cannot be added within the announced length; the client sees that the body is
    short."""
    router = await make_router(1)
    router.endpoints[0].script = answer(OK[:-3], close=True)
    head, body = split(await router.exchange(post("/api/generate", BODY)))
    assert b"Content-Length: 13" in head
    assert body == b'{"done":tr'


@pytest.mark.parametrize("after", ["the first answer", "a hundred answers"])
async def test_a_closed_pooled_connection_is_replaced(make_router: MakeRouter, after: str) -> None:
    """An endpoint that closes idle connections costs the client nothing, and no retry is
    reported."""
    router = await make_router(1)
    endpoint = router.endpoints[0]

    async def close_when_asked_again(request: bytes, reader: object, writer: object) -> None:
        if len(endpoint.requests) == 2:
            writer.transport.abort()  # type: ignore[attr-defined]
        else:
            await answer(OK)(request, reader, writer)  # type: ignore[arg-type]

    endpoint.script = close_when_asked_again
    for _ in range(2):
        head, _ = split(await router.exchange(post("/api/generate", BODY)))
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"X-Olla-Attempts" not in head
    assert endpoint.connections == 2
    assert all(failure is None for _, failure in router.fleet.observed)


@pytest.mark.parametrize("part", [b"H", b"HTTP/1.1 200 OK\r\nContent-Le"], ids=["a byte", "half"])
async def test_a_response_that_has_begun_is_not_retried_on_a_new_connection(
    make_router: MakeRouter, part: bytes
) -> None:
    """This holds on a connection that was idle before: the endpoint has worked on the request, so
    the new attempt would cost as much as any other, and there is no other endpoint."""
    router = await make_router(1)
    endpoint = router.endpoints[0]

    async def begin_and_close(request: bytes, reader: object, writer: object) -> None:
        second = len(endpoint.requests) == 2
        script = answer(part, close=True) if second else answer(OK)
        await script(request, reader, writer)  # type: ignore[arg-type]

    endpoint.script = begin_and_close
    for status in (b"200", b"502"):
        head, _ = split(await router.exchange(post("/api/generate", BODY)))
        assert head.startswith(b"HTTP/1.1 %b " % status)
    assert (len(endpoint.requests), endpoint.connections) == (2, 1)
    assert [failure.kind for _, failure in router.fleet.observed if failure] == [Kind.RESET]


async def test_a_node_change_is_not_sent_twice(make_router: MakeRouter) -> None:
    """A delete that the endpoint may have received is not retried; one that was never sent is."""
    router = await make_router(2)
    delete = post("/api/delete", BODY).replace(b"POST", b"DELETE", 1)
    router.endpoints[0].script = reset
    head, _ = split(await router.exchange(delete))
    assert head.startswith(b"HTTP/1.1 502 ")
    assert router.endpoints[1].requests == []
    await router.endpoints[0].stop()
    router.endpoints[1].script = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    head, _ = split(await router.exchange(delete))
    assert head.startswith(b"HTTP/1.1 200 ")
    assert router.fleet.probed == ["e0", "e0", "e1"]
