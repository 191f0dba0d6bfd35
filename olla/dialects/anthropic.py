"""The Anthropic dialect: named server-sent events that end with `message_stop`."""

import msgspec

from olla.dialects.dialect import Ending, Operation, Peek, Summary
from olla.dialects.peek import peek_json
from olla.dialects.records import json_object, sse_data, whole
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


class Anthropic:
    """`/v1/messages`."""

    name = "anthropic"

    def peek(self, operation: Operation, body: bytes) -> Peek:
        """See `Dialect.peek`. `stream` absent means false."""
        return peek_json(body, keys=("model",), streams_by_default=False, model_required=True)

    def error_body(self, failure: Failure) -> bytes:
        """See `Dialect.error_body`."""
        kind = _TYPES.get(failure.status, "api_error")
        return msgspec.json.encode(
            {"type": "error", "error": {"type": kind, "message": failure.message}}
        )

    def in_band_error(self, failure: Failure, *, mid_record: bool) -> bytes:
        """See `Dialect.in_band_error`."""
        record = b"event: error\ndata: " + self.error_body(failure) + b"\n\n"
        return b"\n\n" + record if mid_record else record

    def summary(self, operation: Operation, streaming: bool, tail: bytes) -> Summary:
        """See `Dialect.summary`. Complete is what ends with `message_stop`."""
        if not streaming:
            return _counted(Ending.COMPLETE, json_object(tail))
        events = [json_object(each) for each in sse_data(tail)]
        last = events[0] if events else None
        if last is not None and last.get("type") == "message_stop":
            ending = Ending.COMPLETE
        elif last is not None and last.get("type") == "error":
            ending = Ending.ERROR
        else:
            ending = Ending.INCOMPLETE
        with_usage = (event for event in events if event is not None and "usage" in event)
        return _counted(ending, next(with_usage, None))


def _counted(ending: Ending, event: dict[str, object] | None) -> Summary:
    usage = event.get("usage") if event is not None else None
    if not isinstance(usage, dict):
        return Summary(ending)
    return Summary(ending, whole(usage.get("input_tokens")), whole(usage.get("output_tokens")))
