"""Behind real reverse proxies, with their defaults and as docs/security.md has them.

A proxy on the router's own machine must give nobody a right, pass streams on as they come, let
the client see that an answer broke, and let the node see that the client left.
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
STRANGER = [
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
    """One record of a stream, in a chunk of its own."""
    line = json.dumps({"model": MODEL, "response": text, "done": False}).encode() + b"\n"
    return b"%x\r\n%b\r\n" % (len(line), line)


@asynccontextmanager
async def behind(
    kind: str, folder: Path, script: Script, extra: str | None = None
) -> AsyncIterator[tuple[Proxy, App, ScriptedOllama, aiohttp.ClientSession]]:
    """A client, a proxy of a kind, a router, and a node that answers as the script says."""
    settings = (ACCESS % folder) if extra is None else extra
    async with scripted(script, settings) as (app, node):
        port = int(app.url.rpartition(":")[2])
        async with (
            started(kind, port, folder) as proxy,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as client,
        ):
            yield proxy, app, node, client


async def nothing(writer: asyncio.StreamWriter) -> None:
    """A node that ends without a word."""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", PROXIES)
async def test_a_stranger_has_no_right_where_keys_are_required(kind: str, tmp_path: Path) -> None:
    """Whatever the proxy does with Host and X-Forwarded-For, without a key there is a 401."""
    async with behind(kind, tmp_path, nothing) as (proxy, _, node, client):
        for method, path, body in STRANGER:
            for forwarded in ({}, {"X-Forwarded-For": ""}, {"X-Forwarded-For": "127.0.0.1"}):
                async with client.request(
                    method, proxy.url + path, json=body, headers=forwarded
                ) as response:
                    assert response.status == 401, (method, path, await response.text())
        assert node.asked == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", PROXIES)
async def test_a_stranger_cannot_manage_an_open_router(kind: str, tmp_path: Path) -> None:
    """Without any setting, inference and lists are open; nodes, keys and usage are not."""
    extra = f"store: {{url: 'sqlite:///{tmp_path}/olla.db'}}\n"
    async with behind(kind, tmp_path, nothing, extra) as (proxy, _, _, client):
        for method, path, body in STRANGER:
            if path in ("/api/generate", "/api/tags", "/internal/status", "/metrics"):
                continue
            async with client.request(method, proxy.url + path, json=body) as response:
                assert response.status in (401, 403), (method, path, await response.text())
        async with client.get(f"{proxy.url}/api/tags") as response:
            assert response.status == 200


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", PROXIES)
async def test_a_stream_comes_in_pieces(kind: str, tmp_path: Path) -> None:
    """The node goes on only when the client has what came before."""
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
async def test_the_client_sees_that_an_answer_broke(kind: str, tmp_path: Path) -> None:
    """The node dies in the middle of a stream: the client gets the error record, and no clean
    end where the proxy can tell it."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + record("half"))
        await writer.drain()
        writer.transport.abort()

    async with (
        behind(kind, tmp_path, script) as (proxy, _, _, client),
        client.post(f"{proxy.url}/api/generate", json=ASK, headers=USER) as response,
    ):
        came = b""
        broken = False
        try:
            async for piece in response.content.iter_any():
                came += piece
        except aiohttp.ClientError:
            broken = True
        lines = [json.loads(line) for line in came.splitlines() if line]
        assert broken or not proxy.cuts
        assert lines[0]["response"] == "half"
        assert "error" in lines[-1]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", PROXIES)
async def test_a_client_that_leaves_frees_the_node(kind: str, tmp_path: Path) -> None:
    """The proxy hangs up, so the router does."""
    gone = asyncio.Event()

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        try:
            while True:
                writer.write(record("word " * 100))
                await writer.drain()
                await asyncio.sleep(0.005)
        except ConnectionError:
            gone.set()

    async with behind(kind, tmp_path, script) as (proxy, app, _, client):
        async with client.post(f"{proxy.url}/api/generate", json=ASK, headers=USER) as response:
            await response.content.readline()
            response.close()
        async with asyncio.timeout(20):
            await gone.wait()
            while app.dispatcher.leases:
                await asyncio.sleep(0.01)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", [kind for kind in PROXIES if "documented" in kind])
async def test_limits_by_address_count_the_client(kind: str, tmp_path: Path) -> None:
    """As documented, the proxy tells the client's address, and the client cannot tell another."""
    extra = (
        "access: {trusted_proxies: ['127.0.0.1/32'], tiers: {anonymous: {requests_per_minute: 2}}}"
    )
    async with behind(kind, tmp_path, nothing, extra) as (proxy, _, _, _):
        statuses = []
        for client_address, told in (
            ("127.0.0.2", "198.51.100.7"),
            ("127.0.0.2", "127.0.0.1, 198.51.100.8"),
            ("127.0.0.2", "198.51.100.9"),
            ("127.0.0.3", "127.0.0.2"),
        ):
            connector = aiohttp.TCPConnector(ssl=False, local_addr=(client_address, 0))
            async with (
                aiohttp.ClientSession(connector=connector) as client,
                client.get(
                    f"{proxy.url}/api/version", headers={"X-Forwarded-For": told}
                ) as response,
            ):
                statuses.append(response.status)
        assert statuses == [200, 200, 429, 200]
