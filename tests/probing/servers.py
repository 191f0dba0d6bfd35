"""A server that answers what a test tells it to, over real sockets."""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from olla.fleet.endpoint import EndpointSpec

__all__ = ["Answer", "ScriptedServer", "ollama_answers", "tag"]

_CLOSING_SECONDS_MAX = 0.1


def tag(name: str, **more: object) -> dict[str, Any]:
    """An entry of `/api/tags`."""
    return {"name": name, "model": name, "digest": "0" * 64, "size": 1000, **more}


def ollama_answers(*models: str) -> dict[str, object]:
    """What an idle Ollama with these models answers."""
    return {
        "/": "Ollama is running",
        "/api/version": {"version": "0.33.0"},
        "/api/tags": {"models": [tag(name) for name in models]},
        "/api/ps": {"models": []},
    }


class ScriptedServer:
    """Answers by path: `answers` maps a path to text, to a JSON value, or to a whole response.

    A path in `hanging` is answered when the test takes it out by `let_go`. Everything else is
    404. `asked` are the paths in the order they came, `headers` the latest request's of each path.
    """

    def __init__(self, answers: Mapping[str, object]) -> None:
        self.answers = dict(answers)
        self.asked: list[str] = []
        self.headers: dict[str, CIMultiDict[str]] = {}
        self._gates: dict[str, asyncio.Event] = {}
        self._news = asyncio.Event()
        self._runner: web.ServerRunner | None = None
        self.port = 0

    async def __aenter__(self) -> "ScriptedServer":
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; on the same port as before after `stop`."""
        self._runner = web.ServerRunner(
            web.Server(self._answer), shutdown_timeout=_CLOSING_SECONDS_MAX
        )
        await self._runner.setup()
        site = web.TCPSite(
            self._runner,
            "127.0.0.1",
            self.port,
            reuse_address=True,
        )
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Refuse connections from now on."""
        for path in list(self._gates):
            self.let_go(path)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def hang(self, path: str) -> None:
        """Do not answer this path for now."""
        self._gates.setdefault(path, asyncio.Event())

    def let_go(self, path: str) -> None:
        """Answer this path after all."""
        self._gates.pop(path).set()

    def times(self, path: str) -> int:
        """How often a path was asked for."""
        return self.asked.count(path)

    async def until_asked(self, path: str, times: int = 1) -> None:
        """Wait until a path was asked for so often in all."""
        while self.times(path) < times:
            self._news.clear()
            await self._news.wait()

    def spec(self, name: str = "a", **more: object) -> EndpointSpec:
        """This server as an endpoint of type Ollama, asked once a minute unless told otherwise."""
        authority = f"127.0.0.1:{self.port}"
        known: dict[str, Any] = {
            "type": "ollama",
            "check_interval": 60.0,
            "check_timeout": 5.0,
            **more,
        }
        return EndpointSpec(name, "127.0.0.1", self.port, authority=authority, **known)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        self.asked.append(path)
        self.headers[path] = CIMultiDict(request.headers)
        self._news.set()
        gate = self._gates.get(path)
        if gate is not None:
            await gate.wait()
        answer = self.answers.get(path)
        if answer is None:
            return web.Response(status=404, text="404 page not found")
        if isinstance(answer, Answer):
            return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        if isinstance(answer, str):
            return web.Response(text=answer)
        return web.json_response(answer)


class Answer(msgspec.Struct, frozen=True):
    """A whole response."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}
