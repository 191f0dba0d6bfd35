"""The last records of a stream, read leniently: what is not JSON is passed over."""

from typing import Any

import msgspec

__all__ = ["json_object", "last_lines", "sse_data", "whole"]

_DECODER = msgspec.json.Decoder(dict[str, Any])


def json_object(data: bytes) -> dict[str, Any] | None:
    """The JSON object in `data`; None when it is none."""
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def last_lines(tail: bytes) -> list[bytes]:
    """The non-empty lines of an NDJSON tail, last first."""
    return [line for line in reversed(tail.split(b"\n")) if line.strip()]


def sse_data(tail: bytes) -> list[bytes]:
    """The data of the server-sent events in a tail, last first."""
    return [line[5:].strip() for line in reversed(tail.splitlines()) if line.startswith(b"data:")]


def whole(value: object) -> int | None:
    """A count; None when it is none."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return None
