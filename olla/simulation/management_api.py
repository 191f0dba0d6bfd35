"""Change a simulated node's disk: pull, push, create, copy, delete, blobs."""

import hashlib
import json
import re
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

import msgspec
from aiohttp import web

from olla.simulation.inference import Tools
from olla.simulation.model_catalogue import CATALOGUE, ModelSpec, full_name, model_spec
from olla.simulation.request_fields import text_field
from olla.simulation.responses import ApiError, as_json, read_object, stream

__all__ = ["ManagingApi"]

_PULL_BYTES_PER_SECOND = 500e6
_STEPS = 10
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


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
        name = full_name(_name(body, "invalid model name"))
        spec = CATALOGUE.get(name)

        async def progress() -> AsyncGenerator[dict[str, Any], None]:
            yield {"status": "pulling manifest"}
            if spec is None:
                raise ApiError(500, "pull model manifest: file does not exist")
            digest = f"sha256:{spec.digest}"
            steps = 1 if self._has_weights(spec) else _STEPS
            for step in range(1, steps + 1):
                if steps > 1:
                    await self._tools.executor.sleep(spec.size / _PULL_BYTES_PER_SECOND / steps)
                yield {
                    "status": f"pulling {spec.digest[:12]}",
                    "digest": digest,
                    "total": spec.size,
                    "completed": spec.size * step // steps,
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
                    {"status": f"pushing {spec.digest[:12]}", "digest": digest, "total": spec.size},
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
            spec = self._from_blobs(name, list(files.values()))
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
        # What is in memory stays there until it expires.
        name = _name(await read_object(request), 'name "" is invalid')
        if self._tools.storage.delete(name) is None:
            raise ApiError(404, f"model '{name}' not found")
        return web.Response()

    async def _has_blob(self, request: web.Request) -> web.Response:
        digest = _digest(request)
        return web.Response(status=200 if digest in self._tools.storage.blobs else 404)

    async def _take_blob(self, request: web.Request) -> web.Response:
        digest = _digest(request)
        if digest in self._tools.storage.blobs:
            return web.Response(status=200)
        hashed = hashlib.sha256()
        size = 0
        async for piece in request.content.iter_any():
            hashed.update(piece)
            size += len(piece)
        found = f"sha256:{hashed.hexdigest()}"
        if found != digest:
            raise ApiError(400, f'digest mismatch, expected "{digest}", got "{found}"')
        self._tools.storage.blobs[digest] = size
        return web.Response(status=201)

    def _has_weights(self, spec: ModelSpec) -> bool:
        return any(each.spec.digest == spec.digest for each in self._tools.storage.all())

    def _from_blobs(self, name: str, digests: list[object]) -> ModelSpec:
        """A model made of uploaded files: as large as they are, known by the first."""
        blobs = self._tools.storage.blobs
        known = [digest for digest in digests if isinstance(digest, str) and digest in blobs]
        if len(known) < len(digests):
            missing = next(digest for digest in digests if digest not in known)
            raise ApiError(400, f"no such blob: {missing}")
        size = max(1, sum(blobs[digest] for digest in known))
        return msgspec.structs.replace(
            model_spec(name), size=size, digest=known[0].removeprefix("sha256:")
        )

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
            begun = False
            try:
                async with aclosing(progress) as steps:
                    async for step in steps:
                        yield _line(step)
                        begun = True
            except ApiError as error:
                if not begun:
                    raise
                yield _line({"error": error.message})  # too late for a status

        async with aclosing(records()) as lines:
            return await stream(request, "application/x-ndjson", lines)


async def _steps(steps: Iterable[dict[str, Any]]) -> AsyncGenerator[dict[str, Any], None]:
    for step in steps:
        yield step


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _name(body: dict[str, Any], complaint: str = "model is required") -> str:
    """The model that a request names, in the new field or the old one."""
    name = text_field(body, "model") or text_field(body, "name")
    if not name.strip():
        raise ApiError(400, complaint)
    return name


def _digest(request: web.Request) -> str:
    digest = request.match_info["digest"].replace("sha256-", "sha256:", 1)
    if _DIGEST.fullmatch(digest) is None:
        raise ApiError(400, "invalid digest format")
    return digest
