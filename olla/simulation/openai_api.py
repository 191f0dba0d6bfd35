"""The OpenAI API on a simulated node, as Ollama serves it: lists, chat, completions, embeddings.

`typed_events_api` has responses and messages, whose streams consist of typed events.
"""

import base64
import json
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from aiohttp import BodyPartReader, web

from olla.simulation.execution import Measures
from olla.simulation.inference import Tools, embed_all, talk, whole_number
from olla.simulation.model_catalogue import ModelSpec
from olla.simulation.request_fields import list_field, text_field, texts_field
from olla.simulation.responses import ApiError, as_json, read_object, stream

__all__ = ["OpenAIApi", "model_that_speaks", "openai_error", "spoken", "text_of"]

_TYPES = {400: "invalid_request_error", 404: "not_found_error"}
_Choice = Callable[[str], dict[str, Any]]
"""Inserts a piece of text into a choice."""


def openai_error(error: ApiError) -> web.Response:
    """An error as `/v1` shows it."""
    kind = _TYPES.get(error.status, "api_error")
    described = {"message": error.message, "type": kind, "param": None, "code": None}
    return as_json({"error": described}, native=False, status=error.status)


def model_that_speaks(tools: Tools, body: dict[str, Any], *, embeds: bool = False) -> ModelSpec:
    """The model that a request names.

    Raises:
        ApiError: none is named, it is not there, or it only embeds and `embeds` is not set.
    """
    name = text_field(body, "model")
    if not name:
        raise ApiError(400, "model is required")
    spec = tools.storage.find(name)
    if spec is None:
        raise ApiError(404, f"model '{name}' not found")
    if spec.embedding and not embeds:
        raise ApiError(400, f'"{name}" does not support chat')
    return spec


def spoken(
    tools: Tools,
    body: dict[str, Any],
    spec: ModelSpec,
    text: str,
    measures: Measures,
    end: list[str],
) -> AsyncGenerator[str, None]:
    """The tokens of an answer, under the limits that the `/v1` APIs know."""
    limits = ("max_completion_tokens", "max_tokens", "max_output_tokens")
    given = (whole_number(body.get(name)) for name in limits)
    options = {
        "num_predict": next((limit for limit in given if limit is not None), None),
        "stop": body.get("stop") or body.get("stop_sequences"),
        "seed": body.get("seed"),
    }
    return talk(tools, spec, text, measures, end, options=options)


