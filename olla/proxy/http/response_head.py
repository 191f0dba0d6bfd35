"""Parse the head of an endpoint's response strictly, because the framing depends on it.

RFC 9112, sections 4, 5 and 6. Heads that two parsers could interpret differently (two lengths, a
length and chunks, folded lines, bare CR or NUL) are rejected.

Servers repeat the same head (within a second, even with the same date), so parsed heads are cached
by their bytes: 0.1 µs instead of 3.5 µs for a head with three fields.
"""

import re

import msgspec

from olla.proxy.http.content_coding import normalized
from olla.proxy.http.framing import Chunked, Length, Scanner, UntilClose
from olla.proxy.http.message_fields import BAD_VALUE, TOKEN, Passed, passed_fields

__all__ = ["HEAD_MAX", "BadHead", "HeadParser", "ResponseHead", "parse_head"]

HEAD_MAX = 65536
"""The longest head an endpoint may send, in bytes."""

_REMEMBERED_LENGTH_MAX = 2048
_REMEMBERED_BYTES_MAX = 2 * 1024 * 1024
"""Limits of the cache in bytes: for one head, and for all of them together."""
_HEAD_OVERHEAD = 512
_FIELD_OVERHEAD = 256
"""Bytes of memory in addition to the text, per head and per field (measured)."""
_STREAMS = frozenset({b"application/x-ndjson", b"text/event-stream"})

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_BODILESS = frozenset({204, 304})


class BadHead(Exception):
    """The endpoint's response does not begin with a valid, unambiguous head."""


class ResponseHead(msgspec.Struct, frozen=True):
    """The head of a response.

    `headers` are (lower-case name, name as sent, value) in order. `length` is the Content-Length.
    `keep_alive` says that the endpoint keeps the connection open, `keep_alive_seconds` for how long
    if announced. `streams` says that the body is a stream of records, `readable` that it is a
    stream or JSON. `coding` is its compression: "" for none, None for one that olla cannot decode.
    `passed` is the part of the head that is forwarded.
    """

    status: int
    reason: bytes
    headers: list[tuple[bytes, bytes, bytes]]
    length: int | None
    chunked: bool
    keep_alive: bool
    keep_alive_seconds: float | None
    bodiless: bool
    streams: bool
    readable: bool
    passed: Passed
    coding: str | None = ""

    def get(self, name: bytes) -> bytes | None:
        """Return the first value of a header (lower-case name)."""
        for lower, _, value in self.headers:
            if lower == name:
                return value
        return None

    def scanner(self) -> Scanner:
        """Return a scanner for the body."""
        if self.bodiless:
            return Length(0)
        if self.chunked:
            return Chunked()
        if self.length is not None:
            return Length(self.length)
        return UntilClose()


def parse_head(raw: bytes, method: str) -> ResponseHead:
    """Parse the head (without the final empty line) of the response to a `method` request.

    Raises:
        BadHead: the head is invalid or its framing is ambiguous.
    """
    lines = raw.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(lines[0])
    if match is None:
        raise BadHead(f"the response begins with {lines[0][:60]!r}, which is not HTTP/1.1")
    minor, status = match[1], int(match[2])
    headers: list[tuple[bytes, bytes, bytes]] = []
    lengths: set[bytes] = set()
    codings: list[bytes] = []
    connection = b""
    keep_alive_seconds: float | None = None
    content_type = coding = b""
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or TOKEN.fullmatch(name) is None or BAD_VALUE.search(value):
            raise BadHead(f"{line[:60]!r} is not a valid header line")
        lower = name.lower()
        value = value.strip(b" \t")
        headers.append((lower, name, value))
        if lower == b"content-length":
            lengths.update(each.strip(b" \t") for each in value.split(b","))
        elif lower == b"transfer-encoding":
            codings.append(value.lower())
        elif lower == b"connection":
            connection += b"," + value.lower()
        elif lower == b"content-type":
            content_type = content_type or value
        elif lower == b"content-encoding":
            coding += b"," + value if coding else value
        elif lower == b"keep-alive":
            keep_alive_seconds = _keep_alive_seconds(value)
    bodiless = method == "HEAD" or status in _BODILESS or status < 200
    length = _length(lengths)
    chunked = _chunked(codings)
    if chunked and length is not None and not bodiless:
        raise BadHead("the response has both a Content-Length and a Transfer-Encoding")
    tokens = {token.strip(b" \t") for token in connection.split(b",")}
    keep_alive = b"close" not in tokens if minor == b"1" else b"keep-alive" in tokens
    delimited = bodiless or chunked or length is not None
    reason = match[3] or b""
    streams = content_type.split(b";", 1)[0].strip().lower() in _STREAMS
    json = content_type[:16].lower() == b"application/json"
    return ResponseHead(
        status=status,
        reason=reason,
        headers=headers,
        length=length,
        chunked=chunked,
        keep_alive=keep_alive and delimited,
        keep_alive_seconds=keep_alive_seconds,
        bodiless=bodiless,
        streams=streams,
        readable=streams or json,
        passed=passed_fields(status, reason, headers, streams=streams),
        coding=normalized(coding.decode("latin-1")) if coding else "",
    )


class HeadParser:
    """Parses heads and caches the results."""

    __slots__ = ("_known", "_size")

    def __init__(self) -> None:
        self._known: dict[bytes, ResponseHead] = {}
        self._size = 0

    def parse(self, raw: bytes, method: str) -> ResponseHead:
        """See `parse_head`."""
        if method == "HEAD" or len(raw) > _REMEMBERED_LENGTH_MAX:
            return parse_head(raw, method)
        head = self._known.get(raw)
        if head is None:
            head = parse_head(raw, method)
            if self._size > _REMEMBERED_BYTES_MAX:
                self._known.clear()
                self._size = 0
            # The text is stored three times: raw, as parsed fields, and as forwarded lines.
            self._size += 3 * len(raw) + len(head.headers) * _FIELD_OVERHEAD + _HEAD_OVERHEAD
            self._known[raw] = head
        return head


def _length(values: set[bytes]) -> int | None:
    if not values:
        return None
    if len(values) > 1:
        raise BadHead("the response has two different Content-Lengths")
    value = next(iter(values))
    if not value.isdigit() or len(value) > 18:
        raise BadHead(f"{value[:30]!r} is not a valid Content-Length")
    return int(value)


def _chunked(codings: list[bytes]) -> bool:
    if not codings:
        return False
    if codings != [b"chunked"]:
        names = b", ".join(codings)[:60]
        raise BadHead(f"the Transfer-Encoding {names!r} is not supported")
    return True


def _keep_alive_seconds(value: bytes) -> float | None:
    for part in value.split(b","):
        key, _, number = part.strip().partition(b"=")
        if key.strip().lower() == b"timeout" and number.strip().isdigit():
            return float(number)
    return None
