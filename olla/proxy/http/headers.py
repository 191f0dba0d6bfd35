"""Heads that olla writes: what is added to what passes, in both directions."""

from collections.abc import Sequence
from urllib.parse import quote

from olla.fleet.endpoint import EndpointSpec
from olla.proxy.http.message_fields import HOP_BY_HOP, dropped_fields
from olla.proxy.http.response_head import ResponseHead

__all__ = [
    "CREDENTIALS",
    "MEANT",
    "MEANT_BEGINNINGS",
    "OURS_UPSTREAM",
    "header_value",
    "request_head",
    "response_head",
    "seconds",
    "unchanging_head",
]

RawHeaders = Sequence[tuple[bytes, bytes]]

OURS_UPSTREAM = HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"expect",
    b"x-olla-request-id",
    b"x-olla-endpoint",
    b"x-olla-explain",
    b"via",
    b"x-forwarded-for",
    b"accept-encoding",
    # Which pages may ask was decided here; an endpoint with a policy of its own would refuse them.
    b"origin",
}
CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"cookie"})
"""What a client shows to olla is not for the endpoints."""
MEANT = (
    OURS_UPSTREAM
    | CREDENTIALS
    | {
        *(b"api-key", b"cache-control", b"early-data", b"http2-settings", b"idempotency-key"),
        *(b"last-event-id", b"max-forwards", b"remote-user", b"upgrade-insecure-requests"),
        *(b"cf-connecting-ip", b"true-client-ip", b"user-agent", b"x-client-ip"),
        *(b"x-cluster-client-ip", b"x-real-ip", b"x-request-id"),
    }
)
MEANT_BEGINNINGS = (
    *(b"accept-", b"access-control-", b"content-", b"if-", b"proxy-", b"sec-", b"x-accel-"),
    *(b"x-auth-", b"x-forwarded-", b"x-http-method", b"x-olla-", b"x-original-", b"x-remote-"),
    b"x-rewrite-",
)
"""Names, and how names begin, that HTTP, a proxy or the router gives a meaning: with underscores
in place of the dashes they do not reach an endpoint."""


def unchanging_head(
    method: str,
    target: str,
    spec: EndpointSpec,
    headers: RawHeaders,
    *,
    peer: str,
    scheme: str = "http",
    via: str | None = None,
    hidden: frozenset[bytes] | None = None,
    readable: bool = True,
) -> bytes:
    """The part of a request's head that is the same for all requests with these fields.

    `target` is path and query without the endpoint's base path; `via` this router's own name in
    the `Via` field (RFC 9110, section 7.6.3), by which it knows its own requests again;
    `hidden` the fields (in lower case) that showed olla a key. An answer that olla reads is to
    come as it is (`readable`), whatever the client could decode: token counts stand in it.
    """
    connection = host = b""
    odd: list[bytes] = []
    forwarded_for = peer.encode("latin-1", "replace")
    passed: list[bytes] = []
    proto_seen = host_seen = False
    end_to_end: list[tuple[bytes, bytes, bytes]] = []
    for name, value in headers:
        lower = name.lower()
        if lower not in OURS_UPSTREAM:
            if lower == b"x-forwarded-host":
                host_seen = True
            elif lower == b"x-forwarded-proto":
                proto_seen = True
            elif b"_" in lower:
                odd.append(lower)
            end_to_end.append((lower, name, value))
        elif lower == b"accept-encoding":
            if not readable:
                end_to_end.append((lower, name, value))
        elif lower == b"host":
            host = host or value
        elif lower == b"connection":
            connection += value + b","
        elif lower == b"via":
            passed.append(value)
        elif lower == b"x-forwarded-for":
            forwarded_for = value + b", " + forwarded_for
    if readable:
        end_to_end.append((b"accept-encoding", b"Accept-Encoding", b"identity"))
    dropped = dropped_fields([connection] if connection else (), frozenset())
    if not spec.forward_authorization:
        dropped = dropped | CREDENTIALS
    elif hidden is not None:
        dropped = dropped | hidden
    if spec.headers:
        dropped = dropped | {name.lower().encode() for name, _ in spec.headers}
    if odd:
        dropped = dropped | _shadows(odd, dropped | {lower for lower, _, _ in end_to_end})
    parts = [f"{method} {spec.base_path}{target} HTTP/1.1\r\nHost: {spec.authority}\r\n".encode()]
    parts += [
        b"%b: %b\r\n" % (name, value) for lower, name, value in end_to_end if lower not in dropped
    ]
    parts += [f"{name}: {value}\r\n".encode() for name, value in spec.headers]
    parts.append(b"X-Forwarded-For: %b\r\n" % forwarded_for)
    if via is not None:
        passed.append(f"1.1 {via}".encode())
    if passed:
        parts.append(b"Via: %b\r\n" % b", ".join(passed))
    if host and not host_seen:
        parts.append(b"X-Forwarded-Host: %b\r\n" % host)
    if not proto_seen:
        parts.append(b"X-Forwarded-Proto: %b\r\n" % scheme.encode())
    return b"".join(parts)


def _shadows(odd: Sequence[bytes], there: frozenset[bytes]) -> frozenset[bytes]:
    """Which of these names, all with an underscore, some server would read as another field.

    CGI, WSGI and what came of them make `HTTP_CONTENT_LENGTH` of `Content-Length` and of
    `Content_Length`. So one is dropped whose dashed form HTTP, a proxy or the router gives a
    meaning, or which is `there` besides.
    """
    found: set[bytes] = set()
    for name in odd:
        dashed = name.replace(b"_", b"-")
        if dashed in there or dashed in MEANT or dashed.startswith(MEANT_BEGINNINGS):
            found.add(name)
    return frozenset(found)


def request_head(unchanging: bytes, request_id: str, length: int | None, *, chunked: bool) -> bytes:
    """The head of a request to an endpoint, the empty line included.

    `unchanging` is what `unchanging_head` gave, `length` the body's length in bytes, None without
    a body or when it is `chunked`.
    """
    if chunked:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif length is not None:
        framing = b"Content-Length: %d\r\n" % length
    else:
        framing = b""
    return b"%bX-Olla-Request-ID: %b\r\n%b\r\n" % (unchanging, request_id.encode(), framing)


def response_head(
    head: ResponseHead,
    fields: bytes,
    *,
    limited: bool,
    keep_alive: bool,
    minor: int,
    chunked: bool,
    trailer: bytes | None = None,
) -> bytes:
    """The head of an answer to the client, the empty line included.

    `fields` are olla's own, each with its line end; `limited` says that the endpoint's limits are
    not the client's; `keep_alive` whether the client's connection
    stays open after it; `minor` the client's HTTP/1 version; `trailer` the name of a field that
    comes after the body.
    """
    framing = b""
    if chunked:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif head.length is not None and head.status != 204:
        framing = b"Content-Length: %d\r\n" % head.length
    if trailer is not None:
        framing += b"Trailer: %b\r\n" % trailer
    if not keep_alive:
        framing += b"Connection: close\r\n"
    elif minor == 0:
        framing += b"Connection: keep-alive\r\n"
    passed = head.passed.unlimited if limited else head.passed.fields
    return b"%b%b%b\r\n" % (passed, framing, fields)


def header_value(text: str) -> str:
    """`text` as a header value: what is not printable ASCII is percent-encoded."""
    if text.isascii() and text.isprintable():
        return text
    return quote(text, safe=" /:@!$&'()*+,;=-._~")


def seconds(value: float) -> str:
    """A duration as the headers show it, such as `0.012s`."""
    return f"{value:.3f}s"
