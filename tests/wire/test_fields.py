"""Which fields of a node's answer a client gets, and which the router writes itself."""

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


def answered(*lines: str, status: int = 200) -> bytes:
    """A node's whole answer with these fields."""
    fields = "".join(f"{line}\r\n" for line in lines)
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{fields}"
    return f'{head}Content-Length: 13\r\n\r\n{{"done":true}}'.encode()


def fields_of(head: bytes) -> dict[str, list[str]]:
    """The fields of a head by name."""
    fields: dict[str, list[str]] = {}
    for line in head.decode().split("\r\n")[1:]:
        name, _, value = line.partition(": ")
        fields.setdefault(name.lower(), []).append(value)
    return fields


async def asked(router: Router, *lines: str, status: int = 200) -> dict[str, list[str]]:
    """What a client sees of a node's answer with these fields."""
    router.endpoints[0].script = answer(answered(*lines, status=status))
    head, body = split(await router.exchange(post("/api/generate", BODY)))
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert body == b'{"done":true}'
    return fields_of(head)


ENDS_HERE = [
    # the client's storage, and the origin's name and connections
    *("Set-Cookie: a=b", "set-cookie: a=b; Domain=example", "Set-Cookie2: a=b"),
    *('Clear-Site-Data: "*"', "Strict-Transport-Security: max-age=31536000"),
    *('Public-Key-Pins: pin-sha256="x"', 'Alt-Svc: h3=":443"', "Expect-CT: max-age=9"),
    *('NEL: {"report_to":"x"}', 'Report-To: {"group":"x"}', 'Reporting-Endpoints: x="//evil"'),
    *("Accept-CH: Sec-CH-UA-Model", "Critical-CH: Sec-CH-UA-Model", "Origin-Agent-Cluster: ?1"),
    *("Service-Worker-Allowed: /", "Refresh: 0; url=http://evil/", "Set-Login: logged-out"),
    # who may read, and who has to log in
    *("Access-Control-Allow-Origin: *", "access-control-allow-credentials: true"),
    *("Access-Control-Expose-Headers: *", "Timing-Allow-Origin: *"),
    *('WWW-Authenticate: Basic realm="router"', "Authentication-Info: nextnonce=x"),
    *("Proxy-Authenticate: Basic", "Proxy-Status: node.internal", "Sec-WebSocket-Accept: x"),
    # a proxy in front, and the way the answer came
    *("X-Accel-Redirect: /internal/secret", "X-Sendfile: /etc/passwd", "X-Accel-Expires: 9"),
    *("Via: 1.1 node.internal", "Keep-Alive: timeout=5", "Upgrade: h2c"),
    # the router's own
    *("X-Olla-Endpoint: fake", "X-OLLA-Whatever: fake", "Server: node/1.0 (Python)"),
]


@pytest.mark.parametrize("line", ENDS_HERE)
async def test_a_node_does_not_speak_in_the_routers_name(
    make_router: MakeRouter, line: str
) -> None:
    """A field that would outlast the answer, command others or belong to the router ends here."""
    router = await make_router()
    name, _, value = line.partition(": ")
    assert value not in (await asked(router, line)).get(name.lower(), [])


PASSES = [
    *("Cache-Control: no-store", "Vary: Accept", 'ETag: "x"', "Content-Language: en"),
    *("Content-Security-Policy: default-src 'none'", "X-Content-Type-Options: nosniff"),
    *("X-Frame-Options: DENY", "Location: /api/x", 'Link: </x>; rel="next"'),
    *("X-Request-Id: node-1", "OpenAI-Processing-Ms: 12", "Server-Timing: total;dur=3"),
    *("X-RateLimit-Remaining: 999", "RateLimit: limit=5", "X-Custom: a", "X-Custom:"),
]


@pytest.mark.parametrize("line", PASSES)
async def test_what_describes_the_answer_passes(make_router: MakeRouter, line: str) -> None:
    """In its spelling, an empty value too."""
    router = await make_router()
    name, _, value = line.partition(":")
    assert (await asked(router, line))[name.lower()] == [value.strip()]


@pytest.mark.parametrize(
    "name",
    [
        *("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Limit-Requests"),
        *("x-ratelimit-reset-tokens", "RateLimit", "RateLimit-Policy", "X-Rate-Limit-Limit"),
        "anthropic-ratelimit-requests-remaining",
    ],
)
async def test_where_the_router_limits_a_nodes_limits_are_not_the_clients(
    make_router: MakeRouter, name: str
) -> None:
    """One standing is told, and it is that of the router's limit."""
    router = await make_router(policy=LIMITED)
    fields = await asked(router, f"{name}: 999", "X-Custom: a")
    assert "999" not in fields.get(name.lower(), [])
    assert fields["x-ratelimit-limit"] == ["100"]
    assert fields["x-custom"] == ["a"]


async def test_a_challenge_passes_where_the_node_takes_the_clients_credentials(
    make_router: MakeRouter,
) -> None:
    """Elsewhere a browser would ask for a password in the router's name."""
    challenge = 'WWW-Authenticate: Bearer realm="node"'
    router = await make_router(forward_authorization=True)
    fields = await asked(router, challenge, status=401)
    assert fields["www-authenticate"] == ['Bearer realm="node"']
    other = await make_router()
    assert "www-authenticate" not in await asked(other, challenge, status=401)


