"""One line per request: how it looks. `log_writer` writes it, many at a time.

Never in a line: prompts, keys, query strings.
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
    """How lines look."""

    JSON = "json"
    """One object a line, for machines."""
    TEXT = "text"
    """One short aligned line, for people."""


class RequestLog:
    """Makes a line of each record handed to it, and has it written. A sink."""

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
"""Of what a client chooses (path, model), so much goes into a line."""


class JsonLines:
    """Makes lines of records.

    What is the same from request to request (who, what, where) is kept as JSON text, and numbers
    are put beside it: 1 µs in place of 3 for building an object and encoding it.
    """

    __slots__ = ("_known", "_second", "_second_text")

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], bytes] = {}
        self._second = -1
        self._second_text = b""

    def line(self, record: RequestRecord) -> bytes:
        """The record as one JSON object with a line end. `ts` is when it arrived, in UTC."""
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
"""How many are remembered, and the longest of them: clients choose paths and names of models."""


def _trouble(record: RequestRecord) -> bytes:
    """What went wrong in words, and what became of each try."""
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
    except UnicodeEncodeError:  # bytes that are no UTF-8 in what the client sent
        return _encoder.encode(str(value).encode("utf-8", "replace").decode())


def text_line(record: RequestRecord) -> bytes:
    """The record as one aligned line: time (UTC), status, what, where, how long, tokens, id."""
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
    """A request's path without its query; of a target that is a whole URL, no user either."""
    path = path.partition("?")[0]
    return path if path.startswith("/") else masked_url(path)


def _milliseconds(start: float, end: float | None) -> float | None:
    return None if end is None else round((end - start) * 1000, 3)


def _count(tokens: int | None) -> str:
    return "-" if tokens is None else str(tokens)


def _printable(text: str) -> str:
    # A terminal obeys control characters, and a line end would forge a line.
    text = text[:_TEXT_CHARACTERS_MAX]
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
