"""Request targets: Host, absolute targets, and field names that imitate others."""

import asyncio
import re

import pytest

from tests.wire.conftest import MODEL, MakeRouter, Router, answer, post, split

BODY = b'{"model":"%b","stream":false}' % MODEL.encode()
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n"
OK += b'{"done":true}'

GOOD_HOSTS = [
    *("olla", "olla.example", "olla.example:40114", "my_router:40114", "127.0.0.1:1", "[::1]"),
    *("[::1]:40114", "x:", "  padded  ", "a!b"),
]
BAD_HOSTS = [
    *(
        "",
        " ",
        "bad host",
        "a\tb",
        "user@host",
        "host/path",
        "http://host",
        "a,b",
        "a, b",
        "x:port",
    ),
    *("x:99999", "x:-1", "x:80:80", "[::1", "::1", "[::x]", "x?y", "x#y", "x\\y", "bücher", '"x"'),
    *("a\x01b", "a\x7fb", "a" * 300),
]


def request(host: str, start: str = "POST /api/generate HTTP/1.1", body: bytes = BODY) -> bytes:
    """Build a request with this Host."""
    fields = f"Host:{host}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return f"{start}\r\n{fields}".encode() + body


@pytest.fixture
async def router(make_router: MakeRouter) -> Router:
    """Provide a router over an endpoint that answers every request."""
    made = await make_router(read_timeout=1.0, read_header_timeout=1.0)
    made.endpoints[0].script = answer(OK)
    return made


async def status_of(router: Router, raw: bytes) -> int:
    """Send a request; returns the response status."""
    async with asyncio.timeout(10):
        head, _ = split(await router.exchange(raw))
    return int(head.split()[1])


STARTS = {
    "POST": "POST /api/generate HTTP/1.1",
    "POST in 1.0": "POST /api/generate HTTP/1.0",
    "GET": "GET /olla/ollama/other HTTP/1.1",
}


@pytest.mark.parametrize("start", STARTS.values(), ids=list(STARTS))
async def test_an_invalid_host_is_rejected(router: Router, start: str) -> None:
    """It gets a 400 on both request paths, and nothing is forwarded."""
    for host in BAD_HOSTS:
        assert await status_of(router, request(host, start)) == 400, host
        assert await status_of(router, request(f" {host}", start)) == 400, host
    assert router.endpoints[0].requests == []


@pytest.mark.parametrize("start", STARTS.values(), ids=list(STARTS))
async def test_a_valid_host_is_forwarded(router: Router, start: str) -> None:
    """The endpoint gets it unchanged in X-Forwarded-Host."""
    for host in GOOD_HOSTS:
        assert await status_of(router, request(host, start)) == 200, host
        seen = router.endpoints[0].requests[-1]
        assert f"\r\nX-Forwarded-Host: {host.strip()}\r\n".encode() in seen


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_only_http_1_0_requests_may_lack_a_host(router: Router, version: str) -> None:
    """Two Host fields are rejected in either version."""
    start = STARTS["POST"].replace("1.1", version)
    without = request("x", start).replace(b"Host:x\r\n", b"")
    assert await status_of(router, without) == (200 if version == "1.0" else 400)
    for second in (b"Host: x\r\n", b"host: y\r\n", b"HOST:\r\n"):
        twice = request("x", start).replace(b"Host:x\r\n", b"Host: x\r\n" + second)
        assert await status_of(router, twice) == 400
    assert len(router.endpoints[0].requests) == (1 if version == "1.0" else 0)


OWN = ["localhost:{}", "LOCALHOST:{}", "127.0.0.1:{}", "127.1.2.3:{}", "[::1]:{}"]
FOREIGN = [
    *(
        "evil.example",
        "evil.example:{}",
        "localhost",
        "localhost:80",
        "user@localhost:{}",
        "10.0.0.1:{}",
    ),
    *("localhost.evil.example:{}", "localhost:{}@evil.example", ":{}", "", "localhost:{}0"),
]


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_an_absolute_target_of_the_router_is_served(router: Router, method: str) -> None:
    """The router uses its path, and its authority takes precedence over the Host field."""
    path = "/api/generate?x=1" if method == "POST" else "/other"
    for authority in OWN:
        own = authority.format(router.port)
        for scheme in ("http", "HTTP"):
            start = f"{method} {scheme}://{own}/olla/ollama{path} HTTP/1.1"
            assert await status_of(router, request("other.example", start)) == 200, start
            seen = router.endpoints[0].requests[-1]
            assert seen.startswith(f"{method} {path} HTTP/1.1\r\n".encode())
            assert f"\r\nX-Forwarded-Host: {own}\r\n".encode() in seen
            assert b"other.example" not in seen


async def test_an_absolute_target_of_another_server_is_rejected(router: Router) -> None:
    """It gets a 400 with any Host: the router is not a forward proxy."""
    for authority in FOREIGN:
        foreign = authority.format(router.port)
        for host in (foreign, "x", f"localhost:{router.port}"):
            start = f"POST http://{foreign}/api/generate HTTP/1.1"
            assert await status_of(router, request(host, start)) == 400, start
    for scheme in ("https", "ftp", "ws", "javascript", "file"):
        start = f"POST {scheme}://localhost:{router.port}/api/generate HTTP/1.1"
        assert await status_of(router, request("x", start)) == 400, start
    assert router.endpoints[0].requests == []


