"""What changes a simulated node's disk: pull, push, create, copy, delete, blobs."""

import hashlib
import json
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

import msgspec
from aiohttp import web

from olla.simulation.answering import ApiError, as_json, read_object, stream
from olla.simulation.catalogue import CATALOGUE, full_name, model_spec
from olla.simulation.native import Tools

__all__ = ["ManagingApi"]

_PULL_BYTES_PER_SECOND = 500e6
_STEPS = 10


class ManagingApi:
    """`/api/pull` and what else changes the disk."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def routes(self) -> list[web.RouteDef]:
        """Its routes."""
        return [
            web.post("/api/pull", self._pull),
            web.post("/api/push", self._push),
            web.post("/api/create", self._create),
            web.post("/api/copy", self._copy),
            web.delete("/api/delete", self._delete),
            web.head("/api/blobs/{digest}", self._has_blob),
            web.post("/api/blobs/{digest}", self._take_blob),
        ]

    async def _pull(self, request: web.Request) -> web.StreamResponse:
        body = await read_object(request)
        name = full_name(_name(body))
        if name not in CATALOGUE:
            raise ApiError(500, "pull model manifest: file does not exist")
        spec = CATALOGUE[name]

        async def progress() -> AsyncGenerator[dict[str, Any], None]:
            yield {"status": "pulling manifest"}
            digest = f"sha256:{spec.digest}"
            for step in range(1, _STEPS + 1):
                await self._tools.workshop.sleep(spec.size / _PULL_BYTES_PER_SECOND / _STEPS)
                yield {
                    "status": f"pulling {spec.digest[:12]}",
                    "digest": digest,
                    "total": spec.size,
                    "completed": spec.size * step // _STEPS,
                }
            for status in ("verifying sha256 digest", "writing manifest"):
                yield {"status": status}
            self._tools.storage.add(spec, self._tools.clock.wall())
            yield {"status": "success"}

        return await self._report(request, body, progress())

    async def _push(self, request: web.Request) -> web.StreamResponse:
        body = await read_object(request)
        name = _name(body)
        spec = self._tools.storage.find(name)
        if spec is None:
            raise ApiError(404, f"model '{name}' not found")
        digest = f"sha256:{spec.digest}"
        return await self._report(
            request,
            body,
            _steps(
                [
                    {"status": "retrieving manifest"},
                    {"status": "pushing", "digest": digest, "total": spec.size},
                    {"status": "success"},
                ]
            ),
        )

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = await read_object(request)
        name = full_name(_name(body))
        source = body.get("from")
        files = body.get("files")
        if isinstance(source, str) and source:
            base = self._tools.storage.find(source)
            if base is None:
                raise ApiError(404, f"model '{source}' not found")
            spec = msgspec.structs.replace(base, name=name)
        elif isinstance(files, dict) and files:
            missing = [
                digest for digest in files.values() if digest not in self._tools.storage.blobs
            ]
            if missing:
                raise ApiError(400, f"no such blob: {missing[0]}")
            spec = model_spec(name)
        else:
            raise ApiError(400, "neither 'from' or 'files' was specified")

        async def progress() -> AsyncGenerator[dict[str, Any], None]:
            yield {"status": "using existing layer", "digest": f"sha256:{spec.digest}"}
            yield {"status": "writing manifest"}
            self._tools.storage.add(spec, self._tools.clock.wall())
            yield {"status": "success"}

        return await self._report(request, body, progress())

    async def _copy(self, request: web.Request) -> web.Response:
        body = await read_object(request)
        source, to = body.get("source"), body.get("destination")
        if not isinstance(source, str) or not isinstance(to, str) or not to:
            raise ApiError(400, "source and destination are required")
        if not self._tools.storage.copy(source, to, self._tools.clock.wall()):
            raise ApiError(404, f"model '{source}' not found")
        return web.Response()

    async def _delete(self, request: web.Request) -> web.Response:
        name = _name(await read_object(request))
        spec = self._tools.storage.delete(name)
        if spec is None:
            raise ApiError(404, f"model '{name}' not found")
        if all(each.spec.digest != spec.digest for each in self._tools.storage.all()):
            self._tools.workshop.unload(spec)
        return web.Response()

    async def _has_blob(self, request: web.Request) -> web.Response:
        digest = request.match_info["digest"]
        return web.Response(status=200 if digest in self._tools.storage.blobs else 404)

    async def _take_blob(self, request: web.Request) -> web.Response:
        digest = request.match_info["digest"]
        if digest in self._tools.storage.blobs:
            return web.Response(status=200)
        hashed = hashlib.sha256()
        async for piece in request.content.iter_any():
            hashed.update(piece)
        found = f"sha256:{hashed.hexdigest()}"
        if found != digest:
            raise ApiError(400, f'digest mismatch, expected "{digest}", got "{found}"')
        self._tools.storage.blobs.add(digest)
        return web.Response(status=201)

    async def _report(
        self,
        request: web.Request,
        body: dict[str, Any],
        progress: AsyncGenerator[dict[str, Any], None],
    ) -> web.StreamResponse:
        if body.get("stream") is False:
            async with aclosing(progress) as steps:
                last = [step async for step in steps][-1]
            return as_json(last, native=True)

        async def records() -> AsyncGenerator[bytes, None]:
            async with aclosing(progress) as steps:
                async for step in steps:
                    yield json.dumps(step, separators=(",", ":")).encode() + b"\n"

        async with aclosing(records()) as lines:
            return await stream(request, "application/x-ndjson", lines)


async def _steps(steps: Iterable[dict[str, Any]]) -> AsyncGenerator[dict[str, Any], None]:
    for step in steps:
        yield step


def _name(body: dict[str, Any]) -> str:
    name = body.get("model") or body.get("name")
    if not isinstance(name, str) or not name.strip():
        raise ApiError(400, "model is required")
    return name
