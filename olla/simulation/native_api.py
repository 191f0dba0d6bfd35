"""Ollama's own API on a simulated node: generate, chat, embed, lists, show.

`management_api` has the operations that change the node's disk.
"""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from aiohttp import web

from olla.simulation.execution import Measures
from olla.simulation.inference import Tools, embed_all, load, talk, whole_number
from olla.simulation.model_catalogue import ModelSpec
from olla.simulation.request_fields import (
    keep_alive_seconds,
    list_field,
    mapping_field,
    text_field,
    texts_field,
)
from olla.simulation.responses import ApiError, as_json, read_object, rfc3339, stream
from olla.simulation.storage import Stored

__all__ = ["NativeApi"]

_Shape = Callable[[str], dict[str, Any]]
"""Inserts a piece of text into a record."""


class NativeApi:
    """`/api/*` without what changes the node's disk."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def routes(self) -> list[web.RouteDef]:
        """Its routes."""
        return [
            web.get("/", self._alive),
            web.get("/api/version", self._version),
            web.get("/api/tags", self._tags),
            web.get("/api/ps", self._ps, allow_head=False),
            web.post("/api/show", self._show),
            web.post("/api/generate", self._generate),
            web.post("/api/chat", self._chat),
            web.post("/api/embed", self._embed),
            web.post("/api/embeddings", self._embeddings),
        ]

    # --- what there is ------------------------------------------------------------------------

    async def _alive(self, request: web.Request) -> web.Response:
        return web.Response(text="Ollama is running")

    async def _version(self, request: web.Request) -> web.Response:
        return as_json({"version": self._tools.version}, native=True)

    async def _tags(self, request: web.Request) -> web.Response:
        models = [
            {
                "name": stored.spec.name,
                "model": stored.spec.name,
                "modified_at": rfc3339(stored.modified_at),
                "size": stored.spec.size,
                "digest": stored.spec.digest,
                "details": {
                    **_details(stored.spec),
                    "context_length": stored.spec.context,
                    "embedding_length": stored.spec.embedding_length,
                },
                "capabilities": stored.spec.capabilities,
            }
            for stored in self._tools.storage.all()
        ]
        return as_json({"models": models}, native=True)

    async def _ps(self, request: web.Request) -> web.Response:
        executor = self._tools.executor
        models = [
            {
                "name": each.name,
                "model": each.name,
                "size": each.size,
                "digest": each.model.digest,
                "details": _details(each.model),
                "expires_at": rfc3339(executor.wall(each.expires_at)),
                "size_vram": each.size_vram,
                "context_length": each.context_length,
            }
            for each in executor.resident()
        ]
        return as_json({"models": models}, native=True)

    async def _show(self, request: web.Request) -> web.Response:
        body = await read_object(request)
        name = text_field(body, "model") or text_field(body, "name")
        if not name:
            raise ApiError(400, "model is required")
        stored = self._tools.storage.stored(name)
        if stored is None:
            raise _not_found(name)
        return as_json(_description(stored), native=True)

    # --- inference ----------------------------------------------------------------------------

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await read_object(request)
        keep_alive = keep_alive_seconds(body)
        # Unlike its neighbours, this one does not find a missing name, instead of missing it.
        spec = self._model(text_field(body, "model"), required=False)
        prompt = text_field(body, "prompt")
        text = "\n".join(each for each in (text_field(body, "system"), prompt) if each)

        def shape(token: str) -> dict[str, Any]:
            return {"response": token}

        if not prompt:
            return await self._load(body, spec, keep_alive, shape, "generate")
        return await self._speak(request, body, spec, text, keep_alive, shape, "generate")

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await read_object(request)
        keep_alive = keep_alive_seconds(body)
        spec = self._model(text_field(body, "model"))
        messages = list_field(body, "messages")
        text = "\n".join(text_field(message, "content") for message in messages)

        def shape(token: str) -> dict[str, Any]:
            return {"message": {"role": "assistant", "content": token}}

        if not messages:
            return await self._load(body, spec, keep_alive, shape, "chat")
        return await self._speak(request, body, spec, text, keep_alive, shape, "chat")

    async def _load(
        self,
        body: dict[str, Any],
        spec: ModelSpec,
        keep_alive: float | None,
        shape: _Shape,
        what: str,
    ) -> web.Response:
        """An empty prompt: load the model, or with `keep_alive: 0` unload it. Never a stream."""
        if keep_alive == 0:
            self._tools.executor.unload(spec)
            reason = "unload"
        else:
            _check_can(spec, body, what)
            measures = Measures(self._tools.executor.now)
            options = mapping_field(body, "options")
            await load(self._tools, spec, measures, options=options, keep_alive=keep_alive)
            reason = "load"
        return as_json({**self._record(body, shape(""), True), "done_reason": reason}, native=True)

    async def _speak(
        self,
        request: web.Request,
        body: dict[str, Any],
        spec: ModelSpec,
        text: str,
        keep_alive: float | None,
        shape: _Shape,
        what: str,
    ) -> web.StreamResponse:
        _check_can(spec, body, what)
        measures = Measures(self._tools.executor.now)
        end: list[str] = []
        options = mapping_field(body, "options")
        tokens = talk(
            self._tools, spec, text, measures, end, options=options, keep_alive=keep_alive
        )

        def last(said: str) -> dict[str, Any]:
            whole = {**self._record(body, shape(said), True), "done_reason": end[0]}
            if what == "generate":
                whole["context"] = list(range(1, measures.prompt_tokens + measures.tokens + 1))
            return {**whole, **_counts(measures, self._tools.executor.scale)}

        if body.get("stream") is False:
            async with aclosing(tokens) as parts:
                answer = "".join([token async for token in parts])
            return as_json(last(answer), native=True)

        async def records() -> AsyncGenerator[bytes, None]:
            async with aclosing(tokens) as parts:
                async for token in parts:
                    yield _line(self._record(body, shape(token), False))
            yield _line(last(""))

        async with aclosing(records()) as lines:
            return await stream(request, "application/x-ndjson", lines)

    async def _embed(self, request: web.Request) -> web.Response:
        body = await read_object(request)
        keep_alive = keep_alive_seconds(body)
        texts = texts_field(body, "input")
        spec = self._model(text_field(body, "model"), pull_hint=True)
        measures = Measures(self._tools.executor.now)
        vectors = await embed_all(
            self._tools,
            spec,
            texts,
            measures,
            options=mapping_field(body, "options"),
            keep_alive=keep_alive,
            dimensions=whole_number(body.get("dimensions")),
        )
        answer: dict[str, Any] = {"model": body["model"], "embeddings": vectors}
        if texts:
            scale = self._tools.executor.scale
            answer["total_duration"] = _ns(measures.total * scale)
            answer["load_duration"] = _ns(measures.load * scale)
            answer["prompt_eval_count"] = measures.prompt_tokens
        return as_json(answer, native=True)

    async def _embeddings(self, request: web.Request) -> web.Response:
        body = await read_object(request)
        keep_alive = keep_alive_seconds(body)
        spec = self._model(text_field(body, "model"), pull_hint=True)
        prompt = text_field(body, "prompt")
        vectors = await embed_all(
            self._tools,
            spec,
            [prompt] if prompt else [],
            Measures(self._tools.executor.now),
            options=mapping_field(body, "options"),
            keep_alive=keep_alive,
        )
        return as_json({"embedding": vectors[0] if vectors else []}, native=True)

    def _model(self, name: str, *, required: bool = True, pull_hint: bool = False) -> ModelSpec:
        if not name and required:
            raise ApiError(400, "model is required")
        spec = self._tools.storage.find(name)
        if spec is not None:
            return spec
        if pull_hint:
            raise ApiError(404, f'model "{name}" not found, try pulling it first')
        raise _not_found(name)

    def _record(self, body: dict[str, Any], part: dict[str, Any], done: bool) -> dict[str, Any]:
        """One record of an answer. The model is named as the client named it."""
        created = rfc3339(self._tools.clock.wall())
        return {"model": body["model"], "created_at": created, **part, "done": done}


def _check_can(spec: ModelSpec, body: dict[str, Any], what: str) -> None:
    if spec.embedding:
        raise ApiError(400, f'"{body["model"]}" does not support {what}')


def _not_found(name: str) -> ApiError:
    return ApiError(404, f"model '{name}' not found")


def _details(spec: ModelSpec) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": spec.family,
        "families": [spec.family],
        "parameter_size": spec.parameter_size,
        "quantization_level": spec.quantization,
    }


def _description(stored: Stored) -> dict[str, Any]:
    """What `/api/show` says of a model."""
    spec = stored.spec
    basename = spec.name.rpartition("/")[2].partition(":")[0]
    return {
        "modelfile": f"# Modelfile of {spec.name}\nFROM {basename}.{spec.quantization}.gguf\n"
        "PARAMETER temperature 0.7\n",
        "parameters": "temperature                    0.7",
        "template": "{{ .System }}\nUser: {{ .Prompt }}\nAssistant:",
        "details": _details(spec),
        "model_info": {
            "general.architecture": spec.family,
            "general.basename": basename,
            "general.file_type": spec.quantization,
            "general.parameter_count": spec.parameters,
            "general.quantization_version": 2,
            f"{spec.family}.context_length": spec.context,
            f"{spec.family}.embedding_length": spec.embedding_length,
        },
        "capabilities": spec.capabilities,
        "modified_at": rfc3339(stored.modified_at),
    }


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


_LOOK_UP_SECONDS = 0.01
"""Ollama's `load_duration` for a loaded model: roughly the time to find it."""


def _counts(measures: Measures, scale: float) -> dict[str, int]:
    """The numbers of an answer's last record, `scale` real seconds to a simulated one. Zeros are
    left out, as Ollama does."""
    load = max(measures.load, _LOOK_UP_SECONDS)
    counts = {
        "total_duration": _ns(max(measures.total, load) * scale),
        "load_duration": _ns(load * scale),
        "prompt_eval_count": measures.prompt_tokens,
        "prompt_eval_duration": _ns(measures.prompt * scale),
        "eval_count": measures.tokens,
        "eval_duration": _ns(measures.decode * scale),
    }
    return {name: value for name, value in counts.items() if value}
