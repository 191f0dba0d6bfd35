"""Usage and limits do not depend on whether a node's proxy compresses its responses."""

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


def response_bytes(coding: str, stream: bool) -> bytes:
    """Build a response of 1,200 tokens, after which the connection closes."""
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
async def test_a_token_limit_counts_compressed_responses_alike(coding: str, stream: bool) -> None:
    """With 1,200 tokens each, three requests start within a limit of 3,000 a minute, for either
    coding."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(response_bytes(coding, stream))

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
            metrics = await response.text()
        tokens = [line for line in metrics.splitlines() if line.startswith("olla_tokens_total{")]
        assert sorted(float(line.rpartition(" ")[2]) for line in tokens) == [1500.0, 2100.0]


@pytest.mark.parametrize("path", ["/chat", "/chat/stream"])
async def test_the_chat_service_decodes_compressed_responses(path: str) -> None:
    """Its clients get the same text as from a node without compression."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(response_bytes("gzip", path == "/chat/stream"))

    async with scripted(script) as (app, _), aiohttp.ClientSession() as session:
        body = {"message": "hi", "model": MODEL}
        async with session.post(app.url + path, json=body) as response:
            assert response.status == 200
            assert "Hello" in await response.text()
