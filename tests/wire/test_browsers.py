"""Responses carry the router's CORS headers, whichever component answers."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from olla.failures import Kind
from olla.proxy.http.allowed_hosts import AllowedHosts
from olla.proxy.http.browser_guard import BrowserGuard
from olla.proxy.http.cors import CorsPolicy
from tests.wire.conftest import MODEL, MakeRouter, Router, answer, post, split

LOCAL, EVIL = "http://localhost:3000", "https://evil.example"
POLICY = CorsPolicy(["http://localhost:*"], methods=["GET", "HEAD", "POST"])
CORS_HEADERS = POLICY.answer(LOCAL)
BODY = json.dumps({"model": MODEL, "prompt": "x", "stream": False}).encode()
STREAM = json.dumps({"model": MODEL, "stream": True, "messages": []}).encode()
MakeGuarded = Callable[..., Awaitable[Router]]


@pytest.fixture
def make_guarded(make_router: MakeRouter) -> MakeGuarded:
    """Provide a function that makes a router with a CORS policy, for local names and `olla`."""

    async def make(**options: object) -> Router:
        guard = BrowserGuard(POLICY, AllowedHosts(["olla"], guarded=True))
        return await make_router(guard=guard, **options)

    return make


def fields(head: bytes, name: bytes) -> list[bytes]:
    """Return the values of a header field."""
    start = b"\r\n" + name.lower() + b": "
    found = (b"\r\n" + line for line in head.split(b"\r\n"))
    return [line[len(start) :] for line in found if line.lower().startswith(start)]


async def first_answer(router: Router, request: bytes) -> tuple[bytes, bytes]:
    """Read one response, without waiting for the connection to close: the router keeps reading
    after a request that is incomplete."""
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    try:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        (length,) = fields(head, b"Content-Length")
        return head, await reader.readexactly(int(length))
    finally:
        writer.close()


async def test_an_endpoints_cors_headers_are_replaced(make_guarded: MakeGuarded) -> None:
    """The response has the router's CORS headers once, and the endpoint does not receive the
    Origin."""
    router = await make_guarded()
    router.endpoints[0].script = answer(
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nVary: Accept-Encoding\r\n"
        b"access-control-allow-credentials: true\r\nContent-Length: 2\r\n\r\n{}"
    )
    head, body = split(await router.exchange(post("/api/generate", BODY, f"Origin: {LOCAL}")))
    assert body == b"{}"
    assert CORS_HEADERS in head + b"\r\n"
    assert fields(head, b"Access-Control-Allow-Origin") == [LOCAL.encode()]
    assert fields(head, b"Access-Control-Allow-Credentials") == []
    assert fields(head, b"Vary") == [b"Accept-Encoding", b"Origin"]
    assert b"origin" not in router.endpoints[0].requests[0].lower()


async def test_a_request_without_an_origin_gets_no_cors_headers(
    make_guarded: MakeGuarded,
) -> None:
    """The endpoint's CORS headers are dropped as well."""
    router = await make_guarded()
    script = answer(
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 2\r\n\r\n{}"
    )
    router.endpoints[0].script = script
    head, _ = split(await router.exchange(post("/api/generate", BODY)))
    assert b"access-control" not in head.lower()
    assert fields(head, b"Vary") == []


