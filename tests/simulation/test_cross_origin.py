"""The simulated node treats web pages as Ollama does."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from olla.simulation.server import SimulatedNode
from tests.routers import node_options

LOCAL, EVIL = "http://localhost:3000", "https://evil.example"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def node() -> AsyncIterator[SimulatedNode]:
    """A node with a model."""
    async with SimulatedNode(node_options("n", ("m:latest",))) as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A client."""
    async with aiohttp.ClientSession() as client:
        yield client


@pytest.mark.parametrize("origin", [LOCAL, "https://127.0.0.1", "tauri://localhost", "file://"])
async def test_a_page_that_ollama_allows_may_read_answers(
    origin: str, node: SimulatedNode, session: aiohttp.ClientSession
) -> None:
    """Lists, streams and errors."""
    headers = {"Origin": origin}
    for path, body, status in (
        ("/api/tags", None, 200),
        ("/api/chat", CHAT, 200),
        ("/api/chat", {}, 400),
        ("/nowhere", None, 404),
    ):
        method = "GET" if body is None else "POST"
        url = node.url + path
        async with session.request(method, url, json=body, headers=headers) as response:
            assert response.status == status
            assert response.headers["Access-Control-Allow-Origin"] == origin
            assert response.headers["Vary"] == "Origin"


@pytest.mark.parametrize("origin", [EVIL, "null", "http://localhost.evil.example"])
async def test_another_page_gets_an_empty_403(
    origin: str, node: SimulatedNode, session: aiohttp.ClientSession
) -> None:
    """Before anything is done for it, and also when it asks what it may."""
    for method in ("POST", "OPTIONS"):
        url = f"{node.url}/api/chat"
        async with session.request(method, url, json=CHAT, headers={"Origin": origin}) as response:
            assert (response.status, await response.read()) == (403, b"")
            assert "Access-Control-Allow-Origin" not in response.headers
    assert node.tokens_generated == 0


async def test_its_own_page_needs_no_leave(
    node: SimulatedNode, session: aiohttp.ClientSession
) -> None:
    """The origin is the host that was asked for: no CORS request at all."""
    headers = {"Origin": node.url, "Host": node.url.removeprefix("http://")}
    async with session.get(f"{node.url}/api/tags", headers=headers) as response:
        assert response.status == 200
        assert "Access-Control-Allow-Origin" not in response.headers


async def test_preflights_are_answered_on_every_path(
    node: SimulatedNode, session: aiohttp.ClientSession
) -> None:
    """With 204, and with Ollama's list of headers, which has no `X-API-Key`."""
    headers = {"Origin": LOCAL, "Access-Control-Request-Method": "POST"}
    for path in ("/api/chat", "/nowhere"):
        async with session.options(node.url + path, headers=headers) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Origin"] == LOCAL
            allowed = response.headers["Access-Control-Allow-Headers"].lower().split(",")
            assert "authorization" in allowed
            assert "x-stainless-retry-count" in allowed
            assert "x-api-key" not in allowed


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:11434", 200),
        ("gpu.internal", 200),
        ("192.168.1.5:11434", 200),
        ("evil.example", 403),
        ("attacker", 403),
        ("8.8.8.8", 403),
    ],
)
async def test_a_foreign_host_is_403(
    host: str, status: int, node: SimulatedNode, session: aiohttp.ClientSession
) -> None:
    """As on a real server that listens on loopback."""
    async with session.get(f"{node.url}/api/tags", headers={"Host": host}) as response:
        assert response.status == status
