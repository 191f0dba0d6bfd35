"""Ollama's own API on a simulated node: generate, chat, embed, lists, show."""

import json
import math
import re
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from typing import Any, Protocol

from aiohttp import web

from olla.clock import Clock
from olla.simulation.answering import ApiError, as_json, read_object, rfc3339, stream
from olla.simulation.catalogue import ModelSpec
from olla.simulation.node import load_options
from olla.simulation.storage import Storage
from olla.simulation.words import count_tokens, embedding, speech
from olla.simulation.work import Busy, Measures, Workshop

__all__ = ["NativeApi", "Tools", "details", "embed_all", "keep_alive_seconds", "limited", "talk"]

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_DURATION = re.compile(r"-?(?:\d+(?:\.\d*)?(?:ns|us|µs|ms|s|m|h))+")
BUSY = "server busy, please try again.  maximum pending requests exceeded"


class Tools(Protocol):
    """What the parts of a node's API share."""

    name: str
    version: str
    seed: int
    clock: Clock
    storage: Storage
    workshop: Workshop


def keep_alive_seconds(value: object) -> float | None:
    """`keep_alive` as Ollama reads it: seconds, or a Go duration; negative is for ever.

    Raises:
        ApiError: it is neither.
    """
    if value is None:
        return None
    if isinstance(value, bool):
        raise ApiError(400, "invalid keep_alive")
    if isinstance(value, (int, float)):
        return math.inf if value < 0 else float(value)
    if isinstance(value, str) and _GO_DURATION.fullmatch(value):
        parts = re.findall(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)", value)
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
        return math.inf if value.startswith("-") else seconds
    raise ApiError(400, f'time: invalid duration "{value}"')


def limited(
    words: Iterable[str], limit: int | None, stops: list[str], end: list[str]
) -> Iterator[str]:
    """At most `limit` words (negative or None: all), up to the first of `stops`.

    `end` gets the reason for the end: `stop` or `length`.
    """
    said = ""
    for count, word in enumerate(words):
        if limit is not None and 0 <= limit <= count:
            end.append("length")
            return
        said += word
        if any(stop and stop in said for stop in stops):
            break
        yield word
    end.append("stop")


async def talk(
    tools: Tools,
    spec: ModelSpec,
    prompt: str,
    measures: Measures,
    end: list[str],
    *,
    options: dict[str, Any] | None = None,
    keep_alive: float | None = None,
) -> AsyncGenerator[str, None]:
    """Say something about a prompt. Errors of the scheduler become API errors."""
    options = options or {}
    limit = options.get("num_predict")
    stops = options.get("stop") or []
    words = limited(
        speech(tools.seed, spec.digest, prompt, options.get("seed")),
        limit if isinstance(limit, int) else None,
        [stops] if isinstance(stops, str) else list(stops),
        end,
    )
    spoken = tools.workshop.speak(
        spec,
        load_options(options.items()),
        keep_alive,
        count_tokens(prompt),
        words,
        measures,
    )
    try:
        async with aclosing(spoken) as tokens:
            async for token in tokens:
                yield token
    except Busy:
        raise ApiError(503, BUSY) from None


async def embed_all(
    tools: Tools,
    spec: ModelSpec,
    texts: list[str],
    measures: Measures,
    options: dict[str, Any] | None = None,
    keep_alive: float | None = None,
) -> list[list[float]]:
    """The vectors of texts."""
    prompt = sum(count_tokens(text) for text in texts)
    spoken = tools.workshop.speak(
        spec, load_options((options or {}).items()), keep_alive, prompt, (), measures
    )
    try:
        async with aclosing(spoken) as tokens:
            async for _ in tokens:
                pass
    except Busy:
        raise ApiError(503, BUSY) from None
    return [embedding(spec.digest, text) for text in texts]


