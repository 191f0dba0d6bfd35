"""The Anthropic dialect: named server-sent events that end with `message_stop`."""

from typing import Any

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

__all__ = ["Anthropic"]

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    431: "request_too_large",
    503: "overloaded_error",
    504: "timeout_error",
}
_CACHED = ("cache_read_input_tokens", "cache_creation_input_tokens")
"""Parts of the prompt that `input_tokens` leaves out."""


class Anthropic:
    """`/v1/messages`."""

    name = "anthropic"
    counts_at_start = True

    def peek(self, operation: Operation, body: bytes, scanned: JsonObject | None = None) -> Peek:
        """See `Dialect.peek`. `stream` absent means false."""
        if operation is Operation.OTHER:
            return peek_leniently(body, scanned)
        return peek_json(
            body,
            model_keys(operation),
            streams_by_default=False,
            model_required=True,
            hints_for=operation,
            scanned=scanned,
        )

    def error_body(self, failure: Failure) -> bytes:
        """See `Dialect.error_body`."""
        kind = _TYPES.get(failure.status, "api_error")
        return encoded({"type": "error", "error": {"type": kind, "message": failure.message}})

    def in_band_error(self, failure: Failure, *, mid_record: bool) -> bytes:
        """See `Dialect.in_band_error`."""
        event = b"event: error\ndata: " + self.error_body(failure)
        return in_band_event(event, mid_record=mid_record)

    def waiting(self, operation: Operation, text: str) -> bytes | None:
        """See `Dialect.waiting`."""
        return f": {text}\n\n".encode() if operation is Operation.MESSAGES else None

    def summary(
        self, operation: Operation, streaming: bool, tail: bytes, start: bytes = b""
    ) -> Summary:
        """See `Dialect.summary`. Complete is what ends with `message_stop`."""
        if not streaming:
            return _counted(Ending.COMPLETE, json_object(tail))
        events = [json_object(each) for each in sse_data(tail)]
        last = next(
            (kind for kind in (value(each, "type") for each in events) if kind != "ping"), None
        )
        if operation is not Operation.MESSAGES or last == "message_stop":
            ending = Ending.COMPLETE
        else:
            ending = Ending.ERROR if last == "error" else Ending.INCOMPLETE
        with_usage = (event for event in events if event is not None and "usage" in event)
        last_counts = _counted(ending, next(with_usage, None))
        if last_counts.prompt_tokens is not None:
            return last_counts
        # As documented, `message_delta` counts the output alone, and `message_start` the input.
        return Summary(ending, _prompt_at_start(start), last_counts.output_tokens)


def _counted(ending: Ending, event: TopLevel | None) -> Summary:
    usage = value(event, "usage")
    if not isinstance(usage, dict):
        return Summary(ending)
    return Summary(ending, _prompt_tokens(usage), whole(usage.get("output_tokens")))


def _prompt_tokens(usage: dict[str, Any]) -> int | None:
    """All tokens of the prompt, read from a cache or not, as the other dialects count them."""
    count = whole(usage.get("input_tokens"))
    if count is None:
        return None
    return count + sum(whole(usage.get(name)) or 0 for name in _CACHED)


def _prompt_at_start(start: bytes) -> int | None:
    for data in reversed(sse_data(start)):
        message = value(json_object(data), "message")
        usage = message.get("usage") if isinstance(message, dict) else None
        if isinstance(usage, dict):
            return _prompt_tokens(usage)
    return None