@pytest.mark.parametrize(
    "lines",
    [
        (f"Origin: {EVIL}",),
        ("Origin: null",),
        ("Origin:",),
        (f"Origin: {LOCAL}", f"Origin: {LOCAL}"),
        (f"Origin: {LOCAL}", f"Origin: {EVIL}"),
        (f"Origin: {LOCAL} {EVIL}",),
        ("Origin: http://localhost.evil.example",),
    ],
)
@pytest.mark.parametrize(
    ("path", "kind"),
    [("/api/generate", "error"), ("/v1/chat/completions", "error"), ("/v1/messages", "type")],
)
async def test_a_foreign_origin_is_rejected_before_its_body_is_read(
    make_guarded: MakeGuarded, lines: tuple[str, ...], path: str, kind: str
) -> None:
    """The error has the path's dialect, nothing is forwarded, and the page cannot read the
    response."""
    router = await make_guarded()
    announced = post(path, b"", *lines).replace(b"Content-Length: 0", b"Content-Length: 99999999")
    head, body = await first_answer(router, announced)
    assert head.startswith(b"HTTP/1.1 403 ")
    assert kind in json.loads(body)
    assert fields(head, b"Vary") == [b"Origin"]
    assert b"access-control" not in head.lower()
    assert router.endpoints[0].requests == []
    assert router.services.body_budget.taken == 0
    assert router.records[-1].failure is not None
    assert router.records[-1].failure.kind is Kind.ORIGIN_FORBIDDEN


@pytest.mark.parametrize("host", ["evil.example", "evil.example:40114", "attacker", "8.8.8.8"])
@pytest.mark.parametrize("origin", [None, "http://evil.example", LOCAL])
async def test_a_foreign_host_is_rejected(
    make_guarded: MakeGuarded, host: str, origin: str | None
) -> None:
    """With DNS rebinding the page's name resolves to the router, so its Origin proves nothing."""
    router = await make_guarded()
    lines = () if origin is None else (f"Origin: {origin}",)
    request = post("/api/generate", BODY, *lines).replace(b"Host: olla", b"Host: " + host.encode())
    head, body = split(await router.exchange(request))
    assert head.startswith(b"HTTP/1.1 403 ")
    assert "server.allowed_hosts" in json.loads(body)["error"] or origin == "http://evil.example"
    assert (fields(head, b"Access-Control-Allow-Origin") == [LOCAL.encode()]) is (origin == LOCAL)
    assert router.endpoints[0].requests == []


async def test_each_request_on_a_connection_is_judged_by_its_origin(
    make_guarded: MakeGuarded,
) -> None:
    """Allowed and foreign origins may alternate in any order; no state carries over."""
    router = await make_guarded()
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    try:
        for origin, status in ((LOCAL, b"200"), (EVIL, b"403"), (LOCAL, b"200"), (None, b"200")):
            lines = [] if origin is None else [f"Origin: {origin}"]
            if status == b"403":
                request = f"GET /api/tags HTTP/1.1\r\nHost: olla\r\n{lines[0]}\r\n\r\n".encode()
            else:
                request = post("/api/generate", BODY, *lines, close=False)
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.split()[1] == status
            assert (b"Access-Control-Allow-Origin" in head) is (origin == LOCAL)
            (length,) = fields(head, b"Content-Length")
            await reader.readexactly(int(length))
    finally:
        writer.close()


async def test_a_stream_that_starts_early_has_cors_headers(
    make_guarded: MakeGuarded,
) -> None:
    """The router sends this head before any endpoint has answered."""
    router = await make_guarded(wait_keepalive=0.05)
    released = asyncio.Event()

    async def script(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.close()

    router.endpoints[0].script = script
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    try:
        writer.write(post("/v1/chat/completions", STREAM, f"Origin: {LOCAL}"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert CORS_HEADERS in head
        released.set()
        assert b"error" in await reader.read()
    finally:
        writer.close()


async def test_an_allowed_page_can_read_errors(make_guarded: MakeGuarded) -> None:
    """This covers 502 for a broken response, 400, 404 for a path and for a model, 405, and 413."""
    router = await make_guarded()
    router.endpoints[0].script = answer(b"nonsense", close=True)
    other = json.dumps({"model": "other", "prompt": "x"}).encode()
    for path, body, status in (
        ("/api/generate", BODY, b"502"),
        ("/api/generate", b"[", b"400"),
        ("/api/generate", other, b"404"),
        ("/nowhere", BODY, b"404"),
        ("/api/tags", BODY, b"405"),
        ("/api/generate", b" " * 2_000_000, b"413"),
    ):
        head, _ = split(await router.exchange(post(path, body, f"Origin: {LOCAL}")))
        assert head.split()[1] == status, path
        assert CORS_HEADERS in head + b"\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /api/chat HTTP/1.1\r\nHost: olla\r\nORIGIN:%b\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /api/chat HTTP/1.1\r\nHost: olla\r\nBad Field: 1\r\nOrigin: %b\r\n\r\n", 400),
        (b"GET /api/tags HTTP/1.1\r\nHost: olla\r\nOrigin: %b\r\nX: " + b"x" * 70_000, 431),
    ],
)
async def test_an_allowed_page_can_read_parse_errors(
    make_guarded: MakeGuarded, request_: bytes, status: int
) -> None:
    """The Origin is taken from the part of the head that can be parsed; a foreign page gets no
    access."""
    router = await make_guarded()
    for origin in (LOCAL, EVIL):
        raw = request_.replace(b"%b", origin.encode())
        head, _ = split(await router.exchange(raw))
        assert int(head.split()[1]) == status
        assert (CORS_HEADERS in head + b"\r\n") is (origin == LOCAL)


