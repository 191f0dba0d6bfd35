"""Cross-origin and Host policies hold on every kind of path, on both request paths."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from olla.app.options import browser_guard
from olla.proxy.http.cors import EXPOSED
from olla.settings import parse
from tests.access_control.conftest import MODEL, bearer, error_message
from tests.access_control.test_limits import stopped
from tests.routers import Fleet, settings_text
from tests.waiting import until

LOCAL, EVIL = "http://localhost:3000", "https://evil.example"
ASK: dict[str, Any] = {"model": MODEL, "prompt": "hi", "options": {"num_predict": 2}}
WHOLE = {**ASK, "stream": False}
TALK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
KEYED = "access: {require_key: true, keys: [{name: ci, key: static-key-of-ci, operations: [list]}]}"
Row = tuple[str, str, Any, int]
MakeFleet = Callable[..., Awaitable[Fleet]]

ANSWERS: dict[str, Row] = {
    "relayed whole": ("POST", "/api/generate", WHOLE, 200),
    "relayed stream": ("POST", "/api/generate", ASK, 200),
    "events": ("POST", "/v1/chat/completions", {**TALK, "stream": True}, 200),
    "messages": ("POST", "/olla/anthropic/v1/messages", {**TALK, "max_tokens": 2}, 200),
    "an endpoint's error": ("POST", "/api/embed", {"model": MODEL, "input": 7}, 400),
    "forwarded": ("GET", "/olla/ollama/metrics", None, 404),
    "native list": ("GET", "/api/tags", None, 200),
    "loaded": ("GET", "/api/ps", None, 200),
    "openai list": ("GET", "/v1/models", None, 200),
    "anthropic list": ("GET", "/olla/anthropic/v1/models", None, 200),
    "version of ollama": ("GET", "/api/version", None, 200),
    "root": ("HEAD", "/", None, 200),
    "all models": ("GET", "/olla/models", None, 200),
    "health": ("GET", "/internal/health", None, 200),
    "status": ("GET", "/internal/status", None, 200),
    "metrics": ("GET", "/metrics", None, 200),
    "version": ("GET", "/version", None, 200),
    "openapi": ("GET", "/olla/openapi.json", None, 200),
    "page": ("GET", "/admin/playground", None, 200),
    "managed models": ("GET", "/olla/management/models", None, 200),
    "managed chat": ("POST", "/olla/management/chat", TALK, 200),
    "managed stream": ("POST", "/olla/management/chat", {**TALK, "stream": True}, 200),
    "chat service": ("POST", "/chat", {"message": "hi", "model": MODEL}, 200),
    "chat stream": ("POST", "/chat/stream", {"message": "hi", "model": MODEL}, 200),
    "chat status": ("GET", "/api/status", None, 200),
    "no model": ("POST", "/api/generate", {}, 400),
    "unknown model": ("POST", "/v1/chat/completions", {**TALK, "model": "none"}, 404),
    "unknown path": ("POST", "/nowhere", WHOLE, 404),
    "unknown path of olla": ("GET", "/olla/nowhere", None, 404),
    "wrong method": ("DELETE", "/api/tags", None, 405),
    "wrong method of olla": ("DELETE", "/chat", None, 405),
    "bad path": ("GET", "/api/%2e%2e/tags", None, 400),
    "too long": ("POST", "/api/generate", {**WHOLE, "prompt": "x" * 70_000}, 413),
}
"""Method, path, body and expected status of a request for each kind of response."""


@pytest.fixture(params=["auto", "off"], ids=["fast path", "aiohttp"])
async def make_fleet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeFleet]:
    """Provide a function that runs a router over a node; every test runs on both request paths."""
    async with AsyncExitStack() as stack:

        async def make(extra: str = "", server: str = "", **options: object) -> Fleet:
            # No store unless keys are used: opening it takes seconds on a busy machine.
            text = f"store: {{url: 'sqlite:///{tmp_path}/olla.db'}}\n{extra}" if extra else ""
            keys = f"fast_path: {request.param}" + (f", {server}" if server else "")
            fleet = Fleet({"gpu-1": (MODEL,)}, text, keys, **options)
            await stack.enter_async_context(fleet)
            assert (fleet.app.downstream.server.fast_path is None) == (request.param == "off")
            return fleet

        yield make


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Provide a client."""
    async with aiohttp.ClientSession() as client:
        yield client


