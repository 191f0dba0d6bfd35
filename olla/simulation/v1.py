"""The OpenAI and Anthropic APIs on a simulated node, as Ollama serves them."""

import base64
import json
import struct
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from aiohttp import web

from olla.simulation.answering import ApiError, as_json, read_object, stream
from olla.simulation.catalogue import ModelSpec
from olla.simulation.native import Tools, embed_all, talk
from olla.simulation.work import Measures

__all__ = ["V1Api", "anthropic_error", "openai_error"]

_SSE = "text/event-stream"


def openai_error(error: ApiError) -> web.Response:
    """An error as `/v1` shows it."""
    types = {400: "invalid_request_error", 404: "not_found_error"}
    return as_json(
        {
            "error": {
                "message": error.message,
                "type": types.get(error.status, "api_error"),
                "param": None,
                "code": None,
            }
        },
        native=False,
        status=error.status,
    )


def anthropic_error(error: ApiError) -> web.Response:
    """An error as `/v1/messages` shows it."""
    types = {400: "invalid_request_error", 404: "not_found_error", 503: "overloaded_error"}
    kind = types.get(error.status, "api_error")
    return as_json(
        {"type": "error", "error": {"type": kind, "message": error.message}},
        native=False,
        status=error.status,
    )


class V1Api:
    """`/v1/*`."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._count = 0

    def routes(self) -> list[web.RouteDef]:
        """Its routes."""
        return [
            web.get("/v1/models", self._models),
            web.get("/v1/models/{model}", self._model_entry),
            web.post("/v1/chat/completions", self._chat),
            web.post("/v1/completions", self._completion),
            web.post("/v1/embeddings", self._embeddings),
            web.post("/v1/responses", self._responses),
            web.post("/v1/messages", self._messages),
            web.post("/v1/audio/transcriptions", self._transcribe),
        ]

    def _id(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def _entry(self, name: str, modified_at: float) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": int(modified_at),
            "owned_by": name.rpartition("/")[0] or "library",
        }

    async def _models(self, request: web.Request) -> web.Response:
        stored = self._tools.storage.all()
        data = [self._entry(each.spec.name, each.modified_at) for each in stored]
        # With no models, Ollama answers null.
        return as_json({"object": "list", "data": data or None}, native=False)

    async def _model_entry(self, request: web.Request) -> web.Response:
        spec = self._model({"model": request.match_info["model"]})
        return as_json(self._entry(spec.name, self._tools.clock.wall()), native=False)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await read_object(request)
        spec = self._model(body, chats=True)
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise ApiError(400, "[] is too short - 'messages'")
        text = "\n".join(_text_of(message) for message in messages)

        def delta(token: str) -> dict[str, Any]:
            return {"index": 0, "delta": {"role": "assistant", "content": token}}

        def whole(answer: str) -> dict[str, Any]:
            return {"index": 0, "message": {"role": "assistant", "content": answer}}

        kinds = ("chatcmpl-", "chat.completion.chunk", "chat.completion")
        return await self._complete(request, body, spec, text, kinds, delta, whole)

    async def _completion(self, request: web.Request) -> web.StreamResponse:
        body = await read_object(request)
        spec = self._model(body, chats=True)

        def part(token: str) -> dict[str, Any]:
            return {"index": 0, "text": token}

        kinds = ("cmpl-", "text_completion", "text_completion")
        prompt = str(body.get("prompt") or "")
        return await self._complete(request, body, spec, prompt, kinds, part, part)

    async def _complete(
        self,
        request: web.Request,
        body: dict[str, Any],
        spec: ModelSpec,
        text: str,
        kinds: tuple[str, str, str],
        delta: Any,
        whole: Any,
    ) -> web.StreamResponse:
        measures = Measures(self._tools.workshop.now)
        end: list[str] = []
        tokens = self._tokens(body, spec, text, measures, end)
        head = {
            "id": self._id(kinds[0]),
            "object": kinds[1] if body.get("stream") else kinds[2],
            "created": int(self._tools.clock.wall()),
            "model": body["model"],
            "system_fingerprint": "fp_ollama",
        }
        if not body.get("stream"):
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
            return await stream(request, _SSE, events)

    async def _embeddings(self, request: web.Request) -> web.Response:
        body = await read_object(request)
        spec = self._model(body)
        given = body.get("input", "")
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ApiError(400, "invalid input type")
        measures = Measures(self._tools.workshop.now)
        vectors = await embed_all(self._tools, spec, texts, measures)
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

    async def _responses(self, request: web.Request) -> web.StreamResponse:
        body = await read_object(request)
        spec = self._model(body, chats=True)
        measures = Measures(self._tools.workshop.now)
        end: list[str] = []
        given = body.get("input", "")
        text = given if isinstance(given, str) else json.dumps(given)
        tokens = self._tokens(body, spec, text, measures, end)
        head: dict[str, Any] = {
            "id": self._id("resp_"),
            "object": "response",
            "created_at": int(self._tools.clock.wall()),
            "model": body["model"],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }
        item_id = self._id("msg_")

        def item(answer: str, status: str) -> dict[str, Any]:
            content = [{"type": "output_text", "text": answer, "annotations": []}]
            return {
                "type": "message",
                "id": item_id,
                "status": status,
                "role": "assistant",
                "content": content,
            }

        def completed(answer: str) -> dict[str, Any]:
            counts = {
                "input_tokens": measures.prompt_tokens,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": measures.tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": measures.prompt_tokens + measures.tokens,
            }
            output = [item(answer, "completed")]
            return {**head, "status": "completed", "output": output, "usage": counts}

        if not body.get("stream"):
            async with aclosing(tokens) as said:
                answer = "".join([token async for token in said])
            return as_json(completed(answer), native=False)

        async def records() -> AsyncGenerator[bytes, None]:
            begun = {**head, "status": "in_progress", "output": []}
            number = 0
            answer = ""
            place = {"item_id": item_id, "output_index": 0, "content_index": 0}
            async with aclosing(tokens) as said:
                async for token in said:
                    if not answer:
                        yield _typed("response.created", number, response=begun)
                        number += 1
                    answer += token
                    yield _typed("response.output_text.delta", number, **place, delta=token)
                    number += 1
            yield _typed("response.output_text.done", number, **place, text=answer)
            yield _typed("response.completed", number + 1, response=completed(answer))

        async with aclosing(records()) as events:
            return await stream(request, _SSE, events)

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        body = await read_object(request)
        spec = self._model(body, chats=True)
        measures = Measures(self._tools.workshop.now)
        end: list[str] = []
        text = "\n".join(_text_of(message) for message in body.get("messages") or [])
        tokens = self._tokens(body, spec, text, measures, end)
        head = {
            "id": self._id("msg_"),
            "type": "message",
            "role": "assistant",
            "model": body["model"],
        }

        def reason() -> str:
            return "max_tokens" if end[0] == "length" else "end_turn"

        if not body.get("stream"):
            async with aclosing(tokens) as said:
                answer = "".join([token async for token in said])
            counts = {"input_tokens": measures.prompt_tokens, "output_tokens": measures.tokens}
            return as_json(
                {
                    **head,
                    "content": [{"type": "text", "text": answer}],
                    "stop_reason": reason(),
                    "stop_sequence": None,
                    "usage": counts,
                },
                native=False,
            )

        async def records() -> AsyncGenerator[bytes, None]:
            begun = False
            async with aclosing(tokens) as said:
                async for token in said:
                    if not begun:
                        begun = True
                        counts = {"input_tokens": measures.prompt_tokens, "output_tokens": 0}
                        message = {**head, "content": [], "stop_reason": None, "usage": counts}
                        block = {"type": "text", "text": ""}
                        yield _named("message_start", message=message)
                        yield _named("content_block_start", index=0, content_block=block)
                    delta = {"type": "text_delta", "text": token}
                    yield _named("content_block_delta", index=0, delta=delta)
            yield _named("content_block_stop", index=0)
            yield _named(
                "message_delta",
                delta={"stop_reason": reason(), "stop_sequence": None},
                usage={"input_tokens": measures.prompt_tokens, "output_tokens": measures.tokens},
            )
            yield _named("message_stop")

        async with aclosing(records()) as events:
            return await stream(request, _SSE, events)

    async def _transcribe(self, request: web.Request) -> web.Response:
        if not request.content_type.startswith("multipart/"):
            raise ApiError(400, "request Content-Type isn't multipart/form-data")
        model, size = "", 0
        async for part in await request.multipart():
            if getattr(part, "name", None) == "model":
                model = (await part.read(decode=False)).decode()  # type: ignore[union-attr]
            elif getattr(part, "name", None) == "file":
                size = len(await part.read(decode=False))  # type: ignore[union-attr]
        spec = self._model({"model": model}, chats=True)
        measures = Measures(self._tools.workshop.now)
        end: list[str] = []
        said = talk(self._tools, spec, f"audio of {size} bytes", measures, end)
        async with aclosing(said) as tokens:
            answer = "".join([token async for token in tokens])
        return as_json({"text": answer}, native=False)

    def _tokens(
        self, body: dict[str, Any], spec: ModelSpec, text: str, measures: Measures, end: list[str]
    ) -> AsyncGenerator[str, None]:
        limit = next(
            (
                body[key]
                for key in ("max_completion_tokens", "max_tokens", "max_output_tokens")
                if isinstance(body.get(key), int)
            ),
            None,
        )
        options = {"num_predict": limit, "stop": body.get("stop"), "seed": body.get("seed")}
        return talk(self._tools, spec, text, measures, end, options=options)

    def _model(self, body: dict[str, Any], *, chats: bool = False) -> ModelSpec:
        name = body.get("model")
        if not isinstance(name, str) or not name:
            raise ApiError(400, "model is required")
        spec = self._tools.storage.find(name)
        if spec is None:
            raise ApiError(404, f"model '{name}' not found")
        if chats and spec.embedding:
            raise ApiError(400, f'"{name}" does not support chat')
        return spec


def _event(value: object) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def _typed(kind: str, number: int, **fields: object) -> bytes:
    event = {"type": kind, "sequence_number": number, **fields}
    return f"event: {kind}\n".encode() + _event(event)


def _named(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\n".encode() + _event({"type": kind, **fields})


def _usage(measures: Measures) -> dict[str, int]:
    return {
        "prompt_tokens": measures.prompt_tokens,
        "completion_tokens": measures.tokens,
        "total_tokens": measures.prompt_tokens + measures.tokens,
    }


def _text_of(message: object) -> str:
    content = message.get("content") if isinstance(message, dict) else message
    return content if isinstance(content, str) else json.dumps(content)


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
