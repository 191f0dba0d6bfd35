"""The OpenAI dialect: server-sent events that end with `[DONE]`, errors with type and code."""

from typing import Any

import msgspec

from olla.dialects.dialect import Ending, Operation, Peek, Summary
from olla.dialects.json_scan import JsonObject
from olla.dialects.peek import model_keys, peek_json, peek_leniently
from olla.dialects.records import (
    encoded,
    in_band_event,
    json_object,
    sse_data,
    value,
    whole,
)
from olla.dialects.top_level import TopLevel
from olla.failures import Failure

__all__ = ["OpenAI"]

_MODEL_OPTIONAL = frozenset({Operation.TOKENIZE, Operation.INFER})
_WAITED_FOR = frozenset({Operation.CHAT, Operation.GENERATE, Operation.RESPONSES})
_MUST_END = frozenset({Operation.CHAT, Operation.GENERATE})
_DONE = b"[DONE]"
_OUTPUT = ("content", "text", "tool_calls", "reasoning_content", "reasoning", "refusal")
_RESPONSE_ENDS = {
    "response.completed": Ending.COMPLETE,
    "response.incomplete": Ending.COMPLETE,
    "response.failed": Ending.ERROR,
    "error": Ending.ERROR,
}
"""`incomplete` ran into a limit of its own, such as max_output_tokens: that is an answer."""
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    503: "service_unavailable_error",
}


class OpenAI:
    """`/v1/*`."""

    name = "openai"
    counts_at_start = False

    def peek(self, operation: Operation, body: bytes, scanned: JsonObject | None = None) -> Peek:
        """See `Dialect.peek`. `stream` absent means false."""
        if operation is Operation.OTHER:
            return peek_leniently(body, scanned)
        return peek_json(
            body,
            model_keys(operation),
            streams_by_default=False,
            model_required=operation not in _MODEL_OPTIONAL,
            hints_for=operation,
            scanned=scanned,
        )

    def error_body(self, failure: Failure) -> bytes:
        """See `Dialect.error_body`."""
        return encoded({"error": _error(failure)})

    def in_band_error(self, failure: Failure, *, mid_record: bool) -> bytes:
        """See `Dialect.in_band_error`."""
        return in_band_event(b"data: " + self.error_body(failure), mid_record=mid_record)

    def waiting(self, operation: Operation, text: str) -> bytes | None:
        """See `Dialect.waiting`."""
        return f": {text}\n\n".encode() if operation in _WAITED_FOR else None

    def summary(
        self, operation: Operation, streaming: bool, tail: bytes, start: bytes = b""
    ) -> Summary:
        """See `Dialect.summary`. Complete: a finish reason or `[DONE]`, and no error after it.

        TGI, Xinference, ik_llama.cpp and others send no `[DONE]`: taken for broken, each of their
        answers ended in an error and opened the breaker.
        """
        if not streaming:
            return _counted(Ending.COMPLETE, [json_object(tail)])
        data = [each for each in sse_data(tail) if each]
        events = [json_object(each) for each in data if each != _DONE]
        if operation is Operation.RESPONSES:
            return _response_summary(events)
        ending = Ending.COMPLETE
        if operation in _MUST_END:
            ending = _ending(done=bool(data) and data[0] == _DONE, events=events)
        return _counted(ending, events)


def _error(failure: Failure) -> dict[str, Any]:
    return {
        "message": failure.message,
        "type": _TYPES.get(failure.status, "api_error"),
        "param": "model" if failure.kind.value.startswith("model_") else None,
        "code": failure.kind.value,
    }


def _ending(*, done: bool, events: list[TopLevel | None]) -> Ending:
    """Return how a stream of choices ended; `events` are its last ones without `[DONE]`, last
    first."""
    if any(value(event, "error") is not None for event in events[: 1 if done else 2]):
        return Ending.ERROR
    if done:
        return Ending.COMPLETE
    for event in events:
        choices = value(event, "choices")
        if event is None or not isinstance(choices, list):
            break  # half a record, or none of a choice's
        parts = [each for each in choices if isinstance(each, dict)]
        if any(each.get("finish_reason") for each in parts):
            return Ending.COMPLETE
        if any(map(_has_output, parts)):
            break  # of another choice than the one that has ended, or there was no end
    return Ending.INCOMPLETE


def _has_output(choice: dict[str, Any]) -> bool:
    """Return whether a choice has output besides a role or counts."""
    delta = choice.get("delta")
    parts = delta if isinstance(delta, dict) else choice
    return any(parts.get(key) for key in _OUTPUT)


def _response_summary(events: list[TopLevel | None]) -> Summary:
    for event in events:
        kind = value(event, "type")
        ending = _RESPONSE_ENDS.get(kind) if isinstance(kind, str) else None
        if ending is not None:
            response = value(event, "response")
            usage = response.get("usage") if isinstance(response, dict) else None
            return _with_usage(ending, usage) or Summary(ending)
        if value(event, "error") is not None:
            return Summary(Ending.ERROR)
    return Summary(Ending.INCOMPLETE)


def _counted(ending: Ending, events: list[TopLevel | None]) -> Summary:
    """The summary with the counts of the first event that has some, and llama.cpp's own times."""
    found: Summary | None = None
    timings: object = None
    for event in events:
        found = found or _with_usage(ending, value(event, "usage"))
        timings = timings or value(event, "timings")
    if not isinstance(timings, dict):
        return found or Summary(ending)
    if found is None:
        counts = whole(timings.get("prompt_n")), whole(timings.get("predicted_n"))
        found = Summary(ending, *counts)
    return msgspec.structs.replace(
        found,
        prompt_seconds=_milliseconds(timings.get("prompt_ms")),
        output_seconds=_milliseconds(timings.get("predicted_ms")),
    )


def _milliseconds(told: object) -> float | None:
    """Convert milliseconds to seconds; None for other values."""
    if isinstance(told, (int, float)) and not isinstance(told, bool) and 0 <= told < 1e12:
        return told / 1000
    return None


def _with_usage(ending: Ending, usage: object) -> Summary | None:
    if not isinstance(usage, dict):
        return None
    return Summary(
        ending,
        whole(usage.get("prompt_tokens", usage.get("input_tokens"))),
        whole(usage.get("completion_tokens", usage.get("output_tokens"))),
    )
