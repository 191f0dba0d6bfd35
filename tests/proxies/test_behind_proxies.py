"""olla behind real reverse proxies, with their defaults and as docs/security.md documents them.

A proxy on the router's machine must grant no rights and forward streams without buffering. The
client must see that a response broke, and the node that the client hung up.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from olla.app import App
from tests.proxies.conftest import PROXIES, Proxy, started
from tests.scripted_ollama import MODEL, Script, ScriptedOllama, scripted
from tests.waiting import until

ACCESS = """
access:
  require_key: true
  trusted_proxies: ["127.0.0.0/8"]
  keys:
    - {name: user, key: a-key-for-inference, operations: [generate, list]}
store: {url: 'sqlite:///%s/olla.db'}
"""
USER = {"Authorization": "Bearer a-key-for-inference"}
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
)
ASK = {"model": MODEL, "prompt": "x"}
PROTECTED = [
    ("POST", "/olla/management/api-keys", {"name": "x", "operations": ["admin"]}),
    ("POST", "/api/keys?user_id=x", {}),
    ("GET", "/olla/management/api-keys", None),
    ("GET", "/api/usage", None),
    ("GET", "/internal/status", None),
    ("GET", "/metrics", None),
    ("DELETE", "/api/delete", {"model": MODEL}),
    ("POST", "/api/pull", {"model": "other"}),
    ("POST", "/api/generate", ASK),
    ("GET", "/api/tags", None),
]


def record(text: str) -> bytes:
    """Build a stream's record as one chunk."""
    line = json.dumps({"model": MODEL, "response": text, "done": False}).encode() + b"\n"
    return b"%x\r\n%b\r\n" % (len(line), line)


@asynccontextmanager
async def behind(
    kind: str, folder: Path, script: Script, extra: str | None = None
) -> AsyncIterator[tuple[Proxy, App, ScriptedOllama, aiohttp.ClientSession]]:
    """Run a client, a proxy of a kind, a router, and a node with the script."""
    settings = (ACCESS % folder) if extra is None else extra
    async with scripted(script, settings) as (app, node):
        port = int(app.url.rpartition(":")[2])
        async with (
            started(kind, port, folder) as proxy,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as client,
        ):
            yield proxy, app, node, client


async def close_silently(writer: asyncio.StreamWriter) -> None:
    """Close the connection without a response."""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", PROXIES)
async def test_requests_without_a_key_are_rejected(kind: str, tmp_path: Path) -> None:
    """They get 401, however the proxy sets Host and X-Forwarded-For."""
    async with behind(kind, tmp_path, close_silently) as (proxy, _, node, client):
        for method, path, body in PROTECTED:
            for forwarded in ({}, {"X-Forwarded-For": ""}, {"X-Forwarded-For": "127.0.0.1"}):
                async with client.request(
                    method, proxy.url + path, json=body, headers=forwarded
                ) as response:
                    assert response.status == 401, (method, path, await response.text())
        assert node.asked == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", PROXIES)
async def test_an_open_router_cannot_be_managed_without_a_key(kind: str, tmp_path: Path) -> None:
    """By default inference and lists are open; nodes, keys and usage are not."""
    extra = f"store: {{url: 'sqlite:///{tmp_path}/olla.db'}}\n"
    async with behind(kind, tmp_path, close_silently, extra) as (proxy, _, _, client):
        for method, path, body in PROTECTED:
            if path in ("/api/generate", "/api/tags", "/internal/status", "/metrics"):
                continue
            async with client.request(method, proxy.url + path, json=body) as response:
                assert response.status in (401, 403), (method, path, await response.text())
        async with client.get(f"{proxy.url}/api/tags") as response:
            assert response.status == 200


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", PROXIES)
async def test_a_stream_is_not_buffered(kind: str, tmp_path: Path) -> None:
    """The node continues only once the client has received the previous record."""
    seen = asyncio.Semaphore(0)

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for word in ("one", "two", "three"):
            writer.write(record(word))
            await writer.drain()
            async with asyncio.timeout(20):
                await seen.acquire()
        last = json.dumps({"model": MODEL, "response": "", "done": True}).encode() + b"\n"
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last))

    async with (
        behind(kind, tmp_path, script) as (proxy, _, _, client),
        client.post(f"{proxy.url}/api/generate", json=ASK, headers=USER) as response,
    ):
        assert response.status == 200
        words = []
        async for line in response.content:
            words.append(json.loads(line)["response"])
            seen.release()
        assert words == ["one", "two", "three", ""]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", PROXIES)
async def test_the_client_sees_that_a_response_broke(kind: str, tmp_path: Path) -> None:
    """The node dies within a stream. The client gets the error record, and no clean end if the
    proxy can forward that."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + record("half"))
        await writer.drain()
        writer.transport.abort()

    async with (
        behind(kind, tmp_path, script) as (proxy, _, _, client),
        client.post(f"{proxy.url}/api/generate", json=ASK, headers=USER) as response,
    ):
        received = b""
        broken = False
        try:
            async for piece in response.content.iter_any():
                received += piece
        except aiohttp.ClientError:
            broken = True
        lines = [json.loads(line) for line in received.splitlines() if line]
        assert broken or not proxy.preserves_breaks
        assert lines[0]["response"] == "half"
        assert "error" in lines[-1]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", PROXIES)
async def test_a_client_that_hangs_up_frees_the_node(kind: str, tmp_path: Path) -> None:
    """The proxy closes its connection, and then the router does."""
    hung_up = asyncio.Event()

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        try:
            while True:
                writer.write(record("word " * 100))
                await writer.drain()
                await asyncio.sleep(0.005)
        except ConnectionError:
            hung_up.set()

    async with behind(kind, tmp_path, script) as (proxy, app, _, client):
        async with client.post(f"{proxy.url}/api/generate", json=ASK, headers=USER) as response:
            await response.content.readline()
            response.close()
        async with asyncio.timeout(20):
            await hung_up.wait()
        await until(lambda: not app.dispatcher.leases)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", [kind for kind in PROXIES if "documented" in kind])
async def test_limits_by_address_count_the_client(kind: str, tmp_path: Path) -> None:
    """As documented, the proxy forwards the client's address, and the client cannot fake
    another."""
    extra = (
        "access: {trusted_proxies: ['127.0.0.1/32'], tiers: {anonymous: {requests_per_minute: 2}}}"
    )
    async with behind(kind, tmp_path, close_silently, extra) as (proxy, _, _, _):
        statuses = []
        for client_address, forwarded in (
            ("127.0.0.2", "198.51.100.7"),
            ("127.0.0.2", "127.0.0.1, 198.51.100.8"),
            ("127.0.0.2", "198.51.100.9"),
            ("127.0.0.3", "127.0.0.2"),
        ):
            connector = aiohttp.TCPConnector(ssl=False, local_addr=(client_address, 0))
            async with (
                aiohttp.ClientSession(connector=connector) as client,
                client.get(
                    f"{proxy.url}/api/version", headers={"X-Forwarded-For": forwarded}
                ) as response,
            ):
                statuses.append(response.status)
        assert statuses == [200, 200, 429, 200]
