"""Format one log line per request. `log_writer` writes the lines in batches.

A line never contains prompts, keys or query strings.
"""

import enum
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from olla.record import RequestRecord
from olla.settings.masking import masked_url
from olla.telemetry.log_writer import Log

__all__ = ["JsonLines", "LogFormat", "RequestLog", "text_line"]


class LogFormat(enum.Enum):
    """The format of a line."""

    JSON = "json"
    """One JSON object per line, for machines."""
    TEXT = "text"
    """One short aligned line, for people."""


class RequestLog:
    """A sink that formats each record and passes the line on."""

    def __init__(self, log: Log, format: LogFormat = LogFormat.JSON) -> None:
        self._log = log
        self._line: Callable[[RequestRecord], bytes] = (
            JsonLines().line if format is LogFormat.JSON else text_line
        )

    def __call__(self, record: RequestRecord) -> None:
        """Take a finished request."""
        self._log.put(self._line(record))


_encoder = msgspec.json.Encoder()

_TEXT_CHARACTERS_MAX = 256
"""Characters of a value that a client chooses (path, model)."""


class JsonLines:
    """Formats records as JSON.

    Values that repeat from request to request (caller, model, endpoint) are cached as JSON text,
    and numbers are inserted: 1 µs instead of 3 to build and encode an object.
    """

    __slots__ = ("_known", "_second", "_second_text")

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], bytes] = {}
        self._second = -1
        self._second_text = b""

    def line(self, record: RequestRecord) -> bytes:
        """Return the record as one JSON object with a line end. `ts` is its arrival, in UTC."""
        wall = record.started_wall
        second = int(wall)
        if second != self._second:
            self._second = second
            self._second_text = f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}".encode()
        key = (
            record.client,
            record.caller,
            record.method,
            record.path,
            record.dialect,
            record.operation,
            record.model,
            record.streaming,
            record.endpoint,
            record.status,
            record.reason,
        )
        known = self._known.get(key)
        if known is None:
            known = self._remember(key)
        started, first = record.started, record.first_byte
        prompt, output = record.prompt_tokens, record.output_tokens
        queued, predicted, rewritten = record.queue_seconds, record.predicted, record.rewritten
        return (
            b'{"ts":"%b.%06dZ","id":%b,%b,"attempts":%d,"ttfb_ms":%b,"duration_ms":%.3f,'
            b'"bytes_in":%d,"bytes_out":%d,"prompt_tokens":%b,"output_tokens":%b,"queue_ms":%b,'
            b'"predicted_ms":%b,"rewritten":%b,"failure":%b%b%b}\n'
        ) % (
            self._second_text,
            (wall - second) * 1e6,
            _quoted(record.id),
            known,
            len(record.attempts),
            b"null" if first is None else b"%.3f" % ((first - started) * 1000),
            (record.ended - started) * 1000,
            record.bytes_in,
            record.bytes_out,
            b"null" if prompt is None else b"%d" % prompt,
            b"null" if output is None else b"%d" % output,
            b"null" if queued is None else b"%.3f" % (queued * 1000),
            b"null" if predicted is None else b"%.3f" % (predicted * 1000),
            b"null" if rewritten is None else _quoted(rewritten),
            b"null" if record.failure is None else _quoted(record.failure.kind.value),
            b',"estimated":true' if record.estimated else b"",
            b"" if record.failure is None and len(record.attempts) < 2 else _trouble(record),
        )

    def _remember(self, key: tuple[object, ...]) -> bytes:
        parts: list[bytes] = []
        for name, value in zip(_SAME, key, strict=True):
            if name == b"path":
                value = _shown_path(str(value))
            cut = value[:_TEXT_CHARACTERS_MAX] if isinstance(value, str) else value
            parts.append(b'"%b":%b' % (name, _quoted(cut)))
        known = b",".join(parts)
        if sum(len(each) for each in key if isinstance(each, str)) > _REMEMBERED_CHARACTERS_MAX:
            return known
        if len(self._known) >= _REMEMBERED_MAX:
            self._known.clear()
        self._known[key] = known
        return known


_SAME = (
    *(b"client", b"caller", b"method", b"path", b"dialect", b"operation"),
    *(b"model", b"stream", b"endpoint", b"status", b"reason"),
)
_REMEMBERED_MAX = 1024
_REMEMBERED_CHARACTERS_MAX = 1024
"""Limits of the cache: entries, and bytes of one entry. Clients choose paths and model names."""


def _trouble(record: RequestRecord) -> bytes:
    """Return the failure in words, and the outcome of each attempt."""
    parts = b""
    if record.failure is not None:
        parts += b',"error":%b' % _quoted(record.failure.message[:_TEXT_CHARACTERS_MAX])
    failed = [
        f"{attempt.endpoint}: {attempt.failure.kind.value}"
        for attempt in record.attempts
        if attempt.failure is not None
    ]
    return parts + b',"failed":%b' % _quoted(failed) if failed else parts


def _quoted(value: object) -> bytes:
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:  # the client sent bytes that are not UTF-8
        return _encoder.encode(str(value).encode("utf-8", "replace").decode())


def text_line(record: RequestRecord) -> bytes:
    """Return the record as one aligned line: time (UTC), status, request, endpoint, times, tokens,
    id."""
    first_byte = _milliseconds(record.started, record.first_byte)
    columns = (
        datetime.fromtimestamp(record.started_wall, UTC).strftime("%H:%M:%S"),
        f"{record.status:3}",
        f"{record.operation or record.method:<10}",
        f"{record.endpoint or '-':<12}",
        f"{_printable(record.model or _path(record)):<24}",
        f"{'-' if first_byte is None else f'{first_byte / 1000:.3f}s':>9}",
        f"{(_milliseconds(record.started, record.ended) or 0.0) / 1000:8.3f}s",
        f"{_count(record.prompt_tokens):>6}>{_count(record.output_tokens):<6}",
        record.reason or "-",
        "" if record.failure is None else record.failure.kind.value,
        f"x{len(record.attempts)}" if len(record.attempts) > 1 else "",
        _printable(record.id),
    )
    return (" ".join(column for column in columns if column) + "\n").encode("utf-8", "replace")


def _path(record: RequestRecord) -> str:
    return _shown_path(record.path)[:_TEXT_CHARACTERS_MAX]


def _shown_path(path: str) -> str:
    """Return a request's path without its query, and without user information in absolute URLs."""
    path = path.partition("?")[0]
    return path if path.startswith("/") else masked_url(path)


def _milliseconds(start: float, end: float | None) -> float | None:
    return None if end is None else round((end - start) * 1000, 3)


def _count(tokens: int | None) -> str:
    return "-" if tokens is None else str(tokens)


def _printable(text: str) -> str:
    # Terminals obey control characters, and a line end would forge a line.
    text = text[:_TEXT_CHARACTERS_MAX]
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
