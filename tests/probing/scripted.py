"""A server with scripted answers, and endpoint specs that lead to it."""

import asyncio
from collections import Counter
from typing import Any

from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from olla.fleet.endpoint import EndpointSpec

__all__ = ["HANG", "OLLAMA", "ScriptedServer", "endpoint", "model_list"]

HANG = object()
"""Marks a request that is never answered."""

Answer = Any
"""A status, a JSON value, a string, bytes, HANG, (status, body, headers), or a future of one."""


def model_list(*names: str) -> dict[str, Any]:
    """Return a body of `/api/tags` or `/api/ps`."""
    return {"models": [{"name": name, "digest": f"digest of {name}"} for name in names]}


OLLAMA: dict[str, Answer] = {
    "/": "Ollama is running",
    "/api/version": {"version": "0.12.0"},
    "/api/tags": model_list("m:latest"),
    "/api/ps": model_list(),
}
"""A healthy Ollama with one model."""


def endpoint(url: str, name: str = "e", **more: Any) -> EndpointSpec:
    """Return an endpoint that is probed only on request: its interval is a minute."""
    more.setdefault("type", "ollama")
    more.setdefault("check_interval", 60.0)
    more.setdefault("check_timeout", 5.0)
    parts = URL(url)
    assert parts.host is not None
    assert parts.port is not None
    return EndpointSpec(
        name=name, host=parts.host, port=parts.port, authority=parts.authority, **more
    )


class ScriptedServer:
    """Answers GETs from `answers`, and others with 404. Runs while the context is open."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers = dict(answers)
        self.request_counts: Counter[str] = Counter()
        """Number of requests by path."""
        self.headers: CIMultiDict[str] = CIMultiDict()
        """Headers of the last request."""
        self.arrived = asyncio.Condition()
        self.url = ""
        self._port = 0

    async def __aenter__(self) -> "ScriptedServer":
        await self.accept()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.refuse()

    async def accept(self) -> None:
        """Listen; after `refuse`, on the same port as before."""
        self._runner = web.ServerRunner(
            web.Server(self._answer, handler_cancellation=True), shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def refuse(self) -> None:
        """Close all connections, and refuse new ones."""
        await self._runner.cleanup()

    async def wait_for_requests(self, path: str, times: int = 1) -> None:
        """Wait until a path was requested a number of times."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: self.request_counts[path] >= times)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        async with self.arrived:
            self.request_counts[request.path] += 1
            self.headers = CIMultiDict(request.headers)
            self.arrived.notify_all()
        answer = self.answers.get(request.path, 404)
        if answer is HANG:
            await asyncio.Event().wait()
        if isinstance(answer, asyncio.Future):
            answer = await asyncio.shield(answer)
        status, body, headers = answer if isinstance(answer, tuple) else (200, answer, {})
        if isinstance(body, int):
            return web.Response(status=body, headers=headers)
        if isinstance(body, bytes):
            return web.Response(status=status, body=body, headers=headers)
        if isinstance(body, str):
            return web.Response(status=status, text=body, headers=headers)
        return web.json_response(body, status=status, headers=headers)
