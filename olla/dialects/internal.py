"""The shape of errors on olla's own surfaces: `{"error": {"code", "message", "details"}}`."""

from typing import Any

from olla.dialects.dialect import Ending, Operation, Peek, Summary
from olla.dialects.json_scan import JsonObject
from olla.dialects.records import encoded
from olla.failures import Failure

__all__ = ["InternalDialect"]


class InternalDialect:
    """olla's own paths. Nothing is relayed in it."""

    name = "olla"
    counts_at_start = False

    def peek(self, operation: Operation, body: bytes, scanned: JsonObject | None = None) -> Peek:
        """See `Dialect.peek`: requests here have no model."""
        return Peek(None, False)

    def error_body(self, failure: Failure) -> bytes:
        """See `Dialect.error_body`."""
        details: dict[str, Any] = {}
        if failure.endpoint is not None:
            details["endpoint"] = failure.endpoint
        if failure.retry_after is not None:
            details["retry_after_seconds"] = failure.retry_after
        return encoded(
            {
                "error": {
                    "code": failure.kind.value,
                    "message": failure.message,
                    "details": details,
                }
            }
        )

    def in_band_error(self, failure: Failure, *, mid_record: bool) -> bytes:
        """See `Dialect.in_band_error`."""
        record = self.error_body(failure) + b"\n"
        return b"\n" + record if mid_record else record

    def waiting(self, operation: Operation, text: str) -> bytes | None:
        """See `Dialect.waiting`."""
        return None

    def summary(
        self, operation: Operation, streaming: bool, tail: bytes, start: bytes = b""
    ) -> Summary:
        """See `Dialect.summary`."""
        return Summary(Ending.COMPLETE)
