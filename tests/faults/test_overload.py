"""Too much of everything: new work is refused with a clear answer, what runs goes on."""

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

from olla.simulation.server import SimulatedNode
from tests.routers import node_options, settings_text
from tests.wire.conftest import MODEL, MakeRouter, answer, post, split

BODY = json.dumps({"model": MODEL, "stream": False}).encode()
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"done":true}'
FILES_MAX = 160


@pytest.mark.parametrize("path", ["/api/generate", "/v1/completions"])
async def test_a_connection_too_many_is_told_in_the_dialect(
    make_router: MakeRouter, path: str
) -> None:
    """503 with when to come again; as soon as another one closes there is room."""
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
    async with asyncio.timeout(5):
        while router.downstream.connections > 2:
            await asyncio.sleep(0.005)
    assert (await router.exchange(post(path, BODY))).startswith(b"HTTP/1.1 200 ")
    for _, writer in others:
        writer.close()


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_bodies_have_a_ceiling_all_together(make_router: MakeRouter, framing: str) -> None:
    """One more gets 503, and there is room again when one has been passed on or has left."""
    router = await make_router(bodies_max=300_000)
    router.endpoints[0].script = answer(OK)
    long = json.dumps({"model": MODEL, "stream": False, "prompt": "x" * 200_000}).encode()
    if framing == "chunks":
        head = b"POST /api/generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        whole = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(long), long)
    else:
        whole = post("/api/generate", long, close=False)
    _, first = await asyncio.open_connection("127.0.0.1", router.port)
    first.write(whole[:-10])
    async with asyncio.timeout(5):
        while router.stations.room.taken < 200_000:
            await asyncio.sleep(0.005)
    reader, second = await asyncio.open_connection("127.0.0.1", router.port)
    second.write(whole)
    told = await reader.readuntil(b"}")
    assert told.startswith(b"HTTP/1.1 503 ")
    assert b"server.request_limits.max_buffered_size" in told
    second.close()
    assert (await router.exchange(post("/api/generate", BODY))).startswith(b"HTTP/1.1 200 ")
    first.close()
    async with asyncio.timeout(5):
        while router.stations.room.taken:
            await asyncio.sleep(0.005)
    assert (await router.exchange(post("/api/generate", long))).startswith(b"HTTP/1.1 200 ")
    assert router.stations.room.taken == 0


def few_files() -> None:
    """Let the process open only so many files, and not raise that."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_MAX, FILES_MAX))


async def test_when_files_run_out_streams_go_on_and_endpoints_stay_healthy(tmp_path: Path) -> None:
    """Hundreds of clients on a process that may open a few files: none of it is the endpoint's
    fault, and afterwards all is as before."""
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
    """A stream is running; hundreds connect; the stream goes on, and later all is well."""
    port = int(url.rsplit(":", 1)[1])
    body = {"model": MODEL, "prompt": "a story", "options": {"num_predict": 120}}
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{url}/api/generate", json=body) as stream:
            first = await stream.content.readline()
            assert b'"done":false' in first
            waiting = [asyncio.create_task(connect_and_ask(port)) for _ in range(300)]
            await asyncio.sleep(0.5)
            rest = await stream.content.read()
            assert b'"done":true' in rest
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        async with asyncio.timeout(15):
            while True:  # whoever accepts may pause for a second
                try:
                    async with session.get(f"{url}/internal/ready") as response:
                        if response.status == 200:
                            break
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.1)
        body["options"] = {"num_predict": 2}
        async with session.post(f"{url}/api/generate", json=body) as response:
            assert response.status == 200
            assert b'"done":true' in await response.read()


async def connect_and_ask(port: int) -> None:
    """A client that asks and stays."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(post("/api/generate", BODY, close=False))
        await reader.read()
    except ConnectionError:
        pass
    finally:
        writer.close()
