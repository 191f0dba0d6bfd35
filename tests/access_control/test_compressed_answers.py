"""A node whose proxy compresses answers costs its callers the same tokens."""

import asyncio
import gzip
import json

import aiohttp
import pytest

from tests.scripted_ollama import MODEL, scripted

LIMITS = "access: {tiers: {anonymous: {tokens_per_minute: 3000}}}\n"
LINES = [
    {"model": MODEL, "response": "Hello", "done": False},
    {"model": MODEL, "response": "", "done": True, "prompt_eval_count": 700, "eval_count": 500},
]


def answered(coding: str, stream: bool) -> bytes:
    """An answer of 1,200 tokens, after which the connection closes."""
    kind = "application/x-ndjson" if stream else "application/json"
    lines = LINES if stream else [{**LINES[1], "response": "Hello"}]
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    field = ""
    if coding == "gzip":
        body, field = gzip.compress(body), "Content-Encoding: gzip\r\n"
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{field}Content-Length: {len(body)}"
    return f"{head}\r\nConnection: close\r\n\r\n".encode() + body


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_a_limit_on_tokens_bites_the_same(coding: str, stream: bool) -> None:
    """1,200 tokens each of 3,000 a minute: three requests, whatever the node makes of them."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(answered(coding, stream))

    async with scripted(script, LIMITS) as (app, _), aiohttp.ClientSession() as session:
        body = {"model": MODEL, "prompt": "x", "stream": stream, "options": {"num_predict": 10}}
        statuses = []
        for _ in range(5):
            async with session.post(f"{app.url}/api/generate", json=body) as response:
                statuses.append(response.status)
                text = await response.text()
                assert response.status == 429 or "Hello" in text
        assert statuses == [200, 200, 200, 429, 429]
        async with session.get(f"{app.url}/metrics") as response:
            counted = await response.text()
        tokens = [line for line in counted.splitlines() if line.startswith("olla_tokens_total{")]
        assert sorted(float(line.rpartition(" ")[2]) for line in tokens) == [1500.0, 2100.0]


@pytest.mark.parametrize("path", ["/chat", "/chat/stream"])
async def test_the_chat_service_reads_them_too(path: str) -> None:
    """Its clients get what they get from a plain node."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(answered("gzip", path == "/chat/stream"))

    async with scripted(script) as (app, _), aiohttp.ClientSession() as session:
        body = {"message": "hi", "model": MODEL}
        async with session.post(app.url + path, json=body) as response:
            assert response.status == 200
            assert "Hello" in await response.text()
