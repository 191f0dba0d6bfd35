"""Before the first byte another endpoint answers; after it the client is told."""

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
    """One chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def status(code: int, phrase: str = "X") -> Script:
    """A whole answer with that status."""
    body = b'{"error":"no"}'
    head = f"HTTP/1.1 {code} {phrase}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return answer(head + body)


async def reset(_: bytes, __: object, writer: object) -> None:
    """A script that drops the connection."""
    writer.transport.abort()  # type: ignore[attr-defined]


def answer_and_reset(data: bytes) -> Script:
    """A script that resets the connection after these bytes."""

    async def script(request: bytes, reader: object, writer: object) -> None:
        await answer(data)(request, reader, writer)  # type: ignore[arg-type]
        await reset(request, reader, writer)

    return script


async def hang(_: bytes, reader: object, __: object) -> None:
    """A script that never answers, until the client has gone."""
    await reader.read()  # type: ignore[attr-defined]


HALF = b'{"response":"Hel'
BEFORE = {
    "closed before a byte": answer(b"", close=True),
    "reset before a byte": reset,
    "half a head": answer(b"HTTP/1.1 200 OK\r\nContent-", close=True),
    "no HTTP": answer(b"\x16\x03\x01 hello\r\n\r\n", close=True),
    "two lengths": answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}"),
    "502": status(502),
    "503 server busy": status(503),
    "504": status(504),
    "500": status(500),
    "no size of a chunk": answer(NDJSON_HEAD + b"zz\r\n", close=True),
    "a chunk of another size": answer(NDJSON_HEAD + b"3\r\n" + RECORD + b"\r\n"),
    "good chunks and a bad one": answer(NDJSON_HEAD + chunk(RECORD) + b"zz\r\n"),
    "part of a chunk's size": answer(NDJSON_HEAD + b"4", close=True),
    "part of a chunk's size, reset": answer_and_reset(NDJSON_HEAD + b"4"),
    "a size of endless digits": answer(NDJSON_HEAD + b"0" * 5000),
    "a stream of nothing": answer(NDJSON_HEAD + b"0\r\n\r\n"),
    "a stream without its end": answer(NDJSON_HEAD + chunk(RECORD) + b"0\r\n\r\n"),
    "half a text": answer(JSON_HEAD % (b"Content-Length: %d" % len(HALF)) + HALF),
    "half a text in chunks": answer(
        JSON_HEAD % b"Transfer-Encoding: chunked" + chunk(HALF) + b"0\r\n\r\n"
    ),
}


@pytest.mark.parametrize("trouble", BEFORE.values(), ids=list(BEFORE))
async def test_trouble_before_the_first_byte_goes_to_the_next_endpoint(
    make_router: MakeRouter, trouble: Script
) -> None:
    """The client sees one good answer, and how many endpoints were tried: also where the head was
    good, and what came with it was not."""
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


async def test_a_refused_connection_goes_to_the_next_endpoint(make_router: MakeRouter) -> None:
    """An endpoint that does not listen costs nothing but a try."""
    router = await make_router(2)
    await router.endpoints[0].stop()
    router.endpoints[1].script = answer(OK)
    head, _ = split(await router.exchange(post("/api/generate", BODY)))
    assert b"X-Olla-Endpoint: e1" in head
    failure = router.fleet.observed[0][1]
    assert failure is not None
    assert failure.kind is Kind.CONNECT_REFUSED


async def test_an_endpoint_that_says_nothing_is_given_up_in_time(make_router: MakeRouter) -> None:
    """The first-byte time-out goes to the next endpoint, and the silent one is hung up on."""
    router = await make_router(2, timeouts=Timeouts(first_byte=0.1))
    router.endpoints[0].script = hang
    router.endpoints[1].script = answer(OK)
    head, _ = split(await router.exchange(post("/api/generate", BODY)))
    assert b"X-Olla-Endpoint: e1" in head
    await router.endpoints[0].lost.wait()


@pytest.mark.parametrize(
    "drip", [b"HTTP/1.1 102 Processing\r\n\r\n", b"X"], ids=["1xx for ever", "byte by byte"]
)
async def test_an_endpoint_that_never_comes_to_its_answer_is_given_up_in_time(
    make_router: MakeRouter, drip: bytes
) -> None:
    """What it sends before its head is whole does not prolong the first-byte time-out."""
    router = await make_router(2, timeouts=Timeouts(first_byte=0.3))

    async def script(_: bytes, __: object, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 "[: 34 if drip == b"X" else 25])
        while not router.endpoints[0].lost.is_set() and not writer.is_closing():
            writer.write(drip)
            await writer.drain()
            await asyncio.sleep(0.01)

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
async def test_when_no_endpoint_is_left_the_error_speaks_the_paths_dialect(
    make_router: MakeRouter, trouble: Script, expected: int
) -> None:
    """502 or 504 with a message that names the endpoint, as Ollama and as OpenAI write errors."""
    router = await make_router(1, timeouts=Timeouts(first_byte=0.1))
    router.endpoints[0].script = trouble
    head, body = split(await router.exchange(post("/api/generate", BODY)))
    assert head.startswith(b"HTTP/1.1 %d " % expected)
    assert "e0" in json.loads(body)["error"]
    head, body = split(await router.exchange(post("/v1/completions", BODY)))
    assert head.startswith(b"HTTP/1.1 %d " % expected)
    assert "e0" in json.loads(body)["error"]["message"]
    assert len(router.endpoints[0].requests) == 2


async def test_an_endpoints_own_503_is_relayed_when_no_other_can_serve(
    make_router: MakeRouter,
) -> None:
    """The client gets what the endpoint said rather than a text of the router's."""
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
async def test_what_is_the_matter_with_one_endpoint_only_goes_to_the_next(
    make_router: MakeRouter, code: int, kind: Kind
) -> None:
    """Olla's key refused, a limit, a model that has gone: none of it is the client's doing."""
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