async def ask(
    session: aiohttp.ClientSession, fleet: Fleet, row: Row, headers: dict[str, str]
) -> tuple[int, "aiohttp.typedefs.CIMultiDictProxy[str]", bytes]:
    """Send a row's request; returns status, headers and body."""
    method, path, body, _ = row
    data = None if body is None else json.dumps(body)
    url = f"{fleet.url}{path}"
    async with session.request(method, _exact(url), data=data, headers=headers) as response:
        return response.status, response.headers, await response.read()


def _exact(url: str) -> Any:
    from yarl import URL

    return URL(url, encoded=True)


def forwarded_targets(fleet: Fleet) -> list[str]:
    """Return the targets of the requests that the node received on behalf of clients."""
    return [seen.target for seen in fleet.nodes["gpu-1"].seen if seen.header("X-Olla-Request-ID")]


def is_allowed(headers: "aiohttp.typedefs.CIMultiDictProxy[str]") -> bool:
    """Return whether a page of `LOCAL` may read the response, with all of olla's headers."""
    if "Access-Control-Allow-Origin" not in headers:
        assert not [name for name in headers if name.lower().startswith("access-control")]
        return False
    assert headers.getall("Access-Control-Allow-Origin") == [LOCAL]
    exposed = headers["Access-Control-Expose-Headers"].lower().split(", ")
    shown = ("x-olla-", "x-ratelimit-", "x-request-id", "request-id", "retry-after", "x-should-")
    assert {name.lower() for name in headers if name.lower().startswith(shown)} <= set(exposed)
    return True


