"""`/v1/responses` and `/v1/messages` on a simulated node: streams made of named, typed events."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from aiohttp import web

from olla.simulation.execution import Measures
from olla.simulation.inference import Tools
from olla.simulation.openai_api import model_that_speaks, spoken, text_of
from olla.simulation.request_fields import list_field
from olla.simulation.responses import ApiError, as_json, read_object, stream

__all__ = ["TypedEventsApi", "anthropic_error"]

_HEADERS = {"Cache-Control": "no-cache", "Connection": "keep-alive"}
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


def anthropic_error(error: ApiError) -> web.Response:
    """An error as `/v1/messages` shows it."""
    described = {"type": _TYPES.get(error.status, "api_error"), "message": error.message}
    body = {"type": "error", "error": described, "request_id": "req_simulated"}
    return as_json(body, native=False, status=error.status)


class TypedEventsApi:
    """OpenAI's responses and Anthropic's messages."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._count = 0

    def routes(self) -> list[web.RouteDef]:
        """Its routes."""
        return [
            web.post("/v1/responses", self._responses),
            web.post("/v1/messages", self._messages),
        ]

    async def _responses(self, request: web.Request) -> web.StreamResponse:
        body = await read_object(request)
        given = body.get("input")
        items = [given] if isinstance(given, str) else list_field(body, "input")
        if not items:
            raise ApiError(400, "input is required")
        texts = [each if isinstance(each, str) else text_of(each.get("content")) for each in items]
        spec = model_that_speaks(self._tools, body)
        measures = Measures(self._tools.executor.now)
        tokens = spoken(self._tools, body, spec, "\n".join(texts), measures, [])
        head = self._response_head(body)
        item_id = self._id("msg_")
        if body.get("stream") is not True:
            async with aclosing(tokens) as said:
                answer = "".join([token async for token in said])
            return as_json(_response(head, item_id, answer, measures), native=False)

        async def records() -> AsyncGenerator[bytes, None]:
            number = 0
            answer = ""

            def event(kind: str, **fields: object) -> bytes:
                nonlocal number
                number += 1
                return _named(kind, sequence_number=number - 1, **fields)

            item = _item(item_id, "", "in_progress")
            place = {"item_id": item_id, "output_index": 0, "content_index": 0}
            begun = {**head, "status": "in_progress", "output": []}
            opening = (
                ("response.created", {"response": begun}),
                ("response.in_progress", {"response": begun}),
                (
                    "response.output_item.added",
                    {"output_index": 0, "item": {**item, "content": []}},
                ),
                ("response.content_part.added", {**place, "part": _part("")}),
            )
            async with aclosing(tokens) as said:
                async for token in said:
                    if number == 0:
                        for kind, fields in opening:
                            yield event(kind, **fields)
                    answer += token
                    yield event("response.output_text.delta", **place, delta=token)
            if number == 0:
                for kind, fields in opening:
                    yield event(kind, **fields)
            done = _item(item_id, answer, "completed")
            yield event("response.output_text.done", **place, text=answer)
            yield event("response.content_part.done", **place, part=_part(answer))
            yield event("response.output_item.done", output_index=0, item=done)
            response = _response(head, item_id, answer, measures)
            yield event("response.completed", response=response)

        async with aclosing(records()) as events:
            return await stream(request, "text/event-stream", events, _HEADERS)

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        body = await read_object(request)
        messages = list_field(body, "messages")
        if not messages:
            raise ApiError(400, "messages is required")
        if not isinstance(body.get("max_tokens"), int) or body["max_tokens"] < 1:
            raise ApiError(400, "max_tokens is required and must be positive")
        texts = [text_of(body.get("system")), *(text_of(each.get("content")) for each in messages)]
        spec = model_that_speaks(self._tools, body)
        measures = Measures(self._tools.executor.now)
        end: list[str] = []
        text = "\n".join(each for each in texts if each)
        tokens = spoken(self._tools, body, spec, text, measures, end)
        head = {
            "id": self._id("msg_"),
            "type": "message",
            "role": "assistant",
            "model": body["model"],
        }

        def ending() -> dict[str, Any]:
            reason = "max_tokens" if end[0] == "length" else "end_turn"
            return {"stop_reason": reason, "stop_sequence": None}

        if body.get("stream") is not True:
            async with aclosing(tokens) as said:
                answer = "".join([token async for token in said])
            content = [{"type": "text", "text": answer}]
            usage = _anthropic_usage(measures)
            return as_json({**head, "content": content, **ending(), "usage": usage}, native=False)

        async def records() -> AsyncGenerator[bytes, None]:
            begun = False
            async with aclosing(tokens) as said:
                async for token in said:
                    if not begun:
                        begun = True
                        usage = {"input_tokens": measures.prompt_tokens, "output_tokens": 0}
                        message = {
                            **head,
                            "content": [],
                            "stop_reason": None,
                            "stop_sequence": None,
                            "usage": usage,
                        }
                        yield _named("message_start", message=message)
                        block = {"type": "text", "text": ""}
                        yield _named("content_block_start", index=0, content_block=block)
                    delta = {"type": "text_delta", "text": token}
                    yield _named("content_block_delta", index=0, delta=delta)
            if begun:
                yield _named("content_block_stop", index=0)
            yield _named("message_delta", delta=ending(), usage=_anthropic_usage(measures))
            yield _named("message_stop")

        async with aclosing(records()) as events:
            return await stream(request, "text/event-stream", events, _HEADERS)

    def _id(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def _response_head(self, body: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": self._id("resp_"),
            "object": "response",
            "created_at": int(self._tools.clock.wall()),
            "model": body["model"],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }


def _response(
    head: dict[str, Any], item_id: str, answer: str, measures: Measures
) -> dict[str, Any]:
    """A whole response."""
    usage = {
        "input_tokens": measures.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": measures.tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": measures.prompt_tokens + measures.tokens,
    }
    output = [_item(item_id, answer, "completed")]
    return {**head, "status": "completed", "output": output, "usage": usage}


def _item(item_id: str, answer: str, status: str) -> dict[str, Any]:
    return {
        "type": "message",
        "id": item_id,
        "status": status,
        "role": "assistant",
        "content": [_part(answer)],
    }


def _part(answer: str) -> dict[str, Any]:
    return {"type": "output_text", "text": answer, "annotations": [], "logprobs": []}


def _anthropic_usage(measures: Measures) -> dict[str, int]:
    return {"input_tokens": measures.prompt_tokens, "output_tokens": measures.tokens}


def _named(kind: str, **fields: object) -> bytes:
    value = json.dumps({"type": kind, **fields}, separators=(",", ":"))
    return f"event: {kind}\ndata: {value}\n\n".encode()