async def test_an_origin_in_a_body_is_ignored(make_guarded: MakeGuarded) -> None:
    """Only the head counts."""
    router = await make_guarded()
    raw = (
        b"POST /api/chat HTTP/1.1\r\nHost: olla\r\nContent-Length: x\r\n\r\n\r\nOrigin: %b\r\n\r\n"
    )
    head, _ = split(await router.exchange(raw.replace(b"%b", LOCAL.encode())))
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"access-control" not in head.lower()


async def test_an_allowed_page_can_read_a_408(make_guarded: MakeGuarded) -> None:
    """The body stopped halfway."""
    router = await make_guarded(read_timeout=0.2)
    request = post("/api/generate", BODY, f"Origin: {LOCAL}")
    head, _ = await first_answer(router, request[:-10])
    assert head.startswith(b"HTTP/1.1 408 ")
    assert CORS_HEADERS in head + b"\r\n"


async def test_a_preflight_is_answered_without_an_endpoint(make_guarded: MakeGuarded) -> None:
    """The connection stays open for the request that follows."""
    router = await make_guarded()
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    try:
        writer.write(
            b"OPTIONS /api/generate HTTP/1.1\r\nHost: olla\r\nOrigin: http://localhost:3000\r\n"
            b"Access-Control-Request-Method: POST\r\n"
            b"Access-Control-Request-Headers: authorization,x-api-key\r\n\r\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 204 ")
        assert fields(head, b"Access-Control-Allow-Origin") == [LOCAL.encode()]
        assert fields(head, b"Access-Control-Allow-Headers") == [b"authorization,x-api-key"]
        assert fields(head, b"Access-Control-Allow-Methods") == [b"GET, HEAD, POST"]
        assert fields(head, b"Content-Length") == []
        assert router.endpoints[0].requests == []
        writer.write(post("/api/generate", BODY, f"Origin: {LOCAL}"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    finally:
        writer.close()


@pytest.mark.parametrize(
    "lines",
    [
        (f"Origin: {LOCAL}",),
        ("Access-Control-Request-Method: POST",),
        (f"Origin: {LOCAL}", "Access-Control-Request-Method: POST", "Content-Length: 2"),
    ],
)
async def test_options_without_a_preflight_is_forwarded(
    make_guarded: MakeGuarded, lines: tuple[str, ...]
) -> None:
    """A preflight has an Origin and a requested method, and no body."""
    router = await make_guarded()
    head = "\r\n".join(["OPTIONS /api/generate HTTP/1.1", "Host: olla", *lines])
    raw = f"{head}\r\nConnection: close\r\n\r\n".encode()
    if "Content-Length" in head:
        raw += b"{}"
    assert (await router.exchange(raw)).startswith(b"HTTP/1.1 200 ")
    assert router.endpoints[0].requests[0].startswith(b"OPTIONS /api/generate ")
