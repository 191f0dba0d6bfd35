"""The OpenAI dialect: server-sent events that end with `[DONE]`, errors with type and code."""

from typing import Any

import msgspec

from olla.dialects.dialect import Ending, Operation, Peek, Summary
from olla.dialects.peek import peek_json, peek_leniently
from olla.dialects.records import json_object, sse_data, whole
from olla.failures import Failure

__all__ = ["OpenAI"]

_MODEL_OPTIONAL = frozenset({Operation.TOKENIZE, Operation.INFER})
_DONE = b"[DONE]"
_RESPONSE_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    503: "service_unavailable_error",
}


class OpenAI:
    """`/v1/*`."""

    name = "openai"

    def peek(self, operation: Operation, body: bytes) -> Peek:
        """See `Dialect.peek`. `stream` absent means false."""
        if operation is Operation.OTHER:
            return peek_leniently(body)
        return peek_json(
            body,
            keys=("model",),
            streams_by_default=False,
            model_required=operation not in _MODEL_OPTIONAL,
        )

    def error_body(self, failure: Failure) -> bytes:
        """See `Dialect.error_body`."""
        return msgspec.json.encode({"error": _error(failure)})

    def in_band_error(self, failure: Failure, *, mid_record: bool) -> bytes:
        """See `Dialect.in_band_error`."""
        record = b"data: " + self.error_body(failure) + b"\n\n"
        return b"\n\n" + record if mid_record else record

    def summary(self, operation: Operation, streaming: bool, tail: bytes) -> Summary:
        """See `Dialect.summary`. Complete: a finish reason and `[DONE]`, both."""
        if not streaming:
            return _counted(Ending.COMPLETE, [json_object(tail)])
        data = sse_data(tail)
        events = [json_object(each) for each in data if each != _DONE]
        if operation is Operation.RESPONSES:
            return _response_summary(events)
        if operation not in (Operation.CHAT, Operation.GENERATE):
            return _counted(Ending.COMPLETE, events)
        finished = any(_finish_reason(event) for event in events)
        if data and data[0] == _DONE and finished:
            ending = Ending.COMPLETE
        elif any(event is not None and "error" in event for event in events[:2]):
            ending = Ending.ERROR
        else:
            ending = Ending.INCOMPLETE
        return _counted(ending, events)


def _error(failure: Failure) -> dict[str, Any]:
    return {
        "message": failure.message,
        "type": _TYPES.get(failure.status, "api_error"),
        "param": "model" if failure.kind.value.startswith("model_") else None,
        "code": failure.kind.value,
    }


def _finish_reason(event: dict[str, Any] | None) -> bool:
    choices = event.get("choices") if event is not None else None
    if not isinstance(choices, list):
        return False
    return any(isinstance(each, dict) and each.get("finish_reason") for each in choices)


def _response_summary(events: list[dict[str, Any] | None]) -> Summary:
    for event in events:
        if event is not None and event.get("type") in _RESPONSE_ENDS:
            response = event.get("response")
            return _counted(Ending.COMPLETE, [response if isinstance(response, dict) else None])
        if event is not None and event.get("type") == "error":
            return Summary(Ending.ERROR)
    return Summary(Ending.INCOMPLETE)


def _counted(ending: Ending, events: list[dict[str, Any] | None]) -> Summary:
    """The summary with the counts of the first event that has some."""
    for event in events:
        usage = event.get("usage") if event is not None else None
        if isinstance(usage, dict):
            return Summary(
                ending,
                whole(usage.get("prompt_tokens", usage.get("input_tokens"))),
                whole(usage.get("completion_tokens", usage.get("output_tokens"))),
            )
    for event in events:
        timings = event.get("timings") if event is not None else None  # llama.cpp's own
        if isinstance(timings, dict):
            return Summary(
                ending, whole(timings.get("prompt_n")), whole(timings.get("predicted_n"))
            )
    return Summary(ending)