def in_the(future: timedelta) -> str:
    """A date as HTTP writes it."""
    return format_datetime(datetime.now(UTC) + future, usegmt=True)


@pytest.mark.parametrize("status", [200, 400, 429, 503])
@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        (("7",), 7, 7),
        (("0",), 0, 0),
        (("9" * 400,), 86_400, 86_400),
        ((in_the(timedelta(days=365_000)),), 86_400, 86_400),
        ((in_the(timedelta(hours=1)),), 3_000, 3_600),
        ((in_the(timedelta(hours=-1)),), 0, 0),
        (("soon",), None, None),
        (("-1",), None, None),
        (("7", "9"), None, None),
    ],
    ids=["7", "0", "400 digits", "centuries", "an hour", "past", "words", "negative", "twice"],
)
async def test_a_nodes_retry_after_is_bounded_wherever_it_is_passed_on(
    make_router: MakeRouter,
    status: int,
    values: tuple[str, ...],
    low: int | None,
    high: int | None,
) -> None:
    """In whole seconds, a day at most, or not at all."""
    router = await make_router()
    fields = await asked(router, *(f"Retry-After: {value}" for value in values), status=status)
    told = fields.get("retry-after")
    if low is None or high is None:
        assert told is None
    else:
        assert told is not None
        assert len(told) == 1
        assert low <= int(told[0]) <= high


async def test_a_nodes_retry_after_is_told_when_the_router_answers_for_it(
    make_router: MakeRouter,
) -> None:
    """An absurd one makes neither the router's error nor its bookkeeping fail."""
    router = await make_router(2)
    for endpoint in router.endpoints:
        endpoint.script = answer(answered("Retry-After: " + "9" * 400, status=429))
    for _ in range(3):
        head, _ = split(await router.exchange(post("/api/generate", BODY)))
        assert head.startswith((b"HTTP/1.1 429 ", b"HTTP/1.1 503 "))
        (told,) = fields_of(head)["retry-after"]
        assert 1 <= int(told) <= 86_400


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
    ids=["good", "cookie", "own", "framing", "no field", "bare LF", "space", "folded"],
)
async def test_a_trailer_says_no_more_than_a_head_may(
    make_router: MakeRouter, trailers: str, passed: bytes
) -> None:
    """Trailers that are no fields are left out altogether."""
    router = await make_router()
    router.endpoints[0].script = answer(TRAILERS.format(trailers).encode())
    _, body = split(await router.exchange(post("/api/generate", STREAM)))
    assert body.endswith(b"\r\n0\r\n" + passed + b"\r\n")


NO_DATE = answered()
DATED = answered("Date: Sun, 06 Nov 1994 08:49:37 GMT")


async def test_an_answer_gets_a_date_where_the_node_sent_none(make_router: MakeRouter) -> None:
    """That of now; a node's own stays."""
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
async def test_streams_ask_a_proxy_in_front_not_to_hold_them_back(
    make_router: MakeRouter, type: str
) -> None:
    """nginx gathers an answer without a length until its buffers are full, unless told not to."""
    router = await make_router()
    path, body = STREAMS[type]
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {type}; charset=utf-8\r\n%b\r\n".encode()
    for own, told in ((b"", ["no"]), (b"X-Accel-Buffering: yes\r\n", ["yes"])):
        router.endpoints[0].script = answer(head % own + body, close=True)
        for version in ("1.0", "1.1"):
            raw = await router.exchange(post(path, STREAM, version=version))
            assert fields_of(split(raw)[0])["x-accel-buffering"] == told


async def test_an_answer_that_is_no_stream_may_be_gathered(make_router: MakeRouter) -> None:
    """That is quicker, and harms nobody."""
    router = await make_router()
    assert "x-accel-buffering" not in await asked(router)


SAYS = {
    "relayed": post("/api/generate", BODY),
    "no such model": post("/api/generate", b'{"model":"other"}'),
    "no JSON": post("/api/generate", b"{"),
    "no such path": b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "wrong method": b"GET /api/chat HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "no HTTP": b"\x00\x01\r\n\r\n",
    "no HTTP/1": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a head that is too long": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    "a body that is too long": post("/api/generate", b"").replace(b"Length: 0", b"Length: 9999999"),
}


@pytest.mark.parametrize("request_", SAYS.values(), ids=list(SAYS))
async def test_every_answer_names_its_server_and_its_date(
    make_router: MakeRouter, request_: bytes
) -> None:
    """`Server: olla` once, and no word of what it is made of, whoever wrote the answer."""
    router = await make_router()
    router.endpoints[0].script = answer(answered("Server: node"))
    head, _ = split(await router.exchange(request_))
    fields = fields_of(head)
    assert fields["server"] == ["olla"]
    assert len(fields["date"]) == 1
    assert re.search(rb"aiohttp|python", head, re.IGNORECASE) is None


async def test_a_stream_that_the_router_begins_says_the_same(make_router: MakeRouter) -> None:
    """While it waits for the endpoint."""
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
