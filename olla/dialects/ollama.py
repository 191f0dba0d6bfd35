"""Ollama's native dialect: JSON objects, streams of them one a line, `{"error": text}`."""

from typing import Final

import msgspec

from olla.dialects.dialect import Ending, Operation, Peek, Summary
from olla.dialects.final_record import FINAL
from olla.dialects.json_scan import JsonObject
from olla.dialects.peek import model_keys, other_keys, peek_json, peek_leniently
from olla.dialects.records import encoded, json_object, last_line, value, whole
from olla.dialects.top_level import TopLevel
from olla.failures import Failure

__all__ = ["Ollama"]

_STREAM_BY_DEFAULT = frozenset(
    {Operation.GENERATE, Operation.CHAT, Operation.PULL, Operation.PUSH, Operation.CREATE}
)
_MUST_END = frozenset({Operation.GENERATE, Operation.CHAT})
_COMPLETE: Final = Ending.COMPLETE
_OTHER: Final = Operation.OTHER


class Ollama:
    """`/api/*`."""

    name = "ollama"
    counts_at_start = False

    def peek(self, operation: Operation, body: bytes, scanned: JsonObject | None = None) -> Peek:
        """See `Dialect.peek`. `stream` absent means true where an operation streams."""
        if operation is _OTHER:
            return peek_leniently(body, scanned)
        return peek_json(
            body,
            model_keys(operation),
            others=other_keys(operation),
            streams_by_default=operation in _STREAM_BY_DEFAULT,
            model_required=True,
            hints_for=operation,
            scanned=scanned,
            native=True,
        )

    def error_body(self, failure: Failure) -> bytes:
        """See `Dialect.error_body`."""
        return encoded({"error": failure.message})

    def in_band_error(self, failure: Failure, *, mid_record: bool) -> bytes:
        """See `Dialect.in_band_error`. An empty line would be an error of its own to clients."""
        record = self.error_body(failure) + b"\n"
        return b"\n" + record if mid_record else record

    def waiting(self, operation: Operation, text: str) -> bytes | None:
        """See `Dialect.waiting`."""
        return None  # a line of NDJSON is a record

    def summary(
        self, operation: Operation, streaming: bool, tail: bytes, start: bytes = b""
    ) -> Summary:
        """See `Dialect.summary`. Complete is what ends with `done: true`."""
        must_end = streaming and operation in _MUST_END
        line = last_line(tail) if streaming else tail
        try:
            final = FINAL.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return self._odd_summary(line, must_end)
        if final.done is not True:
            return self._odd_summary(line, must_end)
        return Summary(
            _COMPLETE,
            final.prompt_eval_count,
            final.eval_count,
            _nanoseconds(final.load_duration),
            _nanoseconds(final.prompt_eval_duration),
            _nanoseconds(final.eval_duration),
            _nanoseconds(final.total_duration),
        )

    def _odd_summary(self, line: bytes, must_end: bool) -> Summary:
        """Return the summary for a last record that is incomplete or has unusual types."""
        last = json_object(line)
        if last is None:
            return Summary(Ending.INCOMPLETE if must_end else _COMPLETE)
        return Summary(
            _ending(last, must_end),
            prompt_tokens=whole(value(last, "prompt_eval_count")),
            output_tokens=whole(value(last, "eval_count")),
            load_seconds=_seconds(last, "load_duration"),
            prompt_seconds=_seconds(last, "prompt_eval_duration"),
            output_seconds=_seconds(last, "eval_duration"),
            total_seconds=_seconds(last, "total_duration"),
        )


def _ending(last: TopLevel, must_end: bool) -> Ending:
    if value(last, "done") is True:
        return _COMPLETE
    if value(last, "error"):
        return Ending.ERROR
    return Ending.INCOMPLETE if must_end else _COMPLETE


def _seconds(last: TopLevel, key: str) -> float | None:
    """Convert Ollama's nanoseconds to seconds."""
    return _nanoseconds(whole(value(last, key)))


def _nanoseconds(told: int | None) -> float | None:
    return None if told is None else told / 1e9