def details(spec: ModelSpec) -> dict[str, Any]:
    """A model's details, as lists show them."""
    return {
        "parent_model": "",
        "format": "gguf",
        "family": spec.family,
        "families": [spec.family],
        "parameter_size": spec.parameter_size,
        "quantization_level": spec.quantization,
    }


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
                "details": details(stored.spec),
                "capabilities": stored.spec.capabilities,
            }
            for stored in self._tools.storage.all()
        ]
        return as_json({"models": models}, native=True)

    async def _ps(self, request: web.Request) -> web.Response:
        workshop = self._tools.workshop
        models = [
            {
                "name": each.name,
                "model": each.name,
                "size": each.size,
                "digest": each.model.digest,
                "details": details(each.model),
                "expires_at": rfc3339(workshop.wall(each.expires_at)),
                "size_vram": each.size_vram,
                "context_length": each.context_length,
            }
            for each in workshop.resident()
        ]
        return as_json({"models": models}, native=True)

    async def _show(self, request: web.Request) -> web.Response:
        body = await read_object(request)
        spec = self._model(body, "model", "name")
        info: dict[str, Any] = {
            "general.architecture": spec.family,
            "general.basename": spec.name.partition(":")[0],
            "general.file_type": spec.quantization,
            "general.parameter_count": spec.size * 2,
            "general.quantization_version": 2,
            f"{spec.family}.context_length": spec.context,
            f"{spec.family}.embedding_length": 4096,
        }
        return as_json(
            {
                "modelfile": f"FROM {spec.name}\nPARAMETER temperature 0.7",
                "parameters": "temperature                    0.7",
                "template": "{{ .System }}\nUser: {{ .Prompt }}\nAssistant:",
                "details": details(spec),
                "model_info": info,
                "capabilities": spec.capabilities,
                "modified_at": rfc3339(self._tools.clock.wall()),
            },
            native=True,
        )

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await read_object(request)
        spec = self._model(body, "model", missing_status=404)
        prompt = str(body.get("prompt") or "")
        key = "response"
        if not prompt and not body.get("images"):
            return await self._load(body, spec, {key: ""})
        text = f"{body.get('system') or ''}{prompt}"

        def shape(token: str) -> dict[str, Any]:
            return {key: token}

        return await self._speak(request, body, spec, text, shape, with_context=True)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await read_object(request)
        spec = self._model(body, "model")
        messages = body.get("messages") or []
        if not isinstance(messages, list):
            raise ApiError(400, "messages must be a list")
        if not messages:
            return await self._load(body, spec, {"message": {"role": "assistant", "content": ""}})
        text = "\n".join(str(m.get("content") or "") for m in messages if isinstance(m, dict))

        def shape(token: str) -> dict[str, Any]:
            return {"message": {"role": "assistant", "content": token}}

        return await self._speak(request, body, spec, text, shape, with_context=False)

    async def _load(
        self, body: dict[str, Any], spec: ModelSpec, part: dict[str, Any]
    ) -> web.Response:
        """An empty prompt: load the model, or with `keep_alive: 0` unload it."""
        keep_alive = keep_alive_seconds(body.get("keep_alive"))
        answer = {"model": body["model"], "created_at": rfc3339(self._tools.clock.wall()), **part}
        if keep_alive == 0:
            self._tools.workshop.unload(spec)
            return as_json({**answer, "done": True, "done_reason": "unload"}, native=True)
        measures = Measures(self._tools.workshop.now)
        await embed_all(self._tools, spec, [], measures, body.get("options"), keep_alive)
        return as_json({**answer, "done": True, "done_reason": "load"}, native=True)

    async def _speak(
        self,
        request: web.Request,
        body: dict[str, Any],
        spec: ModelSpec,
        text: str,
        shape: Any,
        *,
        with_context: bool,
    ) -> web.StreamResponse:
        if spec.embedding:
            what = "generate" if with_context else "chat"
            raise ApiError(400, f'"{body["model"]}" does not support {what}')
        measures = Measures(self._tools.workshop.now)
        end: list[str] = []
        tokens = talk(
            self._tools,
            spec,
            text,
            measures,
            end,
            options=body.get("options") or {},
            keep_alive=keep_alive_seconds(body.get("keep_alive")),
        )

        def record(part: dict[str, Any], done: bool) -> dict[str, Any]:
            created = rfc3339(self._tools.clock.wall())
            return {"model": body["model"], "created_at": created, **part, "done": done}

        def last(part: dict[str, Any]) -> dict[str, Any]:
            whole = {**record(part, True), "done_reason": end[0] if end else "stop"}
            if with_context:
                whole["context"] = list(range(1, measures.prompt_tokens + measures.tokens + 1))
            return {**whole, **_counts(measures)}

        if body.get("stream") is False:
            async with aclosing(tokens) as said:
                answer = "".join([token async for token in said])
            return as_json(last(shape(answer)), native=True)

        async def records() -> AsyncGenerator[bytes, None]:
            async with aclosing(tokens) as said:
                async for token in said:
                    yield _line(record(shape(token), False))
            yield _line(last(shape("")))

        async with aclosing(records()) as lines:
            return await stream(request, "application/x-ndjson", lines)

    async def _embed(self, request: web.Request) -> web.Response:
        body = await read_object(request)
        spec = self._model(body, "model", pull_hint=True)
        given = body.get("input", "")
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ApiError(400, "invalid input type")
        measures = Measures(self._tools.workshop.now)
        keep_alive = keep_alive_seconds(body.get("keep_alive"))
        vectors = await embed_all(
            self._tools, spec, texts, measures, body.get("options"), keep_alive
        )
        return as_json(
            {
                "model": body["model"],
                "embeddings": vectors,
                "total_duration": _ns(measures.total),
                "load_duration": _ns(measures.load),
                "prompt_eval_count": measures.prompt_tokens,
            },
            native=True,
        )

    async def _embeddings(self, request: web.Request) -> web.Response:
        body = await read_object(request)
        spec = self._model(body, "model", pull_hint=True)
        measures = Measures(self._tools.workshop.now)
        keep_alive = keep_alive_seconds(body.get("keep_alive"))
        texts = [str(body.get("prompt") or "")]
        vectors = await embed_all(
            self._tools, spec, texts, measures, body.get("options"), keep_alive
        )
        return as_json({"embedding": vectors[0]}, native=True)

    def _model(
        self,
        body: dict[str, Any],
        *keys: str,
        missing_status: int = 400,
        pull_hint: bool = False,
    ) -> ModelSpec:
        name = next((body[key] for key in keys if body.get(key)), None)
        if not isinstance(name, str):
            raise ApiError(missing_status, "model is required")
        spec = self._tools.storage.find(name)
        if spec is None:
            if pull_hint:
                raise ApiError(404, f'model "{name}" not found, try pulling it first')
            raise ApiError(404, f"model '{name}' not found")
        return spec


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _counts(measures: Measures) -> dict[str, int]:
    return {
        "total_duration": _ns(measures.total),
        "load_duration": _ns(measures.load),
        "prompt_eval_count": measures.prompt_tokens,
        "prompt_eval_duration": _ns(measures.prompt),
        "eval_count": measures.tokens,
        "eval_duration": _ns(measures.decode),
    }