async def test_a_key_of_the_clients_own_is_refused_once(make_router: MakeRouter) -> None:
    """Where an endpoint is to have the client's key, its 401 is the answer."""
    router = await make_router(2, forward_authorization=True)
    router.endpoints[0].script = status(401)
    head, _ = split(await router.exchange(post("/api/generate", BODY, "Authorization: Bearer x")))
    assert head.startswith(b"HTTP/1.1 401 ")
    assert router.endpoints[1].requests == []


async def test_other_errors_are_the_endpoints_answer(make_router: MakeRouter) -> None:
    """400, 413, 422 and 501 are relayed from the first endpoint: another would say the same."""
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
    "broken framing after a head that came alone": (NDJSON_HEAD, chunk(RECORD) + b"zz\r\n"),
}


@pytest.mark.parametrize("pieces", CUT.values(), ids=list(CUT))
async def test_a_stream_that_breaks_off_ends_with_an_error_and_no_end(
    make_router: MakeRouter, pieces: tuple[bytes, ...]
) -> None:
    """What came is passed on, then an error record, then a closed connection without an end."""
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
    """The payload of chunks, as far as they go, as a client reads it."""
    payload = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        payload += rest[:length]
        body = rest[length + 2 :]
    return payload


@pytest.mark.parametrize(
    "trouble",
    [name for name in BEFORE if name not in ("502", "503 server busy", "504", "500")],
)
async def test_trouble_before_the_first_byte_is_a_502_when_no_endpoint_is_left(
    make_router: MakeRouter, trouble: str
) -> None:
    """A whole error in the path's dialect, never a 200 that breaks; the endpoint is charged."""
    router = await make_router(1)
    router.endpoints[0].script = BEFORE[trouble]
    head, body = split(await router.exchange(post("/api/generate", STREAM)))
    assert head.startswith(b"HTTP/1.1 502 ")
    assert "e0" in json.loads(body)["error"]
    failure = router.fleet.observed[0][1]
    assert failure is not None
    assert failure.facts.against_endpoint
    assert failure.facts.phase is Phase.HEAD


