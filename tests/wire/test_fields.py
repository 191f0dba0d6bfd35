"""Response headers: which of a node's fields are forwarded, and which the router writes."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime

import pytest

from olla.access.limit import Limit, LimitKind
from olla.access.policy import AccessPolicy
from tests.wire.conftest import MODEL, MakeRouter, Router, answer, post, split

BODY = b'{"model":"%b","stream":false}' % MODEL.encode()
STREAM = b'{"model":"%b","stream":true}' % MODEL.encode()
LIMITED = AccessPolicy(everybody=(Limit("test", LimitKind.REQUESTS, 100),))


def response_with(*lines: str, status: int = 200) -> bytes:
    """Build a node's response with these fields."""
    fields = "".join(f"{line}\r\n" for line in lines)
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{fields}"
    return f'{head}Content-Length: 13\r\n\r\n{{"done":true}}'.encode()


def fields_of(head: bytes) -> dict[str, list[str]]:
    """Parse the fields of a head, by name."""
    fields: dict[str, list[str]] = {}
    for line in head.decode().split("\r\n")[1:]:
        name, _, value = line.partition(": ")
        fields.setdefault(name.lower(), []).append(value)
    return fields


async def fields_through(router: Router, *lines: str, status: int = 200) -> dict[str, list[str]]:
    """Return the fields that a client receives from a node's response with these fields."""
    router.endpoints[0].script = answer(response_with(*lines, status=status))
    head, body = split(await router.exchange(post("/api/generate", BODY)))
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert body == b'{"done":true}'
    return fields_of(head)


DROPPED = [
    # fields that affect the client's storage, or the origin and its connections
    *("Set-Cookie: a=b", "set-cookie: a=b; Domain=example", "Set-Cookie2: a=b"),
    *('Clear-Site-Data: "*"', "Strict-Transport-Security: max-age=31536000"),
    *('Public-Key-Pins: pin-sha256="x"', 'Alt-Svc: h3=":443"', "Expect-CT: max-age=9"),
    *('NEL: {"report_to":"x"}', 'Report-To: {"group":"x"}', 'Reporting-Endpoints: x="//evil"'),
    *("Accept-CH: Sec-CH-UA-Model", "Critical-CH: Sec-CH-UA-Model", "Origin-Agent-Cluster: ?1"),
    *("Service-Worker-Allowed: /", "Refresh: 0; url=http://evil/", "Set-Login: logged-out"),
    # cross-origin access and authentication
    *("Access-Control-Allow-Origin: *", "access-control-allow-credentials: true"),
    *("Access-Control-Expose-Headers: *", "Timing-Allow-Origin: *"),
    *('WWW-Authenticate: Basic realm="router"', "Authentication-Info: nextnonce=x"),
    *("Proxy-Authenticate: Basic", "Proxy-Status: node.internal", "Sec-WebSocket-Accept: x"),
    # fields for a proxy in front, and about the connection
    *("X-Accel-Redirect: /internal/secret", "X-Sendfile: /etc/passwd", "X-Accel-Expires: 9"),
    *("Via: 1.1 node.internal", "Keep-Alive: timeout=5", "Upgrade: h2c"),
    # fields that the router writes
    *("X-Olla-Endpoint: fake", "X-OLLA-Whatever: fake", "Server: node/1.0 (Python)"),
]


@pytest.mark.parametrize("line", DROPPED)
async def test_a_node_cannot_set_fields_of_the_router(make_router: MakeRouter, line: str) -> None:
    """Fields that outlast the response, command other parties or belong to the router are
    dropped."""
    router = await make_router()
    name, _, value = line.partition(": ")
    assert value not in (await fields_through(router, line)).get(name.lower(), [])


FORWARDED = [
    *("Cache-Control: no-store", "Vary: Accept", 'ETag: "x"', "Content-Language: en"),
    *("Content-Security-Policy: default-src 'none'", "X-Content-Type-Options: nosniff"),
    *("X-Frame-Options: DENY", "Location: /api/x", 'Link: </x>; rel="next"'),
    *("X-Request-Id: node-1", "OpenAI-Processing-Ms: 12", "Server-Timing: total;dur=3"),
    *("X-RateLimit-Remaining: 999", "RateLimit: limit=5", "X-Custom: a", "X-Custom:"),
]


