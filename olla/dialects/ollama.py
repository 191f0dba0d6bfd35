"""Ollama's native dialect: JSON objects, streams of them one a line, `{"error": text}`."""

import msgspec

from olla.dialects.dialect import Ending, Operation, Peek, Summary
from olla.dialects.peek import peek_json, peek_leniently
from olla.dialects.records import json_object, last_lines, whole
from olla.failures import Failure

__all__ = ["Ollama"]

_STREAM_BY_DEFAULT = frozenset(
    {Operation.GENERATE, Operation.CHAT, Operation.PULL, Operation.PUSH, Operation.CREATE}
)
_NAMED = frozenset(
    {Operation.SHOW, Operation.PULL, Operation.PUSH, Operation.CREATE, Operation.DELETE}
)
_MUST_END = frozenset({Operation.GENERATE, Operation.CHAT})


class Ollama:
    """`/api/*`."""

    name = "ollama"

    def peek(self, operation: Operation, body: bytes) -> Peek:
        """See `Dialect.peek`. `stream` absent means true where an operation streams."""
        if operation is Operation.COPY:
            keys: tuple[str, ...] = ("source",)
        elif operation in _NAMED:
            keys = ("model", "name")
        else:
            keys = ("model",)
        if operation is Operation.OTHER:
            return peek_leniently(body)
        return peek_json(
            body,
            keys=keys,
            streams_by_default=operation in _STREAM_BY_DEFAULT,
            model_required=True,
        )

    def error_body(self, failure: Failure) -> bytes:
        """See `Dialect.error_body`."""
        return msgspec.json.encode({"error": failure.message})

    def in_band_error(self, failure: Failure, *, mid_record: bool) -> bytes:
        """See `Dialect.in_band_error`. An empty line would be an error of its own to clients."""
        record = self.error_body(failure) + b"\n"
        return b"\n" + record if mid_record else record

    def summary(self, operation: Operation, streaming: bool, tail: bytes) -> Summary:
        """See `Dialect.summary`. Complete is what ends with `done: true`."""
        lines = last_lines(tail) if streaming else [tail]
        last = json_object(lines[0]) if lines else None
        if last is None:
            must_end = streaming and operation in _MUST_END
            return Summary(Ending.INCOMPLETE if must_end else Ending.COMPLETE)
        ending = Ending.COMPLETE
        if "error" in last and last.get("done") is not True:
            ending = Ending.ERROR
        elif streaming and operation in _MUST_END and last.get("done") is not True:
            ending = Ending.INCOMPLETE
        load = whole(last.get("load_duration"))
        return Summary(
            ending,
            prompt_tokens=whole(last.get("prompt_eval_count")),
            output_tokens=whole(last.get("eval_count")),
            load_seconds=load / 1e9 if load is not None else None,
        )
