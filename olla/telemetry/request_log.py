"""One line per request, written in batches.

A line costs a write of its own with most loggers, on the path of every request; here lines are
gathered and leave together. Never in a line: prompts, keys, query strings.
"""

import asyncio
import enum
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import BinaryIO, TextIO

import msgspec

from olla.record import RequestRecord
from olla.settings.masking import masked_url
from olla.telemetry.loop_lag import Schedule, Timer

__all__ = ["JsonLines", "LogFormat", "RequestLog", "text_line"]


class LogFormat(enum.Enum):
    """How lines look."""

    JSON = "json"
    """One object a line, for machines."""
    TEXT = "text"
    """One short aligned line, for people."""


class RequestLog:
    """Writes a line for each record handed to it.

    Lines leave `flush_after` seconds after the first of a batch, or at once when `flush_bytes`
    have gathered. A stream that takes nothing makes them pile up to `pending_bytes_max`; then
    lines are dropped, counted in `dropped`, and a line says how many as soon as the stream takes
    lines again.
    """

    def __init__(
        self,
        stream: TextIO,
        format: LogFormat = LogFormat.JSON,
        *,
        schedule: Schedule | None = None,
        flush_after: float = 0.2,
        flush_bytes: int = 65_536,
        pending_bytes_max: int = 1_048_576,
    ) -> None:
        """Timers are those of the running loop where `schedule` does not say otherwise."""
        self.dropped = 0
        self._stream = stream
        # Only the binary layer tells how much of a batch went out when it was not all.
        self._binary: BinaryIO | None = getattr(stream, "buffer", None)
        self._schedule = schedule
        self._line: Callable[[RequestRecord], bytes] = (
            JsonLines().line if format is LogFormat.JSON else text_line
        )
        self._dropped_line = _dropped_json if format is LogFormat.JSON else _dropped_text
        self._flush_after = flush_after
        self._flush_bytes = flush_bytes
        self._pending_bytes_max = pending_bytes_max
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._unreported = 0
        self._wall = 0.0
        self._timer: Timer | None = None
        self._closed = False

    def __call__(self, record: RequestRecord) -> None:
        """Take a finished request."""
        line = self._line(record)
        if self._closed or self._pending_bytes + len(line) > self._pending_bytes_max:
            self._drop(1)
            return
        self._wall = record.started_wall
        self._pending.append(line)
        self._pending_bytes += len(line)
        # Only a batch that has just grown large: a stream that takes nothing is not asked again
        # for every line.
        if self._pending_bytes - len(line) < self._flush_bytes <= self._pending_bytes:
            self.flush()
        elif self._timer is None:
            self._arm()

    def flush(self) -> None:
        """Write what has gathered; what the stream does not take now waits for the next time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._pending:
            return
        data = b"".join(self._pending)
        if self._unreported:
            data += self._dropped_line(self._wall, self._unreported)
        try:
            taken = self._write(data)
        except (OSError, ValueError):  # ValueError: the stream is closed
            self._drop_pending()
            return
        if taken:
            self._unreported = 0
            self._keep(data[taken:])
        if self._pending and not self._closed:
            self._arm()

    def close(self) -> None:
        """Write what has gathered, once; lines that come later, or are still here, are dropped."""
        self._closed = True
        self.flush()
        self._drop_pending()

    def _arm(self) -> None:
        schedule = self._schedule or asyncio.get_running_loop().call_later
        self._timer = schedule(self._flush_after, self.flush)

    def _write(self, data: bytes) -> int:
        """Write, and tell how many bytes the stream took."""
        if self._binary is None:
            self._stream.write(data.decode())
            self._stream.flush()
            return len(data)
        try:
            taken = self._binary.write(data)
        except BlockingIOError as error:
            return error.characters_written
        with suppress(BlockingIOError):  # the rest is in its buffer, and goes with the next batch
            self._binary.flush()
        return taken

    def _keep(self, rest: bytes) -> None:
        self._pending = [rest] if rest else []
        self._pending_bytes = len(rest)

    def _drop(self, lines: int) -> None:
        self.dropped += lines
        self._unreported += lines

    def _drop_pending(self) -> None:
        self._drop(sum(each.count(b"\n") for each in self._pending))
        self._keep(b"")


class _Dropped(msgspec.Struct):
    ts: datetime
    event: str
    lines: int


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


def _dropped_json(wall: float, lines: int) -> bytes:
    ts = datetime.fromtimestamp(wall, UTC)
    return _encoder.encode(_Dropped(ts, "request_log_dropped", lines)) + b"\n"


def _dropped_text(wall: float, lines: int) -> bytes:
    ts = datetime.fromtimestamp(wall, UTC).strftime("%H:%M:%S")
    return f"{ts} --- {lines} lines of the request log dropped\n".encode()


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
