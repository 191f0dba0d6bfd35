"""Write the `X-Olla-*` fields of a response."""

from olla.proxy.http.headers import header_value, seconds
from olla.record import RequestRecord

__all__ = ["ResponseHeaders"]

_FIELDS_SHOWN_MAX = 32
_CACHE_SIZE_MAX = 1024
_CACHED_BYTES_MAX = 1024
"""Limits of the cache: entries, and bytes of one entry. Clients choose the models' names."""

_Key = tuple[str | None, str | None, str | None, str, str, str, bool]


class ResponseHeaders:
    """Writes the fields, and caches those that repeat from request to request."""

    __slots__ = ("_cache",)

    def __init__(self) -> None:
        self._cache: dict[_Key, bytes] = {}

    def fields(self, record: RequestRecord, now: float, explanation: str | None = None) -> bytes:
        """Return all header lines, as of `now` (monotonic seconds)."""
        key = (
            record.endpoint,
            record.model,
            record.endpoint_type,
            record.strategy,
            record.decision,
            record.reason,
            record.translated is not None,
        )
        cached = self._cache.get(key)
        if cached is None:
            cached = self._write(key)
        more = b""
        if len(record.attempts) > 1:
            more = b"X-Olla-Attempts: %d\r\n" % len(record.attempts)
        if record.queue_seconds is not None:
            more += b"X-Olla-Queue-Time: %.3fs\r\n" % record.queue_seconds
        if record.translated:
            more += b"X-Olla-Translation: dropped %b\r\n" % _names(record.translated)
        if explanation is not None:
            more += f"X-Olla-Explanation: {_with_times(record, explanation)}\r\n".encode()
        return b"X-Olla-Request-ID: %b\r\n%b%bX-Olla-Response-Time: %.3fs\r\n" % (
            record.id.encode(),
            cached,
            more,
            now - record.started,
        )

    def _write(self, key: _Key) -> bytes:
        endpoint, model, endpoint_type, strategy, decision, reason, translated = key
        fields: list[tuple[str, str]] = []
        if endpoint is not None:
            fields.append(("X-Olla-Endpoint", endpoint))
        if model is not None:
            fields.append(("X-Olla-Model", header_value(model)))
        if endpoint_type is not None:
            fields.append(("X-Olla-Backend-Type", endpoint_type))
        fields.append(("X-Olla-Routing-Strategy", strategy))
        fields.append(("X-Olla-Routing-Decision", decision or "rejected"))
        if endpoint is not None:
            fields.append(("X-Olla-Mode", "translated" if translated else "passthrough"))
        if reason:
            fields.append(("X-Olla-Routing-Reason", reason))
        cached = "".join(f"{name}: {value}\r\n" for name, value in fields).encode()
        if len(cached) > _CACHED_BYTES_MAX:
            return cached
        if len(self._cache) >= _CACHE_SIZE_MAX:
            self._cache.clear()
        self._cache[key] = cached
        return cached


def _names(fields: tuple[str, ...]) -> bytes:
    """Format names of request fields, which the client chose, as a header value of bounded
    length."""
    return header_value(", ".join(fields[:_FIELDS_SHOWN_MAX]))[:_CACHED_BYTES_MAX].encode()


def _with_times(record: RequestRecord, explanation: str) -> str:
    """Add the predicted and the observed time to the first byte to an explanation."""
    parts = [explanation]
    if record.predicted is not None:
        parts.append(f"predicted={seconds(record.predicted)}")
    if record.first_byte is not None:
        parts.append(f"observed={seconds(record.first_byte - record.started)}")
    return "; ".join(parts)
