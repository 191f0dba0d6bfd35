"""Heads that olla writes: what passes, what is dropped, what is added, in both directions.

Hop-by-hop fields end here (RFC 9110, section 7.6.1); the rest passes in its order and spelling.
"""

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from urllib.parse import quote

from olla.fleet.endpoint import EndpointSpec
from olla.proxy.head import ResponseHead

__all__ = [
    "header_value",
    "reason_phrase",
    "request_head",
    "response_head",
    "seconds",
]

RawHeaders = Sequence[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_OURS_UPSTREAM = _HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"expect",
    b"x-olla-request-id",
    b"x-olla-endpoint",
    b"x-olla-explain",
    b"via",
    b"x-forwarded-for",
}
_CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"cookie"})
"""What a client shows to olla is not for the endpoints."""
_DROPPED_DOWNSTREAM = _HOP_BY_HOP | {b"content-length"}


def request_head(
    method: str,
    target: str,
    spec: EndpointSpec,
    headers: RawHeaders,
    *,
    request_id: str,
    peer: str,
    length: int | None,
    chunked: bool,
    scheme: str = "http",
    via: str | None = None,
) -> bytes:
    """The head of a request to an endpoint, the empty line included.

    `target` is path and query without the endpoint's base path; `length` the body's length in
    bytes, None without a body or when it is `chunked`; `via` this router's own name in the `Via`
    field (RFC 9110, section 7.6.3), by which it knows its own requests again.
    """
    dropped = _dropped(headers, _OURS_UPSTREAM)
    if not spec.forward_authorization:
        dropped = dropped | _CREDENTIALS
    own = {name.lower().encode() for name, _ in spec.headers}
    forwarded_for = peer.encode("latin-1", "replace")
    host = b""
    passed: list[bytes] = []
    proto_seen = host_seen = False
    parts = [f"{method} {spec.base_path}{target} HTTP/1.1\r\nHost: {spec.authority}\r\n".encode()]
    for name, value in headers:
        lower = name.lower()
        if lower == b"host":
            host = host or value
        elif lower == b"via":
            passed.append(value)
        elif lower == b"x-forwarded-for":
            forwarded_for = value + b", " + forwarded_for
        elif lower == b"x-forwarded-host":
            host_seen = True
        elif lower == b"x-forwarded-proto":
            proto_seen = True
        if lower not in dropped and lower not in own:
            parts.append(b"%b: %b\r\n" % (name, value))
    parts.extend(f"{name}: {value}\r\n".encode() for name, value in spec.headers)
    parts.append(
        b"X-Olla-Request-ID: %b\r\nX-Forwarded-For: %b\r\n" % (request_id.encode(), forwarded_for)
    )
    if via is not None:
        passed.append(f"1.1 {via}".encode())
    if passed:
        parts.append(b"Via: %b\r\n" % b", ".join(passed))
    if host and not host_seen:
        parts.append(b"X-Forwarded-Host: %b\r\n" % host)
    if not proto_seen:
        parts.append(b"X-Forwarded-Proto: %b\r\n" % scheme.encode())
    if chunked:
        parts.append(b"Transfer-Encoding: chunked\r\n")
    elif length is not None:
        parts.append(b"Content-Length: %d\r\n" % length)
    parts.append(b"\r\n")
    return b"".join(parts)


def response_head(
    head: ResponseHead,
    fields: Iterable[tuple[str, str]],
    *,
    keep_alive: bool,
    minor: int,
    chunked: bool,
    trailer: str | None = None,
) -> bytes:
    """The head of an answer to the client, the empty line included.

    `fields` are olla's own; `keep_alive` whether the client's connection stays open after it;
    `minor` the client's HTTP/1 version; `trailer` the name of a field that comes after the body.
    """
    dropped = _dropped(((name, value) for _, name, value in head.headers), _DROPPED_DOWNSTREAM)
    reason = head.reason or reason_phrase(head.status).encode()
    parts = [b"HTTP/1.1 %d %b\r\n" % (head.status, reason)]
    for lower, name, value in head.headers:
        if lower not in dropped and not lower.startswith(b"x-olla-"):
            parts.append(b"%b: %b\r\n" % (name, value))
    if chunked:
        parts.append(b"Transfer-Encoding: chunked\r\n")
    elif head.length is not None and head.status != 204:
        parts.append(b"Content-Length: %d\r\n" % head.length)
    if trailer is not None:
        parts.append(f"Trailer: {trailer}\r\n".encode())
    if not keep_alive:
        parts.append(b"Connection: close\r\n")
    elif minor == 0:
        parts.append(b"Connection: keep-alive\r\n")
    parts.extend(f"{name}: {value}\r\n".encode() for name, value in fields)
    parts.append(b"\r\n")
    return b"".join(parts)


def header_value(text: str) -> str:
    """`text` as a header value: what is not printable ASCII is percent-encoded."""
    if text.isascii() and text.isprintable():
        return text
    return quote(text, safe=" /:@!$&'()*+,;=-._~")


def seconds(value: float) -> str:
    """A duration as the headers show it, such as `0.012s`."""
    return f"{value:.3f}s"


def reason_phrase(status: int) -> str:
    """The standard reason phrase, which some clients show to people."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Client Closed Request" if status == 499 else "Unknown"


def _dropped(headers: Iterable[tuple[bytes, bytes]], always: frozenset[bytes]) -> frozenset[bytes]:
    """`always`, and what the Connection fields name besides."""
    named: set[bytes] = set()
    for name, value in headers:
        if name.lower() == b"connection":
            named.update(token.strip().lower() for token in value.split(b","))
    named -= {b"", b"close", b"keep-alive"}
    return always | named if named else always
