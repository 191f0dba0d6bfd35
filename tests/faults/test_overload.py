"""Under overload, new work is rejected with a clear error and running work continues."""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from olla.proxy.bounds.body_budget import STEP
from olla.simulation.server import SimulatedNode
from tests.routers import node_options, settings_text
from tests.waiting import until
from tests.wire.conftest import MODEL, MakeRouter, Router, answer, post, split

BODY = json.dumps({"model": MODEL, "stream": False}).encode()
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"done":true}'
FILES_MAX = 160


@pytest.mark.parametrize("path", ["/api/generate", "/v1/completions"])
async def test_a_connection_over_the_limit_is_rejected_in_the_dialect(
    make_router: MakeRouter, path: str
) -> None:
    """It gets 503 with Retry-After; as soon as another connection closes, a new one is accepted."""
    router = await make_router(connections_max=3)
    router.endpoints[0].script = answer(OK)
    others = [await asyncio.open_connection("127.0.0.1", router.port) for _ in range(3)]
    for reader, writer in others:
        writer.write(post("/api/generate", BODY, close=False))
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
    head, body = split(await router.exchange(post(path, BODY)))
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1" in head
    assert b"server.max_connections" in body
    others[0][1].close()
    await until(lambda: router.downstream.connections <= 2)
    assert (await router.exchange(post(path, BODY))).startswith(b"HTTP/1.1 200 ")
    for _, writer in others:
        writer.close()


def long_request(size: int, framing: str) -> bytes:
    """Build a request whose body has about `size` bytes."""
    body = json.dumps({"model": MODEL, "stream": False, "prompt": "x" * size}).encode()
    if framing == "length":
        return post("/api/generate", body, close=False)
    head = b"POST /api/generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


async def until_budgeted(router: Router, size: int) -> None:
    """Wait until request bodies take exactly `size` bytes of the budget."""
    await until(lambda: router.services.body_budget.taken == size)


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_all_bodies_together_are_bounded(make_router: MakeRouter, framing: str) -> None:
    """A body over the budget gets 503. The budget is free again once another body has been
    forwarded or its client has hung up."""
    router = await make_router(bodies_max=300_000)
    router.endpoints[0].script = answer(OK)
    whole = long_request(200_000, framing)
    _, first = await asyncio.open_connection("127.0.0.1", router.port)
    first.write(whole[:-10])
    await until_budgeted(router, 3 * STEP)
    reader, second = await asyncio.open_connection("127.0.0.1", router.port)
    second.write(whole)
    response = await reader.readuntil(b"}")
    assert response.startswith(b"HTTP/1.1 503 ")
    assert b"server.request_limits.max_buffered_size" in response
    second.close()
    assert (await router.exchange(post("/api/generate", BODY))).startswith(b"HTTP/1.1 200 ")
    first.close()
    await until_budgeted(router, 0)
    close = whole.replace(b"Host: x", b"Host: x\r\nConnection: close", 1)
    close = close.replace(b"Host: olla", b"Host: olla\r\nConnection: close", 1)
    assert (await router.exchange(close)).startswith(b"HTTP/1.1 200 ")
    assert router.services.body_budget.taken == 0


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_announced_bodies_reserve_no_budget(make_router: MakeRouter, framing: str) -> None:
    """Connections that announce more than the budget and send one byte do not block others."""
    router = await make_router(bodies_max=2 << 20)
    router.endpoints[0].script = answer(OK)
    start = long_request(1_000_000, framing).partition(b"{")[0] + b"{"
    idle = [await asyncio.open_connection("127.0.0.1", router.port) for _ in range(11)]
    for _, writer in idle:
        writer.write(start)
    await until(lambda: router.downstream.active >= len(idle))
    long = long_request(900_000, "length").replace(b"Host: olla", b"Host: x\r\nConnection: close")
    assert (await router.exchange(long)).startswith(b"HTTP/1.1 200 ")
    for _, writer in idle:
        writer.close()
    await until(lambda: not router.downstream.active)
    assert router.services.body_budget.taken == 0


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_client_reads_why_its_body_is_rejected(
    make_router: MakeRouter, framing: str
) -> None:
    """This holds also for a client that reads nothing until it has sent everything: the rest of the
    body is discarded, and then the connection is closed."""
    router = await make_router(bodies_max=100_000)
    whole = long_request(900_000, framing)
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    for at in range(0, len(whole), 65536):
        writer.write(whole[at : at + 65536])
        await writer.drain()
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        response = await reader.read()
    assert response.startswith(b"HTTP/1.1 503 ")
    assert b"Connection: close" in response
    assert router.endpoints[0].requests == []
    assert router.services.body_budget.taken == 0
    writer.close()


def few_files() -> None:
    """Limit how many files the process may open."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_MAX, FILES_MAX))


async def test_running_out_of_files_keeps_streams_and_endpoints_healthy(tmp_path: Path) -> None:
    """Hundreds of clients connect to a process that may open few files. No endpoint is marked as
    failed, and afterwards the router works as before."""
    options = node_options("a", (MODEL,), time_scale=1.0, load_bandwidth=1e12)
    config = tmp_path / "olla.yaml"
    async with SimulatedNode(options) as node:
        text = settings_text({"a": node.url}).replace("level: debug", "level: info")
        config.write_text(text.replace("server: {", "server: {max_connections: 10000, "))
        environ = {name: each for name, each in os.environ.items() if not name.startswith("OLLA_")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "olla", "serve", "--config", str(config)),
            stdout=subprocess.PIPE,
            env=environ,
            preexec_fn=few_files,
        )
        assert process.stdout is not None
        try:
            while "url" not in (event := json.loads(await process.stdout.readline())):
                pass
            reading = asyncio.create_task(process.stdout.read())
            await flood(event["url"])
        finally:
            process.send_signal(signal.SIGTERM)
        log = (await reading).decode()
        assert await process.wait() == 0
        assert '"after": "offline"' not in log
        assert '"after": "unhealthy"' not in log


async def flood(url: str) -> None:
    """Open hundreds of connections during a stream; check that the stream ends and the router
    recovers."""
    port = int(url.rsplit(":", 1)[1])
    body = {"model": MODEL, "prompt": "a story", "options": {"num_predict": 120}}
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{url}/api/generate", json=body) as stream:
            first = await stream.content.readline()
            assert b'"done":false' in first
            waiting = [asyncio.create_task(connect_and_ask(port)) for _ in range(300)]
            await asyncio.sleep(0.5)  # time for the clients to use up the files of the process
            rest = await stream.content.read()
            assert b'"done":true' in rest
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

        async def ready() -> bool:
            try:
                async with session.get(f"{url}/internal/ready") as response:
                    return response.status == 200
            except aiohttp.ClientError:
                return False

        await until(ready, 15)  # asyncio pauses accepting for a second
        body["options"] = {"num_predict": 2}
        async with session.post(f"{url}/api/generate", json=body) as response:
            assert response.status == 200
            assert b'"done":true' in await response.read()


async def connect_and_ask(port: int) -> None:
    """Send a request and keep the connection open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(post("/api/generate", BODY, close=False))
        await reader.read()
    except ConnectionError:
        pass
    finally:
        writer.close()