async def test_an_absolute_target_may_lack_a_path(router: Router) -> None:
    """The root path is used; dot segments and similar tricks are rejected as usual."""
    own = f"http://localhost:{router.port}"
    for target in (own, f"{own}/", f"{own}?x"):
        assert await status_of(router, request("x", f"HEAD {target} HTTP/1.1", b"")) == 200
        assert router.endpoints[0].requests[-1].startswith(b"HEAD /")
    for trick in ("/api/../x", "/api/x#y", "/%00", "//api//generate#", "#", "/a\\b"):
        assert await status_of(router, request("x", f"POST {own}{trick} HTTP/1.1")) == 400, trick


SHADOWS = [
    *("Transfer_Encoding: chunked", "transfer_encoding: chunked", "Content_Length: 5"),
    *("CONTENT_LENGTH: 5", "Content_Type: text/html", "Content_Encoding: gzip", "Keep_Alive: x"),
    *("X_Forwarded_For: 1.2.3.4", "X_Forwarded-For: 1.2.3.4", "x_forwarded_proto: https"),
    *("X_Forwarded_Host: evil", "X_Real_IP: 1.2.3.4", "CF_Connecting_IP: 1.2.3.4"),
    *("X_Olla_Endpoint: e1", "X_Olla_Request_ID: x", "X_API_Key: secret", "Proxy_Authorization: x"),
    *("X_HTTP_Method_Override: DELETE", "X_Original_URL: /api/delete", "Remote_User: root"),
    *("Accept_Encoding: gzip", "If_None_Match: x", "User_Agent: x", "Sec_Fetch_Site: none"),
    *("X_Remote_User: root", "Max_Forwards: 0", "Cache_Control: x"),
]


@pytest.mark.parametrize("line", SHADOWS)
async def test_a_field_name_that_imitates_another_is_dropped(router: Router, line: str) -> None:
    """A CGI or WSGI server would read the underscore as a dash, and take the field for one of
    olla's or HTTP's."""
    assert await status_of(router, post("/api/generate", BODY, line)) == 200
    (seen,) = router.endpoints[0].requests
    head, body = split(seen)
    assert line.partition(":")[0].lower().encode() not in head.lower()
    assert body == BODY
    assert head.lower().count(b"content-length") == 1


async def test_a_field_name_that_shadows_another_in_the_request_is_dropped(
    make_router: MakeRouter,
) -> None:
    """This includes names that shadow the endpoint's configured headers."""
    router = await make_router(headers=(("X-Team-Token", "secret"),))
    lines = ("X-Custom: 1", "X_Custom: 2", "x_team_token: guessed", "X_Team-Token: guessed")
    assert await status_of(router, post("/api/generate", BODY, *lines)) == 200
    head = router.endpoints[0].requests[0].lower()
    assert b"x-custom: 1\r\n" in head
    assert b"x-team-token: secret\r\n" in head
    assert b"x_" not in head
    assert b"guessed" not in head


@pytest.mark.parametrize("line", ["session_id: 5", "Conversation_Id: x", "X_Team: a"])
async def test_other_field_names_with_an_underscore_are_forwarded(
    router: Router, line: str
) -> None:
    """Some clients send them, and they imitate nothing."""
    assert await status_of(router, post("/api/generate", BODY, line)) == 200
    assert f"\r\n{line}\r\n".encode() in router.endpoints[0].requests[0]


def corpus(port: int) -> list[bytes]:
    """Return all requests of this module."""
    hosts = [*GOOD_HOSTS, *BAD_HOSTS]
    targets = [authority.format(port) for authority in (*OWN, *FOREIGN)]
    return [
        *(request(f" {host}", start) for host in hosts for start in STARTS.values()),
        *(request("x", f"POST http://{each}/api/generate HTTP/1.1") for each in targets),
        *(post("/api/generate", BODY, line) for line in SHADOWS),
    ]


def normalized(port: int, raw: bytes) -> bytes:
    """Remove what differs between runs from a response or a forwarded request."""
    raw = re.sub(rb"\r\n(Date|X-Olla-(Request-ID|Response-Time)): [^\r]*", b"", raw)
    return raw.replace(b":%d" % port, b":PORT")


@pytest.mark.parametrize("make_router", ["fast path"], indirect=True)
async def test_both_request_paths_parse_all_of_these_alike(make_router: MakeRouter) -> None:
    """The client gets the same response, and the endpoint the same bytes."""
    fast, slow = await make_router(), await make_router()
    slow.downstream.server.fast_path = None
    for router in (fast, slow):
        router.endpoints[0].script = answer(OK)
    for one, other in zip(corpus(fast.port), corpus(slow.port), strict=True):
        answers = [normalized(fast.port, await fast.exchange(one))]
        answers += [normalized(slow.port, await slow.exchange(other))]
        assert answers[0] == answers[1], one
        sent = []
        for router in (fast, slow):
            requests = router.endpoints[0].requests
            sent.append(
                [normalized(router.endpoints[0].port, normalized(router.port, x)) for x in requests]
            )
            requests.clear()
        assert sent[0] == sent[1], one