@pytest.mark.parametrize("line", FORWARDED)
async def test_fields_that_describe_the_response_are_forwarded(
    make_router: MakeRouter, line: str
) -> None:
    """Values stay unchanged, including empty ones."""
    router = await make_router()
    name, _, value = line.partition(":")
    assert (await fields_through(router, line))[name.lower()] == [value.strip()]


@pytest.mark.parametrize(
    "name",
    [
        *("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Limit-Requests"),
        *("x-ratelimit-reset-tokens", "RateLimit", "RateLimit-Policy", "X-Rate-Limit-Limit"),
        "anthropic-ratelimit-requests-remaining",
    ],
)
async def test_a_nodes_rate_limits_are_dropped_where_the_router_limits(
    make_router: MakeRouter, name: str
) -> None:
    """The client gets one set of rate-limit headers, the router's."""
    router = await make_router(policy=LIMITED)
    fields = await fields_through(router, f"{name}: 999", "X-Custom: a")
    assert "999" not in fields.get(name.lower(), [])
    assert fields["x-ratelimit-limit"] == ["100"]
    assert fields["x-custom"] == ["a"]


async def test_a_challenge_is_forwarded_with_forward_authorization(
    make_router: MakeRouter,
) -> None:
    """Otherwise a browser would ask for a password in the router's name."""
    challenge = 'WWW-Authenticate: Bearer realm="node"'
    router = await make_router(forward_authorization=True)
    fields = await fields_through(router, challenge, status=401)
    assert fields["www-authenticate"] == ['Bearer realm="node"']
    other = await make_router()
    assert "www-authenticate" not in await fields_through(other, challenge, status=401)


def http_date(offset: timedelta) -> str:
    """Return the time at this offset from now as an HTTP date."""
    return format_datetime(datetime.now(UTC) + offset, usegmt=True)


@pytest.mark.parametrize("status", [200, 400, 429, 503])
@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        (("7",), 7, 7),
        (("0",), 0, 0),
        (("9" * 400,), 86_400, 86_400),
        ((http_date(timedelta(days=365_000)),), 86_400, 86_400),
        ((http_date(timedelta(hours=1)),), 3_000, 3_600),
        ((http_date(timedelta(hours=-1)),), 0, 0),
        (("soon",), None, None),
        (("-1",), None, None),
        (("7", "9"), None, None),
    ],
    ids=["7", "0", "400 digits", "centuries", "an hour", "past", "text", "negative", "twice"],
)
async def test_a_nodes_retry_after_is_bounded(
    make_router: MakeRouter,
    status: int,
    values: tuple[str, ...],
    low: int | None,
    high: int | None,
) -> None:
    """It is in whole seconds, at most a day, or dropped."""
    router = await make_router()
    fields = await fields_through(
        router, *(f"Retry-After: {value}" for value in values), status=status
    )
    received = fields.get("retry-after")
    if low is None or high is None:
        assert received is None
    else:
        assert received is not None
        assert len(received) == 1
        assert low <= int(received[0]) <= high


async def test_an_absurd_retry_after_does_not_break_the_routers_error(
    make_router: MakeRouter,
) -> None:
    """The router's error repeats a bounded value, and its bookkeeping works."""
    router = await make_router(2)
    for endpoint in router.endpoints:
        endpoint.script = answer(response_with("Retry-After: " + "9" * 400, status=429))
    for _ in range(3):
        head, _ = split(await router.exchange(post("/api/generate", BODY)))
        assert head.startswith((b"HTTP/1.1 429 ", b"HTTP/1.1 503 "))
        (value,) = fields_of(head)["retry-after"]
        assert 1 <= int(value) <= 86_400


TRAILERS = (
    "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    'e\r\n{{"done":true}}\n\r\n0\r\n{}\r\n'
)


