"""Read single records of a response leniently, and write one that always succeeds.

Data that is not JSON is skipped. Only the top level is read at once, and values on demand: a last
record may hold a whole context as numbers.
"""

from typing import Any

import msgspec

from olla.dialects.top_level import NotAnObject, TopLevel, top_level

__all__ = [
    "COUNT_MAX",
    "encoded",
    "error_text",
    "in_band_event",
    "json_object",
    "last_line",
    "sse_data",
    "value",
    "whole",
]

_EMPTY = frozenset({b"", b"null", b"false", b"0", b'""', b"[]", b"{}"})
_ERROR_JSON_MAX = 65_536
"""Bytes of an endpoint's error that are read."""
COUNT_MAX = 2**63 - 1
"""The maximum of Go's and Rust's counters; a larger number is invalid."""


def json_object(data: bytes) -> TopLevel | None:
    """Return the JSON object in `data`; None if it is not one."""
    try:
        return top_level(data)
    except NotAnObject:
        return None


def value(record: TopLevel | None, key: str) -> Any:
    """Return the decoded value of a key; None if it is missing or invalid."""
    raw = record.get(key) if record is not None else None
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def error_text(error: bytes | msgspec.Raw, most: int) -> str | None:
    """Return the text of an error's JSON: itself, or its `message`.

    What is not a string is quoted as the JSON it came in: numbers of any length have no other
    form. At most `most` characters; None where it is empty, too long or unreadable.
    """
    raw = bytes(error).strip()
    if len(raw) > _ERROR_JSON_MAX:
        return None
    if raw.startswith(b"{"):
        message = (json_object(raw) or {}).get("message")
        raw = b"" if message is None else bytes(message).strip()
    if raw in _EMPTY:
        return None
    try:
        text = msgspec.json.decode(raw, type=str) if raw.startswith(b'"') else raw.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return text[:most] or None


def last_line(tail: bytes) -> bytes:
    """Return the last line of an NDJSON tail that is not blank."""
    text = tail.rstrip()
    return text[text.rfind(b"\n") + 1 :]


def sse_data(tail: bytes) -> list[bytes]:
    """Return the data of the server-sent events in a tail, last first."""
    return [line[5:].strip() for line in reversed(tail.splitlines()) if line.startswith(b"data:")]


def whole(count: object) -> int | None:
    """Return a count; None for other values."""
    if isinstance(count, int) and not isinstance(count, bool) and 0 <= count <= COUNT_MAX:
        return count
    return None


def in_band_event(event: bytes, *, mid_record: bool) -> bytes:
    """A server-sent event that stands apart from what was sent before it.

    `mid_record` says that this stopped within a line. An empty line more than needed means
    nothing, one less would make two events one: a line may end and its event still be open.
    """
    return (b"\n\n" if mid_record else b"\n") + event + b"\n\n"


def encoded(record: dict[str, Any]) -> bytes:
    """Return the record as JSON on one line. Invalid Unicode is replaced."""
    try:
        return msgspec.json.encode(record)
    except UnicodeEncodeError:
        return msgspec.json.encode(_mended(record))


def _mended(part: Any) -> Any:
    if isinstance(part, str):
        return part.encode("utf-8", "replace").decode()
    if isinstance(part, dict):
        return {key: _mended(each) for key, each in part.items()}
    return part
