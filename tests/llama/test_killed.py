"""Real llama.cpp servers are killed or stopped while they answer."""

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from olla.app import App
from olla.settings import parse

Start = Callable[[], tuple[str, subprocess.Popen[str]]]
PATH = "/olla/openai/v1/completions"
ENDLESS: dict[str, Any] = {
    "model": "tiny-random",
    "prompt": "hello there",
    "stream": True,
    "max_tokens": 2000,
    "logit_bias": [[2, False]],
    "logprobs": 200,
}
"""Thirty megabytes, more than all buffers hold: it cannot end while the client does not read."""
SHORT = {"model": "tiny-random", "prompt": "hello", "max_tokens": 3}


@asynccontextmanager
async def router(addresses: list[str], extra: str = "") -> AsyncIterator[App]:
    """Run a router over the servers, the first preferred; check that nothing leaks afterwards."""
    endpoints = [
        {"name": f"cpp-{at}", "url": url, "type": "llamacpp", "priority": 100 - at}
        for at, url in enumerate(addresses)
    ]
    text = f"""
    server: {{host: 127.0.0.1, port: 0}}
    proxy: {{load_balancer: priority{extra}}}
    discovery: {{static: {{endpoints: {json.dumps(endpoints)}}}}}
    """
    app = App(parse(text, {}))
    await app.start()
    await app.prober.first_pass()
    try:
        yield app
    finally:
        await app.stop()
    assert app.dispatcher.leases == 0
    assert app.pool.open == 0


async def begin_stream(app: App) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Request an endless stream over a raw connection, and read its first record."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(app.url).port)
    body = json.dumps(ENDLESS).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    await reader.readuntil(b"data: ")
    return reader, writer


async def short(app: App) -> tuple[int, str]:
    """Request a short response; returns its status and endpoint."""
    url = f"{app.url}{PATH}"
    async with aiohttp.ClientSession() as session, session.post(url, json=SHORT) as response:
        await response.read()
        return response.status, response.headers.get("X-Olla-Endpoint", "")


async def test_killing_a_server_within_a_stream_breaks_the_stream(start_llama: Start) -> None:
    """The client gets an error in its dialect and a closed connection, without a clean end."""
    address, process = start_llama()
    async with router([address]) as app:
        reader, writer = await begin_stream(app)
        process.kill()
        rest = await reader.read()
        writer.close()
        assert b'data: {"error":' in rest
        assert b"data: [DONE]" not in rest
        assert not rest.endswith(b"0\r\n\r\n")


async def test_after_a_kill_the_other_server_answers(start_llama: Start) -> None:
    """No request fails after its server was killed, although an idle connection to it is pooled."""
    (first, process), (second, _) = start_llama(), start_llama()
    async with router([first, second]) as app:
        assert await short(app) == (200, "cpp-0")
        process.kill()
        process.wait()
        for _ in range(5):
            assert await short(app) == (200, "cpp-1")


async def test_a_stopped_server_times_out_and_fails_over(start_llama: Start) -> None:
    """It accepts connections and sends nothing: after the timeout another server answers."""
    (first, process), (second, _) = start_llama(), start_llama()
    async with router([first, second], ", response_header_timeout: 200ms") as app:
        process.send_signal(signal.SIGSTOP)
        try:
            assert await short(app) == (200, "cpp-1")
        finally:
            process.send_signal(signal.SIGCONT)