@pytest.mark.parametrize(
    ("trailers", "passed"),
    [
        ("X-Sum: 1\r\n", b"X-Sum: 1\r\n"),
        ("Set-Cookie: a=b\r\nX-Sum: 1\r\n", b"X-Sum: 1\r\n"),
        ("X-Olla-Endpoint: fake\r\nAccess-Control-Allow-Origin: *\r\n", b""),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\nContent-Type: x\r\n", b""),
        ("X-Sum: 1\r\nHTTP/1.1 200 OK\r\n", b""),
        ("X-Sum: 1\nSet-Cookie: a=b\r\n", b""),
        ("X Sum: 1\r\n", b""),
        (" X-Sum: 1\r\n", b""),
    ],
    ids=["good", "cookie", "olla's", "framing", "not a field", "bare LF", "space", "folded"],
)
async def test_trailers_are_filtered_like_headers(
    make_router: MakeRouter, trailers: str, passed: bytes
) -> None:
    """Malformed trailers are dropped altogether."""
    router = await make_router()
    router.endpoints[0].script = answer(TRAILERS.format(trailers).encode())
    _, body = split(await router.exchange(post("/api/generate", STREAM)))
    assert body.endswith(b"\r\n0\r\n" + passed + b"\r\n")


NO_DATE = response_with()
DATED = response_with("Date: Sun, 06 Nov 1994 08:49:37 GMT")


async def test_a_response_without_a_date_gets_one(make_router: MakeRouter) -> None:
    """A node's date is kept."""
    router = await make_router()
    router.endpoints[0].script = answer(NO_DATE)
    head, _ = split(await router.exchange(post("/api/generate", BODY)))
    (date,) = fields_of(head)["date"]
    assert abs(datetime.now(UTC) - parsedate_to_datetime(date)) < timedelta(seconds=30)
    router.endpoints[0].script = answer(DATED)
    head, _ = split(await router.exchange(post("/api/generate", BODY)))
    assert fields_of(head)["date"] == ["Sun, 06 Nov 1994 08:49:37 GMT"]


STREAMS = {
    "application/x-ndjson": ("/api/generate", b'{"done":true}\n'),
    "text/event-stream": ("/v1/chat/completions", b"data: [DONE]\n\n"),
}


@pytest.mark.parametrize("type", STREAMS)
async def test_streams_turn_off_buffering_in_a_proxy_in_front(
    make_router: MakeRouter, type: str
) -> None:
    """nginx otherwise buffers a response without a length until its buffers are full."""
    router = await make_router()
    path, body = STREAMS[type]
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {type}; charset=utf-8\r\n%b\r\n".encode()
    for sent, received in ((b"", ["no"]), (b"X-Accel-Buffering: yes\r\n", ["yes"])):
        router.endpoints[0].script = answer(head % sent + body, close=True)
        for version in ("1.0", "1.1"):
            raw = await router.exchange(post(path, STREAM, version=version))
            assert fields_of(split(raw)[0])["x-accel-buffering"] == received


async def test_other_responses_may_be_buffered(make_router: MakeRouter) -> None:
    """Buffering is faster there, and delays no records."""
    router = await make_router()
    assert "x-accel-buffering" not in await fields_through(router)


REQUESTS = {
    "relayed": post("/api/generate", BODY),
    "an unknown model": post("/api/generate", b'{"model":"other"}'),
    "not JSON": post("/api/generate", b"{"),
    "an unknown path": b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "a wrong method": b"GET /api/chat HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "not HTTP": b"\x00\x01\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a head that is too long": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    "a body that is too long": post("/api/generate", b"").replace(b"Length: 0", b"Length: 9999999"),
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=list(REQUESTS))
async def test_every_response_has_a_server_and_a_date(
    make_router: MakeRouter, request_: bytes
) -> None:
    """`Server: olla` appears once without the libraries in use, whichever component wrote the
    response."""
    router = await make_router()
    router.endpoints[0].script = answer(response_with("Server: node"))
    head, _ = split(await router.exchange(request_))
    fields = fields_of(head)
    assert fields["server"] == ["olla"]
    assert len(fields["date"]) == 1
    assert re.search(rb"aiohttp|python", head, re.IGNORECASE) is None


async def test_a_stream_that_the_router_begins_has_the_same_fields(make_router: MakeRouter) -> None:
    """The router begins it while it waits for the endpoint."""
    router = await make_router(wait_keepalive=0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)

    async def hang(_: bytes, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await reader.read()

    router.endpoints[0].script = hang
    writer.write(post("/v1/chat/completions", STREAM))
    fields = fields_of((await reader.readuntil(b"\r\n\r\n"))[:-4])
    assert fields["server"] == ["olla"]
    assert fields["x-accel-buffering"] == ["no"]
    assert len(fields["date"]) == 1
    writer.close()
