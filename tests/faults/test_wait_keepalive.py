"""SSE comments keep a connection alive while a request waits for its first event."""

import asyncio
import json

import pytest

from olla.failures import Kind
from tests.wire.conftest import MODEL, MakeRouter, Script, answer, post, split

BODY = json.dumps({"model": MODEL, "stream": True, "messages": []}).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
EVENTS = (
    b'data: {"choices":[{"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
FRAMINGS = {
    "chunks": HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(EVENTS), EVENTS),
    "length": HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(EVENTS), EVENTS),
    "until it closes": HEAD + b"\r\n" + EVENTS,
}


def late(data: bytes, seconds: float = 0.35, *, close: bool = False) -> Script:
    """Return a script that answers after a delay in seconds."""

    async def script(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        await answer(data, close=close)(_, __, writer)

    return script


def unchunked(body: bytes) -> tuple[bytes, bool]:
    """Return the payload of a chunked body, and whether its last chunk was received."""
    payload = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        if int(size, 16) == 0:
            return payload, True
        payload += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    return payload, False


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_stream_that_starts_late_begins_with_comments(
    make_router: MakeRouter, path: str, framing: str
) -> None:
    """Its events follow unchanged, with the usual end."""
    router = await make_router(wait_keepalive=0.1)
    router.endpoints[0].script = late(FRAMINGS[framing], close=framing == "until it closes")
    head, body = split(await router.exchange(post(path, BODY)))
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"text/event-stream" in head
    assert b"X-Olla-Request-ID: " in head
    assert b"X-Olla-Routing-Decision: routed" in head
    payload, complete = unchunked(body)
    comments, events = payload[: payload.index(b"data:")], payload[payload.index(b"data:") :]
    assert comments.startswith(b": waiting for m:latest (0 s so far)")
    assert comments.count(b"\n\n") >= 2
    assert events == EVENTS
    assert complete


async def test_a_stream_that_starts_in_time_has_no_comments(make_router: MakeRouter) -> None:
    """The response is the endpoint's, including its head."""
    router = await make_router(wait_keepalive=5.0)
    router.endpoints[0].script = answer(FRAMINGS["chunks"])
    _, body = split(await router.exchange(post("/v1/chat/completions", BODY)))
    assert unchunked(body) == (EVENTS, True)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", BODY),
        ("/v1/chat/completions", BODY.replace(b"true", b"false")),
        ("/v1/embeddings", b'{"model": "m", "input": "x", "stream": true}'),
    ],
    ids=["NDJSON", "no stream", "embeddings"],
)
async def test_formats_without_comments_are_left_alone(
    make_router: MakeRouter, path: str, body: bytes
) -> None:
    """Nothing is sent before the answer."""
    router = await make_router(wait_keepalive=0.1)
    router.endpoints[0].script = late(b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"done":true}')
    _, got = split(await router.exchange(post(path, body)))
    assert got == b'{"done":true}'


FAILURES = {
    "closed": (late(b"", close=True), Kind.RESET),
    "500": (late(b"HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\n{}"), Kind.UPSTREAM_STATUS),
    "400": (late(b"HTTP/1.1 400 X\r\nContent-Length: 2\r\n\r\n{}"), Kind.UPSTREAM_STATUS),
    "no stream": (
        late(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"),
        Kind.BAD_HEAD,
    ),
}


@pytest.mark.parametrize(("trouble", "kind"), FAILURES.values(), ids=list(FAILURES))
async def test_a_failure_after_comments_is_an_error_event(
    make_router: MakeRouter, trouble: Script, kind: Kind
) -> None:
    """The connection then closes without a clean end."""
    router = await make_router(wait_keepalive=0.1)
    router.endpoints[0].script = trouble
    request = post("/v1/chat/completions", BODY, close=False)
    _, body = split(await router.exchange(request))
    payload, complete = unchunked(body)
    last = payload.strip().split(b"\n\n")[-1]
    assert "e0" in json.loads(last.strip().removeprefix(b"data: "))["error"]["message"]
    assert not complete
    failure = router.records[0].failure
    assert failure is not None
    assert failure.kind is kind


async def test_a_request_still_fails_over_after_comments(make_router: MakeRouter) -> None:
    """Comments are not part of the response: a failure before the first event is retried
    elsewhere."""
    router = await make_router(2, wait_keepalive=0.1)
    router.endpoints[0].script = FAILURES["500"][0]
    router.endpoints[1].script = late(FRAMINGS["chunks"])
    _, body = split(await router.exchange(post("/v1/chat/completions", BODY)))
    payload, complete = unchunked(body)
    assert payload.endswith(EVENTS)
    assert complete


async def test_an_http_1_0_client_gets_comments_without_chunks(make_router: MakeRouter) -> None:
    """The stream ends when the connection closes."""
    router = await make_router(wait_keepalive=0.1)
    router.endpoints[0].script = late(FRAMINGS["chunks"])
    head, body = split(await router.exchange(post("/v1/chat/completions", BODY, version="1.0")))
    assert b"Transfer-Encoding" not in head
    assert body.startswith(b": waiting")
    assert body.endswith(EVENTS)
