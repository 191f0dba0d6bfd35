"""What olla tells of itself in an answer's head: the `X-Olla-*` fields."""

from olla.proxy.http.headers import header_value, seconds
from olla.record import RequestRecord

__all__ = ["ResponseHeaders"]

_REMEMBERED_MAX = 1024
_REMEMBERED_BYTES_MAX = 1024
"""How many are remembered, and the longest of them: clients choose names of models."""

_Key = tuple[str | None, str | None, str | None, str, str, str]


class ResponseHeaders:
    """Puts the fields together; what recurs from request to request is kept as bytes."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[_Key, bytes] = {}

    def fields(self, record: RequestRecord, now: float, explanation: str | None = None) -> bytes:
        """All fields, each with its line end, as of `now` (monotonic seconds)."""
        key = (
            record.endpoint,
            record.model,
            record.endpoint_type,
            record.strategy,
            record.decision,
            record.reason,
        )
        known = self._known.get(key)
        if known is None:
            known = self._remember(key)
        more = b""
        if len(record.attempts) > 1:
            more = b"X-Olla-Attempts: %d\r\n" % len(record.attempts)
        if record.queue_seconds is not None:
            more += b"X-Olla-Queue-Time: %.3fs\r\n" % record.queue_seconds
        if explanation is not None:
            more += f"X-Olla-Explanation: {_explained(record, explanation)}\r\n".encode()
        return b"X-Olla-Request-ID: %b\r\n%b%bX-Olla-Response-Time: %.3fs\r\n" % (
            record.id.encode(),
            known,
            more,
            now - record.started,
        )

    def _remember(self, key: _Key) -> bytes:
        endpoint, model, endpoint_type, strategy, decision, reason = key
        fields: list[tuple[str, str]] = []
        if endpoint is not None:
            fields.append(("X-Olla-Endpoint", endpoint))
        if model is not None:
            fields.append(("X-Olla-Model", header_value(model)))
        if endpoint_type is not None:
            fields.append(("X-Olla-Backend-Type", endpoint_type))
        fields.append(("X-Olla-Routing-Strategy", strategy))
        fields.append(("X-Olla-Routing-Decision", decision or "rejected"))
        if reason:
            fields.append(("X-Olla-Routing-Reason", reason))
        known = "".join(f"{name}: {value}\r\n" for name, value in fields).encode()
        if len(known) > _REMEMBERED_BYTES_MAX:
            return known
        if len(self._known) >= _REMEMBERED_MAX:
            self._known.clear()
        self._known[key] = known
        return known


def _explained(record: RequestRecord, explanation: str) -> str:
    """The candidates, and what was expected against what came."""
    parts = [explanation]
    if record.predicted is not None:
        parts.append(f"predicted={seconds(record.predicted)}")
    if record.first_byte is not None:
        parts.append(f"observed={seconds(record.first_byte - record.started)}")
    return "; ".join(parts)