def text_of(content: object) -> str:
    """The text of a message's content: a string, or parts of which some are text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


class OpenAIApi:
    """`/v1/*` but for responses and messages."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._count = 0

    def routes(self) -> list[web.RouteDef]:
        """Its routes."""
        return [
            web.get("/v1/models", self._models, allow_head=False),
            web.get("/v1/models/{model}", self._model_entry, allow_head=False),
            web.post("/v1/chat/completions", self._chat),
            web.post("/v1/completions", self._completion),
            web.post("/v1/embeddings", self._embeddings),
            web.post("/v1/audio/transcriptions", self._transcribe),
        ]

    async def _models(self, request: web.Request) -> web.Response:
        stored = self._tools.storage.all()
        data = [_entry(each.spec.name, each.modified_at) for each in stored]
        # With no models, Ollama answers null.
        return as_json({"object": "list", "data": data or None}, native=False)

    async def _model_entry(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]
        stored = self._tools.storage.stored(name)
        if stored is None:
            raise ApiError(404, f"model '{name}' not found")
        return as_json(_entry(stored.spec.name, stored.modified_at), native=False)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await read_object(request)
        messages = list_field(body, "messages")
        if not messages:
            raise ApiError(400, "[] is too short - 'messages'")
        spec = model_that_speaks(self._tools, body)
        text = "\n".join(text_of(message.get("content")) for message in messages)

        def delta(token: str) -> dict[str, Any]:
            return {"index": 0, "delta": {"role": "assistant", "content": token}}

        def whole(answer: str) -> dict[str, Any]:
            return {"index": 0, "message": {"role": "assistant", "content": answer}}

        kinds = ("chatcmpl-", "chat.completion.chunk", "chat.completion")
        return await self._complete(request, body, spec, text, kinds, delta, whole)

    async def _completion(self, request: web.Request) -> web.StreamResponse:
        body = await read_object(request)
        spec = model_that_speaks(self._tools, body)

        def part(token: str) -> dict[str, Any]:
            return {"index": 0, "text": token}

        kinds = ("cmpl-", "text_completion", "text_completion")
        prompt = text_field(body, "prompt")
        return await self._complete(request, body, spec, prompt, kinds, part, part)

    async def _complete(
        self,
        request: web.Request,
        body: dict[str, Any],
        spec: ModelSpec,
        text: str,
        kinds: tuple[str, str, str],
        delta: _Choice,
        whole: _Choice,
    ) -> web.StreamResponse:
        measures = Measures(self._tools.executor.now)
        end: list[str] = []
        tokens = spoken(self._tools, body, spec, text, measures, end)
        streams = body.get("stream") is True
        self._count += 1
        head = {
            "id": f"{kinds[0]}{self._count % 999}",  # Ollama's are not unique either
            "object": kinds[1] if streams else kinds[2],
            "created": int(self._tools.clock.wall()),
            "model": body["model"],
            "system_fingerprint": "fp_ollama",
        }
        if not streams:
            async with aclosing(tokens) as said:
                answer = "".join([token async for token in said])
            choice = {**whole(answer), "logprobs": None, "finish_reason": end[0]}
            return as_json({**head, "choices": [choice], "usage": _usage(measures)}, native=False)

        async def records() -> AsyncGenerator[bytes, None]:
            async with aclosing(tokens) as said:
                async for token in said:
                    choice = {**delta(token), "finish_reason": None}
                    yield _event({**head, "choices": [choice]})
            yield _event({**head, "choices": [{**delta(""), "finish_reason": end[0]}]})
            options = body.get("stream_options")
            if isinstance(options, dict) and options.get("include_usage"):
                yield _event({**head, "choices": [], "usage": _usage(measures)})
            yield b"data: [DONE]\n\n"

        async with aclosing(records()) as events:
            return await stream(request, "text/event-stream", events)

    async def _embeddings(self, request: web.Request) -> web.Response:
        body = await read_object(request)
        texts = texts_field(body, "input")
        if not texts:
            raise ApiError(400, "invalid input")
        spec = model_that_speaks(self._tools, body, embeds=True)
        measures = Measures(self._tools.executor.now)
        dimensions = whole_number(body.get("dimensions"))
        vectors = await embed_all(self._tools, spec, texts, measures, dimensions=dimensions)
        in_base64 = body.get("encoding_format") == "base64"
        data = [
            {
                "object": "embedding",
                "embedding": _base64(vector) if in_base64 else vector,
                "index": number,
            }
            for number, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": measures.prompt_tokens, "total_tokens": measures.prompt_tokens}
        answer = {"object": "list", "data": data, "model": body["model"], "usage": usage}
        return as_json(answer, native=False)

    async def _transcribe(self, request: web.Request) -> web.Response:
        if not request.content_type.startswith("multipart/"):
            raise ApiError(400, "request Content-Type isn't multipart/form-data")
        fields: dict[str, str] = {}
        size: int | None = None
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                continue
            if part.name == "file":
                size = len(await part.read())
            elif part.name is not None:
                fields[part.name] = await part.text()
        spec = model_that_speaks(self._tools, dict(fields))
        if size is None:
            raise ApiError(400, "file is required")
        measures = Measures(self._tools.executor.now)
        said = talk(self._tools, spec, f"audio of {size} bytes", measures, [])
        async with aclosing(said) as tokens:
            answer = "".join([token async for token in tokens])
        if fields.get("response_format") == "text":
            return web.Response(text=answer)
        return as_json({"text": answer}, native=False)


def _entry(name: str, modified_at: float) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": int(modified_at),
        "owned_by": name.rpartition("/")[0] or "library",
    }


def _event(value: object) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def _usage(measures: Measures) -> dict[str, int]:
    return {
        "prompt_tokens": measures.prompt_tokens,
        "completion_tokens": measures.tokens,
        "total_tokens": measures.prompt_tokens + measures.tokens,
    }


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
