"""A request as aiohttp has parsed it."""

import aiohttp
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from olla.proxy.bounds.body_budget import BodyBudget, BodyCharge
from olla.proxy.bounds.client_timeouts import ClientTimeouts
from olla.proxy.http.request import read_body
from olla.proxy.server.aiohttp_request import AiohttpRequest


async def unlimited(length: int | None) -> None:
    """No limit holds."""


async def test_it_is_what_the_client_sent() -> None:
    """Method, target as it came, path without query, peer, headers, body in either way."""
    seen: list[tuple[object, ...]] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        incoming = AiohttpRequest(request, "127.0.0.1", ClientTimeouts())
        charge = BodyCharge(BodyBudget(1 << 30, 1 << 30), "addr:1")
        body = await read_body(incoming, 1_000_000, charge, unlimited)
        seen.append((incoming.method, incoming.target, incoming.path, incoming.peer, body))
        assert incoming.header("x-a") == "1"
        assert (b"X-A", b"1") in incoming.headers
        assert incoming.has_body
        return web.Response()

    async with RawTestServer(handler) as server, aiohttp.ClientSession() as session:
        for body in (b"small", b"l" * 500_000):
            url = server.make_url("/api/chat?x=%20")
            async with session.post(url, data=body, headers={"X-A": "1"}) as response:
                assert response.status == 200
            assert seen.pop() == ("POST", "/api/chat?x=%20", "/api/chat", "127.0.0.1", body)