async def test_an_error_of_the_endpoints_own_that_breaks_is_a_502(make_router: MakeRouter) -> None:
    """A 503 is relayed when no other can serve: only if all of it that came is good."""
    router = await make_router(2)
    for endpoint in router.endpoints:
        endpoint.script = answer(
            b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", close=True
        )
    head, body = split(await router.exchange(post("/api/generate", BODY)))
    assert head.startswith(b"HTTP/1.1 502 ")
    assert "sent an invalid body" in json.loads(body)["error"]
    assert [len(endpoint.requests) for endpoint in router.endpoints] == [1, 1]


async def test_a_head_that_comes_alone_is_passed_on_at_once(make_router: MakeRouter) -> None:
    """Before there is any body: a client may wait for it with a limit of its own. From then on
    nothing is tried again."""
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


async def test_what_changes_a_node_is_not_sent_twice_for_a_broken_answer(
    make_router: MakeRouter,
) -> None:
    """A pull whose answer broke before its first byte may be under way."""
    router = await make_router(2)
    for endpoint in router.endpoints:
        endpoint.script = BEFORE["no size of a chunk"]
    head, _ = split(await router.exchange(post("/api/pull", STREAM)))
    assert head.startswith(b"HTTP/1.1 502 ")
    assert sorted(len(endpoint.requests) for endpoint in router.endpoints) == [0, 1]


async def test_a_broken_first_read_costs_from_the_retry_budget(make_router: MakeRouter) -> None:
    """It has cost an endpoint work, as any answer that breaks."""
    router = await make_router(2)
    router.endpoints[0].script = BEFORE["a stream without its end"]
    router.endpoints[1].script = answer(OK)
    router.dispatcher.retries.share = 0.0
    while (router.dispatcher.retries.refused) == 0:
        head, body = split(await router.exchange(post("/api/generate", BODY)))
    assert head.startswith(b"HTTP/1.1 502 ")
    assert json.loads(body)["error"]


async def test_silence_in_mid_stream_ends_it_with_an_error(make_router: MakeRouter) -> None:
    """The read time-out is told in-band, by name, and the endpoint is hung up on."""
    router = await make_router(1, timeouts=Timeouts(silence=0.1))

    async def script(request: bytes, reader: object, writer: object) -> None:
        await answer(NDJSON_HEAD + chunk(RECORD))(request, reader, writer)  # type: ignore[arg-type]
        await hang(request, reader, writer)

    router.endpoints[0].script = script
    _, body = split(await router.exchange(post("/api/generate", STREAM)))
    assert b"proxy.read_timeout" in payload_of(body)
    await router.endpoints[0].lost.wait()


async def test_a_length_that_is_not_reached_closes_the_connection(
    make_router: MakeRouter,
) -> None:
    """Nothing can be said within a promised length; the client sees it is too short."""
    router = await make_router(1)
    router.endpoints[0].script = answer(OK[:-3], close=True)
    head, body = split(await router.exchange(post("/api/generate", BODY)))
    assert b"Content-Length: 13" in head
    assert body == b'{"done":tr'


@pytest.mark.parametrize("after", ["the first answer", "a hundred answers"])
async def test_a_connection_that_was_closed_meanwhile_is_replaced(
    make_router: MakeRouter, after: str
) -> None:
    """An endpoint that closes idle connections costs the client nothing, and no retry shows."""
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
async def test_an_answer_that_had_begun_is_no_reason_to_send_again_to_the_same_endpoint(
    make_router: MakeRouter, part: bytes
) -> None:
    """On a connection that was idle before, too: the endpoint has worked on the request, so
    another try costs as much as any other, and there is nobody else to ask."""
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


async def test_what_changes_a_node_is_not_sent_twice(make_router: MakeRouter) -> None:
    """A delete that may have been seen is not tried elsewhere; one that was never sent is."""
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
