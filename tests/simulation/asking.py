"""Ways to ask a simulated node."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from olla.simulation.server import SimulatedNode

__all__ = ["ask", "events", "in_background", "lines"]


async def ask(
    http: aiohttp.ClientSession, node: SimulatedNode, path: str, body: object, method: str = "POST"
) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    async with http.request(method, node.url + path, json=body) as answer:
        raw = await answer.read()
        return answer.status, json.loads(raw) if raw else None


async def lines(
    http: aiohttp.ClientSession, node: SimulatedNode, path: str, body: object
) -> list[dict[str, Any]]:
    """The records of an NDJSON stream."""
    async with http.post(node.url + path, json=body) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        assert answer.headers["Transfer-Encoding"] == "chunked"
        return [json.loads(line) async for line in answer.content]


async def events(
    http: aiohttp.ClientSession, node: SimulatedNode, path: str, body: dict[str, Any]
) -> list[tuple[str | None, Any]]:
    """Names and data of a stream of server-sent events."""
    async with http.post(node.url + path, json={**body, "stream": True}) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/event-stream"
        text = (await answer.read()).decode()
    found: list[tuple[str | None, Any]] = []
    for record in text.removesuffix("\n\n").split("\n\n"):
        name = None
        for line in record.split("\n"):
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            else:
                data = line.removeprefix("data: ")
                found.append((name, data if data == "[DONE]" else json.loads(data)))
    return found


@asynccontextmanager
async def in_background(request: Any) -> AsyncIterator["asyncio.Task[aiohttp.ClientResponse]"]:
    """Send a request without waiting for its answer, and hang up at the end."""

    async def awaited() -> aiohttp.ClientResponse:
        response: aiohttp.ClientResponse = await request
        return response

    task = asyncio.create_task(awaited())
    try:
        yield task
    finally:
        task.cancel()
        [result] = await asyncio.gather(task, return_exceptions=True)
        if isinstance(result, aiohttp.ClientResponse):
            result.close()