async def test_every_response_follows_the_cors_policy(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """This covers relayed responses, lists, internal APIs, pages and errors. A page of an allowed
    origin can read them all. A foreign page gets 403 and has no effect. Without an Origin there are
    no CORS headers."""
    fleet = await make_fleet(server="request_limits: {max_body_size: 64KB}")
    for name, row in ANSWERS.items():
        status, headers, _ = await ask(session, fleet, row, {"Origin": LOCAL})
        assert status == row[3], name
        assert is_allowed(headers), name
        assert "Origin" in headers.getall("Vary"), name
    before = forwarded_targets(fleet)
    for name, row in ANSWERS.items():
        status, headers, body = await ask(session, fleet, row, {"Origin": EVIL})
        assert status == 403, name
        assert not is_allowed(headers), name
        assert headers.getall("Vary") == ["Origin"], name
        assert row[0] == "HEAD" or b"server.cors.allowed_origins" in body, name
    assert forwarded_targets(fleet) == before
    for name, row in ANSWERS.items():
        status, headers, _ = await ask(session, fleet, row, {})
        assert status == row[3], name
        assert not is_allowed(headers), name
        assert ("Vary" in headers) is (row[0] in ("GET", "HEAD")), name
    await fleet.check_clean()


async def test_a_cors_rejection_has_the_paths_dialect(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """It is recorded once."""
    fleet = await make_fleet()
    for path, dialect in (
        ("/api/chat", "native"),
        ("/v1/chat/completions", "openai"),
        ("/olla/anthropic/v1/messages", "anthropic"),
    ):
        _, _, body = await ask(session, fleet, ("POST", path, TALK, 403), {"Origin": EVIL})
        assert EVIL in error_message(dialect, json.loads(body))
    _, _, body = await ask(session, fleet, ("GET", "/internal/status", None, 403), {"Origin": EVIL})
    assert json.loads(body)["error"]["code"] == "origin_not_allowed"
    async with session.get(f"{fleet.url}/metrics") as response:
        metrics = await response.text()
    row = 'olla_failures_total{kind="origin_not_allowed",origin="client",phase="request"} 4'
    assert row in metrics


async def test_an_allowed_page_can_read_key_and_limit_errors(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """This covers 401, 403 and 429 on relayed and internal paths, with the remaining quota and
    Retry-After."""
    fleet = await make_fleet(KEYED + "\n")
    limits = "access: {tiers: {anonymous: {requests_per_minute: 1}}}"
    limited = await make_fleet(f"{limits}\n")
    stopped(limited.app)
    for path in ("/api/generate", "/v1/chat/completions", "/chat", "/olla/management/chat"):
        row: Row = ("POST", path, WHOLE, 0)
        status, headers, _ = await ask(session, fleet, row, {"Origin": LOCAL})
        assert (status, is_allowed(headers)) == (401, True), path
        key = {"Origin": LOCAL, **bearer("static-key-of-ci")}
        status, headers, _ = await ask(session, fleet, row, key)
        assert (status, is_allowed(headers)) == (403, True), path
    for path in ("/api/tags", "/internal/status"):
        status, headers, _ = await ask(session, fleet, ("GET", path, None, 0), {"Origin": LOCAL})
        if status != 200:
            assert (status, is_allowed(headers)) == (401, True), path
    for row in (ANSWERS["relayed whole"], ANSWERS["chat service"], ANSWERS["native list"]):
        for _ in range(2):
            status, headers, _ = await ask(session, limited, row, {"Origin": LOCAL})
        assert (status, is_allowed(headers)) == (429, True), row
        assert int(headers["Retry-After"]) >= 1
        assert headers["X-RateLimit-Remaining"] == "0"


async def test_an_allowed_page_can_read_errors_without_nodes(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """The first requests get 502, later ones 503, and lists are empty."""
    fleet = await make_fleet()
    await fleet.nodes["gpu-1"].refuse()
    seen = set()
    for row in (ANSWERS["relayed whole"], ANSWERS["events"], ANSWERS["chat service"]):
        status, headers, _ = await ask(session, fleet, row, {"Origin": LOCAL})
        seen.add(status)
        assert is_allowed(headers)
    assert seen <= {502, 503}
    prober = fleet.app.prober
    await until(lambda: not any(view.routable for view in prober.snapshot.endpoints))
    for name in ("relayed whole", "events", "native list", "openai list", "health"):
        status, headers, _ = await ask(session, fleet, ANSWERS[name], {"Origin": LOCAL})
        assert status in (200, 503)
        assert is_allowed(headers), name


def all_paths(fleet: Fleet) -> list[str]:
    """Return every internal path of olla, and one forwarded path of each kind."""
    internal = [path.replace("*", "x") for path in fleet.app.downstream.internal_routes.paths]
    assert len(internal) > 25
    return [
        *internal,
        *("/", "/api/tags", "/api/chat", "/api/generate", "/api/pull", "/api/delete", "/api/ps"),
        *("/v1/models", "/v1/models/x", "/v1/chat/completions", "/v1/messages", "/v1/embeddings"),
        *("/olla/ollama/api/chat", "/olla/openai/v1/models", "/olla/anthropic/v1/messages"),
        *("/olla/vllm/v1/models", "/olla/proxy/api/tags", "/nowhere", "/api/unheard-of"),
        "/api/blobs/sha256:" + "0" * 64,
    ]


async def test_preflights_are_answered_everywhere_with_all_nodes_down(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """They are answered also where keys are required, since a browser cannot send one yet. Nothing
    is forwarded."""
    fleet = await make_fleet(KEYED + "\n")
    await fleet.nodes["gpu-1"].refuse()
    headers = {
        "Origin": LOCAL,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
    }
    for path in all_paths(fleet):
        status, response_headers, body = await ask(
            session, fleet, ("OPTIONS", path, None, 204), headers
        )
        assert (status, body) == (204, b""), path
        assert response_headers["Access-Control-Allow-Origin"] == LOCAL
        assert "POST" in response_headers["Access-Control-Allow-Methods"]
        assert (
            response_headers["Access-Control-Allow-Headers"]
            == headers["Access-Control-Request-Headers"]
        )
        assert response_headers["Access-Control-Max-Age"] == "300"
    foreign = {**headers, "Origin": EVIL}
    for path in all_paths(fleet):
        status, response_headers, _ = await ask(
            session, fleet, ("OPTIONS", path, None, 403), foreign
        )
        assert status == 403, path
        assert not is_allowed(response_headers)
    assert forwarded_targets(fleet) == []


@pytest.mark.parametrize(
    "headers",
    [{"Origin": LOCAL}, {"Access-Control-Request-Method": "POST"}, {}],
    ids=["no method", "no origin", "neither"],
)
async def test_options_without_a_preflight_needs_a_key(
    make_fleet: MakeFleet, session: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    """Only a preflight needs no key."""
    fleet = await make_fleet(KEYED + "\n")
    for path in ("/api/chat", "/v1/models", "/olla/openai/v1/models", "/olla/vllm/x"):
        status, _, _ = await ask(session, fleet, ("OPTIONS", path, None, 0), headers)
        assert status == 401, path
    assert forwarded_targets(fleet) == []


async def test_options_with_a_body_is_not_a_preflight(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """It needs a key, and its body is not read."""
    fleet = await make_fleet(KEYED + "\n")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(fleet.url.rsplit(":", 1)[1]))
    try:
        writer.write(
            b"OPTIONS /api/generate HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:3000"
            b"\r\nAccess-Control-Request-Method: POST\r\nContent-Length: 6000000\r\n\r\n{"
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
        assert fleet.app.services.body_budget.taken == 0
    finally:
        writer.close()
        await writer.wait_closed()


async def test_preflights_count_against_their_address(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """They count like any request without a key, and the page can read the rejection."""
    fleet = await make_fleet("access: {tiers: {anonymous: {requests_per_minute: 2}}}\n")
    stopped(fleet.app)
    headers = {"Origin": LOCAL, "Access-Control-Request-Method": "POST"}
    row: Row = ("OPTIONS", "/api/generate", None, 0)
    answers = [await ask(session, fleet, row, headers) for _ in range(3)]
    assert [status for status, _, _ in answers] == [204, 204, 429]
    assert is_allowed(answers[2][1])


REBOUND = {"Host": "evil.example:40114", "Origin": "http://evil.example:40114"}


async def test_a_foreign_host_is_rejected_everywhere(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """This blocks DNS rebinding, with and without an Origin, for every method and path."""
    fleet = await make_fleet(server="allowed_hosts: []")
    for headers in (REBOUND, {"Host": "evil.example"}):
        for path in all_paths(fleet):
            for method in ("GET", "POST", "DELETE", "OPTIONS"):
                row: Row = (method, path, {} if method == "POST" else None, 403)
                status, response_headers, body = await ask(session, fleet, row, headers)
                assert status == 403, (method, path)
                assert b"server.allowed_hosts" in body
                assert not is_allowed(response_headers)
        for name, row in ANSWERS.items():
            status, _, _ = await ask(session, fleet, row, headers)
            assert status == 403, name
    assert forwarded_targets(fleet) == []
    for host in ("localhost:40114", "127.0.0.1", "[::1]:40114", "box.local"):
        status, _, _ = await ask(session, fleet, ANSWERS["relayed whole"], {"Host": host})
        assert status == 200


@pytest.mark.parametrize("names", ["[llm.example]", "['*.example']"])
async def test_a_proxy_may_forward_its_host_name(
    make_fleet: MakeFleet, session: aiohttp.ClientSession, names: str
) -> None:
    """The configuration must list the name. Pages of that name are then same-origin, although
    browsers reach the proxy over TLS; other pages stay foreign."""
    fleet = await make_fleet(server=f"allowed_hosts: {names}")
    for origin, expected in ((None, 200), ("https://llm.example", 200), (EVIL, 403)):
        headers = {"Host": "llm.example"} | ({"Origin": origin} if origin else {})
        for name in ("relayed whole", "native list", "page"):
            status, response_headers, _ = await ask(session, fleet, ANSWERS[name], headers)
            assert (status, is_allowed(response_headers)) == (expected, False), (origin, name)


async def test_trusting_a_proxy_does_not_allow_its_hosts(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """A browser on the proxy's machine has the proxy's address, even on a foreign page."""
    fleet = await make_fleet("access: {trusted_proxies: [127.0.0.1]}\n")
    for headers in ({}, {"Origin": "http://evil.example", "X-Forwarded-Host": "evil.example"}):
        response_headers = {"Host": "evil.example", **headers}
        for name in ("relayed whole", "native list", "page"):
            assert (await ask(session, fleet, ANSWERS[name], response_headers))[0] == 403


async def test_x_forwarded_host_counts_from_a_trusted_proxy_only(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """It names the host that a page must come from to be same-origin."""
    headers = {"Origin": "https://llm.example", "X-Forwarded-Host": "llm.example"}
    trusting = await make_fleet("access: {trusted_proxies: [127.0.0.0/8]}\n")
    wary = await make_fleet()
    for name in ("relayed whole", "native list"):
        assert (await ask(session, trusting, ANSWERS[name], headers))[0] == 200
        assert (await ask(session, wary, ANSWERS[name], headers))[0] == 403


async def test_with_cors_disabled_only_same_origin_pages_are_allowed(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """`allowed_origins` has no effect then, and no CORS headers are sent."""
    fleet = await make_fleet(server="cors: {enabled: false, allowed_origins: ['*']}")
    for origin, expected in ((LOCAL, 403), (EVIL, 403), (fleet.url, 200)):
        for name in ("relayed whole", "native list", "page", "chat service"):
            status, response_headers, _ = await ask(
                session, fleet, ANSWERS[name], {"Origin": origin}
            )
            assert (status, is_allowed(response_headers)) == (expected, False), (origin, name)


async def test_a_reloaded_policy_applies_to_the_next_request(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """It applies to request heads that were parsed before, too."""
    fleet = await make_fleet()
    urls = {"gpu-1": fleet.nodes["gpu-1"].url}
    for origins, expected in ((None, (200, 403)), (EVIL, (403, 200)), (LOCAL, (200, 403))):
        if origins is not None:
            server = f"{fleet.server}, cors: {{allowed_origins: ['{origins}']}}"
            await fleet.app.reload(parse(settings_text(urls, fleet.extra, server), {}))
        for origin, status in zip((LOCAL, EVIL), expected, strict=True):
            answer = await ask(session, fleet, ANSWERS["relayed whole"], {"Origin": origin})
            assert answer[0] == status


async def test_a_router_on_a_public_address_accepts_every_host(
    make_fleet: MakeFleet, session: aiohttp.ClientSession
) -> None:
    """Its operator chooses the names; foreign origins are still rejected."""
    fleet = await make_fleet(server="allowed_hosts: []")
    guard = browser_guard(fleet.app.settings, host_name="box", on_loopback=False)
    fleet.app.downstream.use(msgspec.structs.replace(fleet.app.config, guard=guard))
    for origin, expected in ((None, 200), (EVIL, 403)):
        headers = {"Host": "llm.example"} | ({"Origin": origin} if origin else {})
        status, _, _ = await ask(session, fleet, ANSWERS["relayed whole"], headers)
        assert status == expected


def test_every_header_that_olla_adds_is_exposed() -> None:
    """The list of exposed headers contains all that the source names."""
    import re

    root = Path(__file__).parents[2] / "olla"
    named = set()
    for file in root.rglob("*.py"):
        named |= set(re.findall(r'"(X-(?:Olla|RateLimit)-[A-Za-z-]+)"', file.read_text()))
        named |= set(re.findall(r'b?"(X-(?:Olla|RateLimit)-[A-Za-z-]+): ', file.read_text()))
    requests = {"X-Olla-Explain"}
    assert {name for name in named if not name.endswith("-")} - requests <= set(EXPOSED)
